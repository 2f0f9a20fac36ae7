"""Failures grouped by cause: a few rows, however many images failed."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from daemon.core.model import Failure

MAX_CAUSES = 50  # rows of the table
MAX_CAUSES_OF_CODE = 5  # one more is a row for all further ones of that code
MAX_EXAMPLES = 3  # of each cause
MAX_SHOWN = 10
_MAX_ERROR = 200  # characters
_MAX_HINT = 400
MAX_NAME = 80
_FURTHER = "other errors of this code"

_PARTICULAR = "[0-9/]"  # in names, paths, numbers, checksums
_AROUND = "'\"(),:;"
# Compiled at the first failure.
_KEPT = r"""(?x:
      [1-5][0-9]{2} \Z                                  # an HTTP status
    | [a-z0-9]+://[^/]+                                 # a bucket, an endpoint: what follows it is left out
    | (?:[A-Za-z0-9-]+\.){2,}[A-Za-z0-9-]+(?::\d+)? \Z  # a host
    | [A-Za-z0-9.-]+:\d+ \Z
    )"""


def cause_of(error: str, *names: str) -> str:
    """The error without the parts that belong to one image. `names`: of its image and actor.

    | error                                           | cause                                             |
    |-------------------------------------------------|---------------------------------------------------|
    | S3 answered 403 AccessDenied: Access Denied     | … answered 403 AccessDenied: Access Denied        |
    | 512 bytes came of 2048                          | 512 bytes came of …                               |
    | s3://b/a/me.png would be saved as me.png, again | s3://b would be saved as … again                  |
    | the object at 'me.png' is empty                 | the object at … is empty                          |
    | 31 MB are free in /data/actors/anna             | … MB are free in …                                |
    | http://h:9000 cannot be reached (refused)       | http://h:9000 cannot be reached (refused)         |
    | no connection to h:9000: refused                | no connection to h:9000 refused                   |
    | no connection to 10.0.0.1: refused              | no connection to 10.0.0.1 refused                 |
    | the bytes have MD5 900150983cd2, S3 says 3f1bd0 | the bytes have … … … says …                       |
    """
    return _cause_of(error, tuple(name for name in names if name and name in error))


@lru_cache(256)  # an outage's error is that of each image that it stops
def _cause_of(error: str, names: tuple[str, ...]) -> str:
    def general(word: re.Match[str]) -> str:
        bare = word[0].strip(_AROUND)
        if bare in names:
            return "…"
        if not re.search(_PARTICULAR, bare):
            return word[0]
        kept = re.match(_KEPT, bare)
        return kept[0] if kept else "…"

    for name in names:
        if " " in name:
            error = error.replace(name, "…")
    return re.sub(r"\S+", general, error)


class CauseKey(NamedTuple):
    """Failures with an equal key have one cause."""

    code: str
    cause: str


class Cause:
    """Failures of one cause: their count, the error of the first, and some names as examples."""

    __slots__ = ("code", "count", "error", "examples", "hint")

    def __init__(self, code: str, error: str, hint: str) -> None:
        self.code = code
        self.error = error
        self.hint = hint
        self.count = 0
        self.examples: list[str] = []

    def add(self, count: int, examples: Iterable[str]) -> None:
        self.count += count
        self.examples += [*examples][: MAX_EXAMPLES - len(self.examples)]

    def document(self) -> dict[str, object]:
        return {
            "code": self.code,
            "count": self.count,
            "error": cut_text(self.error, _MAX_ERROR),
            "hint": cut_text(self.hint, _MAX_HINT),
            "examples": [cut_text(example, MAX_NAME) for example in self.examples],
        }


class Causes:
    """A bounded table of causes. Failures beyond it are only counted."""

    __slots__ = ("_rows", "_unlisted")

    def __init__(self) -> None:
        self._rows: dict[CauseKey, Cause] = {}
        self._unlisted = 0

    def add(self, failure: Failure, actor: str) -> None:
        """Count an actor's failure: of an image, or of its manifest. `actor` "": of actorsData.json."""
        key = CauseKey(failure.code, cause_of(failure.error, failure.image, actor))
        example = "/".join(filter(None, (actor, failure.image)))
        self._count(key, Cause(failure.code, failure.error, failure.hint), 1, [example] if example else [])

    def merge(self, other: "Causes") -> None:
        for key, cause in other._rows.items():
            self._count(key, cause, cause.count, cause.examples)
        self._unlisted += other._unlisted

    def facts(self) -> dict[str, object]:
        """The most frequent causes, and how many failures have another one."""
        rows = sorted(self._rows.values(), key=lambda row: -row.count)
        others = self._unlisted + sum(row.count for row in rows[MAX_SHOWN:])
        return {"causes": [row.document() for row in rows[:MAX_SHOWN]], "failures_of_other_causes": others}

    def _count(self, key: CauseKey, first: Cause, count: int, examples: Iterable[str]) -> None:
        if key not in self._rows and sum(row.code == key.code for row in self._rows) >= MAX_CAUSES_OF_CODE:
            key, first = CauseKey(key.code, ""), Cause(first.code, _FURTHER, first.hint)
        if key not in self._rows:
            if len(self._rows) >= MAX_CAUSES:
                self._unlisted += count
                return
            self._rows[key] = Cause(first.code, first.error, first.hint)
        self._rows[key].add(count, examples)


def cut_text(text: str, most: int) -> str:
    """The text, cut to at most `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"
