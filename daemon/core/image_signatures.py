r"""Recognition of image formats by the first and last bytes; nothing is decoded.

| format    | suffixes                | begins with                                   | is cut where                      |
|-----------|-------------------------|-----------------------------------------------|-----------------------------------|
| PNG       | png apng                | `\x89PNG\r\n\x1a\n`                           | no IEND chunk in its last 4 KiB   |
| JPEG      | jpg jpeg jpe jfif       | `\xff\xd8\xff`                                | no end marker: see `_is_cut_jpeg` |
| WebP      | webp                    | `RIFF....WEBP`                                | RIFF announces more bytes         |
| GIF       | gif                     | `GIF87a`, `GIF89a`                            | -                                 |
| AVIF      | avif avifs              | `....ftyp` + `avif`, `avis`                   | -                                 |
| HEIC      | heic heics heif heifs hif | `....ftyp` + `hei` or `hev` + one of `c m s x` | -                              |
| HEIF      | heif heifs hif heic avif | `....ftyp` + `mif1`, `mif2`, `msf1`          | -                                 |
| TIFF      | tif tiff                | `II*\0`, `MM\0*`; BigTIFF: `II+\0`, `MM\0+`   | -                                 |
| BMP       | bmp dib                 | `BM`, and a known header's size at byte 14    | -                                 |
| JPEG XL   | jxl                     | `\xff\x0a`, `\0\0\0\x0cJXL \r\n\x87\n`      | -                                 |
| JPEG 2000 | jp2 j2k j2c jpf jpx     | `\xffO\xffQ`, `\0\0\0\x0cjP  \r\n\x87\n`    | -                                 |

Sources: PNG 3rd edition 5.2 and 5.6; ITU T.81 B.1; RFC 9649; GIF89a 17; ISO/IEC 14496-12 4.3 and 23008-12 B.4; AV1 Image File
Format 1.1, 6; TIFF 6.0 section 2; Microsoft's BITMAPINFOHEADER and its successors; ISO/IEC 18181-2 and 15444-1 Annex I.
"""

import re
from typing import NamedTuple

END_BYTES = 4096  # searched for the end marker: some programs append to a PNG or a JPEG

_FORMATS: dict[str, tuple[str, bytes]] = {  # suffixes, and a regular expression
    "PNG": ("png apng", rb"\x89PNG\r\n\x1a\n"),
    "JPEG": ("jpg jpeg jpe jfif", rb"\xff\xd8\xff"),
    "WebP": ("webp", rb"RIFF.{4}WEBP"),
    "GIF": ("gif", rb"GIF8[79]a"),
    "AVIF": ("avif avifs", rb".{4}ftypavi[fs]"),
    "HEIC": ("heic heics heif heifs hif", rb".{4}ftyphe(?:i[cxms]|v[cxms])"),
    "HEIF": ("heif heifs hif heic avif", rb".{4}ftyp(?:mif[12]|msf1)"),
    "TIFF": ("tif tiff", rb"II[*+]\0|MM\0[*+]"),
    "BMP": ("bmp dib", rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    "JPEG XL": ("jxl", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    "JPEG 2000": ("jp2 j2k j2c jpf jpx", rb"\xffO\xffQ|\0\0\0\x0cjP  \r\n\x87\n"),
}
_NAMES = (None, *_FORMATS)  # by the number of their group
# Patterns are compiled at their first use: most runs need none, and each would cost the start up to a millisecond.
_SIGNATURE = b"(?s:" + b"|".join(b"(" + pattern + b")" for _, pattern in _FORMATS.values()) + b")"
_SUFFIXES = {name: frozenset(suffixes.split()) for name, (suffixes, _) in _FORMATS.items()}
_KNOWN_SUFFIXES = frozenset().union(*_SUFFIXES.values())

_GZIP = b"\x1f\x8b\x08"  # RFC 1952 2.3.1
# Source: "Signature calculations: transferring a payload in multiple chunks", Amazon S3 API reference.
_CHUNK_HEADER = rb"[0-9a-fA-F]{1,16}(?:;chunk-signature=[0-9a-f]{64})?\r\n"
_HTML = rb"(?i)<(?:!doctype\s+html|html|head|body|script|title|meta)\b"
_HTML_SUFFIXES = ("htm", "html", "xhtml")

_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"
_USUAL = {  # by the last four characters of a name: 0.2 us in place of 0.8
    ".png": (b"\x89PNG\r\n\x1a\n", _PNG_END),
    ".jpg": (b"\xff\xd8\xff", _JPEG_END),
    "jpeg": (b"\xff\xd8\xff", _JPEG_END),
}
_NOT_IN_JPEG = rb"\xff[\x02-\xbf\xf0-\xfd]"  # no marker in use, and no stuffed 0xff: T.81 table B.1


class Look(NamedTuple):
    """How a file's bytes fit its name.

    `is_image`: the bytes are an image, or the suffix promises none. `mislabelled`: an image of another format than the
    suffix. `suspect`: why a decoder may fail; "" where no reason is known.
    """

    is_image: bool = True
    mislabelled: bool = False
    suspect: str = ""


_GOOD = Look()


def look_at(name: str, begin: bytes, end: bytes, size_bytes: int) -> Look:
    """How the bytes fit `name`. `begin`: 2 KiB or more; `end`: the last END_BYTES; or the whole file.

    | the name's suffix     | the bytes                      | then                                       |
    |-----------------------|--------------------------------|--------------------------------------------|
    | one of an image's     | an image of that format        | right                                      |
    | one of an image's     | an image of another format     | `mislabelled`                              |
    | one of an image's     | anything else                  | no image                                   |
    | any other, or none    | a page of HTML                 | no image; where the suffix is html: right  |
    | any other, or none    | anything else                  | right: a caption, a mask of another format |
    | any                   | an image that is cut           | `suspect`                                  |
    """
    usual = _USUAL.get(name[-4:])
    if usual is not None and begin.startswith(usual[0]) and end.endswith(usual[1]):
        return _GOOD
    match = re.match(_SIGNATURE, begin)
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    if match is None:
        if suffix in _KNOWN_SUFFIXES:
            return Look(is_image=False, suspect=_why_no_image(begin))
        return Look(is_image=suffix in _HTML_SUFFIXES or not _is_html(begin))
    found = _NAMES[match.lastindex or 0]
    assert found is not None
    mislabelled = suffix not in _SUFFIXES[found] and suffix in _KNOWN_SUFFIXES
    suspect = _why_cut(found, begin, end, size_bytes)
    return Look(mislabelled=mislabelled, suspect=suspect) if mislabelled or suspect else _GOOD


def _is_html(begin: bytes) -> bool:
    """Whether a page begins after white space and comments. Takes linear time for any number of comments."""
    rest = begin.removeprefix(b"\xef\xbb\xbf").lstrip()
    while rest.startswith(b"<!--"):
        rest = rest[4:].partition(b"-->")[2].lstrip()
    return re.match(_HTML, rest) is not None


def _why_no_image(begin: bytes) -> str:
    framed = re.match(_CHUNK_HEADER, begin)
    if framed and re.match(_SIGNATURE, begin[framed.end() :]):
        return "it has the framing of its upload (aws-chunked), which the store should have taken off"
    if begin.startswith(_GZIP):
        return "it is compressed with gzip"
    return "it does not begin like an image"


def _why_cut(found: str, begin: bytes, end: bytes, size_bytes: int) -> str:
    if found == "PNG" and _PNG_END not in end:
        return "the PNG has no end (IEND)"
    if found == "JPEG" and _is_cut_jpeg(end, size_bytes):
        return "the JPEG has no end (EOI)"
    if found == "WebP" and (announced := int.from_bytes(begin[4:8], "little") + 8) > size_bytes:
        return f"the WebP has {size_bytes} bytes of {announced}"
    return ""


def _is_cut_jpeg(end: bytes, size_bytes: int) -> bool:
    """Whether a JPEG ends in the middle of its pixels.

    Phones append a film or a second image to the end marker, some programs zeros. So in a file longer than `end`, the
    marker may stand before it. The bytes are pixels if they have `ff 00`, and no marker that JPEG does not use; in a film,
    4 KiB without such a marker are one in 300,000.
    """
    if _JPEG_END in end:
        return False
    return size_bytes <= len(end) or (b"\xff\0" in end and not re.search(_NOT_IN_JPEG, end))
