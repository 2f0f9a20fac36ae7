"""response.json -> the list of an actor's images, as it stands there."""

from daemon.core.errors import ManifestPending, ManifestRejected
from daemon.core.json_text import kind_of, parse_json
from daemon.core.model import Manifest

_LIST = "s3_image_urls"
_COMPLETED = "COMPLETED"


def parse_response(content: bytes) -> Manifest:
    """The list at output.output.s3_image_urls, else output.s3_image_urls, else s3_image_urls: the first that is one.

    Raises ManifestPending where there is none and the job record's `status` says that it has not completed,
    ManifestRejected (torn where it may be half written) otherwise.
    """
    value = parse_json(content, "response.json")
    if not isinstance(value, dict):
        raise ManifestRejected(
            f"response.json holds {kind_of(value)}, not an object",
            code="manifest-wrong-type",
            hint=f'it must be an object with the list "{_LIST}"',
        )
    outer = value.get("output")
    inner = outer.get("output") if isinstance(outer, dict) else None
    for place in (inner, outer, value):
        if isinstance(place, dict) and isinstance(entries := place.get(_LIST), list):
            return Manifest(tuple(entries))
    status = value.get("status")
    if isinstance(status, str) and status != _COMPLETED:
        raise ManifestPending(f"response.json lists no images yet: its status is {status[:40]!r}")
    found = next((p[_LIST] for p in (inner, outer, value) if isinstance(p, dict) and _LIST in p), ...)
    missing = f'has no list "{_LIST}"' if found is ... else f'holds {kind_of(found)} at "{_LIST}", not a list'
    raise ManifestRejected(
        f"response.json {missing}",
        code="manifest-no-list",
        hint=f"expected at output.output.{_LIST}, output.{_LIST} or {_LIST}",
    )
