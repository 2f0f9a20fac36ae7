"""Names of files and folders: which are allowed, and which two are the same file on some disks."""

import re
import unicodedata
from collections.abc import Sequence

from daemon.core.errors import NameUnusable

MAX_NAME_BYTES = 255  # NAME_MAX of every file system that Linux writes to

# C0, DEL, C1, line and paragraph separators; then the embeddings, overrides and isolates that make a terminal show one
# name as another (CVE-2021-42574). Joiners and plain direction marks stay: Persian and emoji need them.
_FORGING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def folded(name: str) -> str:
    """A form that is equal for two names that are one file where case or Unicode form does not count.

    Canonical caseless matching (Unicode 3.13, D145), as APFS and ext4's casefold compare names.
    """
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


_OF_THE_MANIFESTS = frozenset(
    folded(name)
    for name in ("request.json", "prompt_metadata.json", "training_response.json", "response.json", "actorsData.json")
)


# No two of these names are one file unless they differ only in the case of ASCII letters.
_PLAINEST = re.compile("(?:[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}/)+")


def are_plainest(names: Sequence[str]) -> bool:
    """Whether all are names that plain_name takes, of ASCII letters, digits and `_-.` alone, and no two fold to one.

    Checks many names at the cost of one. False does not mean that a name is unusable.
    """
    joined = "/".join((*names, ""))
    if joined.count("/") != len(names) or not _PLAINEST.fullmatch(joined):
        return False
    lowered = {name.lower() for name in names}
    return len(lowered) == len(names) and lowered.isdisjoint(_OF_THE_MANIFESTS)


def plain_name(text: object, what: str) -> str:
    """`text` itself, checked to be one plain path segment. Raises NameUnusable.

    `what`: whose name it is, "actor" or "image".

    | refused                                                     | or else                                      |
    |---|---|
    | not text, empty                                             | there is nothing to call the file            |
    | a `/`; `.`, `..`, and any other leading dot                 | it lands elsewhere, or hides as our own do   |
    | a control character, a line separator, a direction override | it forges a line of a terminal or a log      |
    | a lone surrogate                                            | no UTF-8 can hold it                         |
    | more than 255 bytes of UTF-8                                | the file system refuses it                   |
    | the name of a manifest, in any case or Unicode form         | an image takes the manifest's place          |

    A backslash is an ordinary character here, as on Linux.
    """
    if not isinstance(text, str):
        raise NameUnusable(f"the {what} name is {type(text).__name__}, not text")
    if not text:
        raise NameUnusable(f"the {what} name is empty", hint="it is the part after the last '/'")
    problem = _problem(text)
    if problem:
        shown = repr(text if len(text) <= 80 else text[:80] + "...")
        raise NameUnusable(f"the {what} name {shown} {problem}", hint="rename it where it comes from")
    return text


def _problem(text: str) -> str:
    if "/" in text:
        return "holds a '/'"
    if text[0] == ".":
        return "begins with a dot"
    # isprintable() is a quick check that nearly every name passes; it also refuses harmless characters.
    if not text.isprintable():
        if _FORGING.search(text):
            return "holds a control character"
        if _SURROGATE.search(text):
            return "is no Unicode text: it holds half of a surrogate pair"
    size_bytes = len(text) if text.isascii() else len(text.encode())
    if size_bytes > MAX_NAME_BYTES:
        return f"has {size_bytes} bytes, and file systems take {MAX_NAME_BYTES}"
    if folded(text) in _OF_THE_MANIFESTS:
        return "is the name of a manifest"
    return ""
