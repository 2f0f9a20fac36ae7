"""ListObjectsV2 without a server that lists: the pages of a bucket, written before anyone asks."""

from datetime import UTC, datetime
from pathlib import Path

from bench.workload import Workload
from tests.support.trees import BUCKET

KEYS_PER_PAGE = 1000  # S3's most, and what every client asks for

_PAGE = """\
<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{bucket}</Name><Prefix></Prefix>\
<KeyCount>{keys}</KeyCount><MaxKeys>{most}</MaxKeys><IsTruncated>{truncated}</IsTruncated>{next}{contents}</ListBucketResult>
"""
_NEXT = "<NextContinuationToken>{token}</NextContinuationToken>"
_CONTENT = (
    "<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><ETag>&quot;{md5}&quot;</ETag>"
    "<Size>{size_bytes}</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


def write_listing(folder: Path, workload: Workload) -> None:
    """`{token}.xml` for each page, the first one `0.xml`: the token that ends a page is the number of the next.

    The same for every prefix and without delimiter: all keys have one prefix, and every peer here lists it to its depth.
    """
    folder.mkdir()
    starts = range(0, max(1, len(workload.images)), KEYS_PER_PAGE)
    for number, start in enumerate(starts):
        images = workload.images[start : start + KEYS_PER_PAGE]
        last = number == len(starts) - 1
        page = _PAGE.format(
            bucket=BUCKET,
            keys=len(images),
            most=KEYS_PER_PAGE,
            truncated="false" if last else "true",
            next="" if last else _NEXT.format(token=number + 1),
            contents="".join(
                _CONTENT.format(
                    key=image.key,
                    modified=_modified(workload.source(image)),
                    md5=image.md5,
                    size_bytes=workload.size.size_bytes,
                )
                for image in images
            ),
        )
        (folder / f"{number}.xml").write_text(page)


def _modified(source: Path) -> str:
    """As S3 writes it, and nginx in its Last-Modified: whole seconds."""
    return f"{datetime.fromtimestamp(int(source.stat().st_mtime), UTC):%Y-%m-%dT%H:%M:%S.000Z}"
