import re
from hashlib import shake_128

import pytest

from daemon.core import image_signatures
from daemon.core.image_signatures import END_BYTES, Look, look_at

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(255)) * 40 + b"\0\0\0\0IEND\xaeB`\x82"
SCAN = b"\x12\x34\xff\x00\x56\xff\xd3\x78" * 2000  # pixels: a stuffed ff, a restart marker
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0" + SCAN + b"\xff\xd9"
WEBP = b"RIFF" + (1004).to_bytes(4, "little") + b"WEBPVP8 " + bytes(996)
CUT_PNG = "the PNG has no end (IEND)"
CUT_JPEG = "the JPEG has no end (EOI)"
NO_IMAGE = Look(is_image=False, suspect="it does not begin like an image")
PAGE = b"<!DOCTYPE html><html><title>Login</title></html>"


def box(brand: bytes) -> bytes:
    return b"\0\0\0\x1cftyp" + brand + b"\0\0\0\0mif1" + bytes(100)


# The row of the module's table -> files that begin so.
FILES = {
    "PNG": [PNG],
    "JPEG": [JPEG, JPEG.replace(b"\xe0\0\x10JFIF", b"\xe1\0\x10Exif"), JPEG.replace(b"\xe0", b"\xdb", 1)],
    "WebP": [WEBP],
    "GIF": [b"GIF87a" + bytes(20) + b";", b"GIF89a" + bytes(20)],
    "AVIF": [box(b"avif"), box(b"avis")],
    "HEIC": [box(b"he" + brand) for brand in (b"ic", b"ix", b"im", b"is", b"vc", b"vx", b"vm", b"vs")],
    "HEIF": [box(b"mif1"), box(b"mif2"), box(b"msf1")],
    "TIFF": [b"II*\0" + bytes(40), b"MM\0*" + bytes(40), b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0"],
    "BMP": [b"BM" + bytes(12) + bytes([size, 0, 0, 0]) + bytes(40) for size in (12, 40, 108, 124)],
    "JPEG XL": [b"\xff\x0a" + bytes(20), b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20)],
    "JPEG 2000": [b"\xffO\xffQ" + bytes(20), b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20)],
}
SUFFIXES = {name: suffixes.split() for name, (suffixes, _) in image_signatures._FORMATS.items()}
NO_IMAGES = {
    "nothing but zeros": bytes(5000),
    "a page": PAGE,
    "JSON": b'{"error": "denied"}',
    "XML": b"<?xml version='1.0'?><a/>",
    "a chunk header before text": b"2a\r\nhello",
    "text that begins with BM": b"BMW is a car, and no bitmap at all",
    "text that begins with II": b"II. of May",
    "a RIFF that is a sound": b"RIFF\x24\0\0\0WAVEfmt " + bytes(40),
    "a film": b"\0\0\0\x18ftypmp42" + bytes(40),
    "one byte": b"\x89",
    "part of a signature": b"\x89PNG\r\n",
}


def look(name: str, body: bytes) -> Look:
    return look_at(name, body[:2048], body[-END_BYTES:], len(body))


def test_table_of_formats_is_the_one_of_the_code() -> None:
    rows = re.findall(r"^\| ([A-Z][^|]*?) *\| ([a-z0-9 ]+?) *\|", image_signatures.__doc__ or "", re.MULTILINE)
    assert [(name, " ".join(suffixes)) for name, suffixes in SUFFIXES.items()] == rows
    assert FILES.keys() == SUFFIXES.keys()


@pytest.mark.parametrize("format_", FILES)
def test_image_under_each_suffix_of_its_format_is_right(format_: str) -> None:
    for suffix in SUFFIXES[format_]:
        for body in FILES[format_]:
            assert Look() == look(f"a.b.{suffix}", body) == look(f"A.{suffix.upper()}", body)


@pytest.mark.parametrize("format_", FILES)
def test_image_of_another_format_is_mislabelled(format_: str) -> None:
    for other in {suffix for suffixes in SUFFIXES.values() for suffix in suffixes} - {*SUFFIXES[format_]}:
        for body in FILES[format_]:
            assert Look(mislabelled=True) == look(f"a.{other}", body)


@pytest.mark.parametrize("format_", FILES)
def test_image_under_a_name_that_promises_none_is_right(format_: str) -> None:
    assert {Look()} == {look(name, body) for name in ("a", "a.txt", "png", "a.png.") for body in FILES[format_]}


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("it is compressed with gzip", b"\x1f\x8b\x08" + bytes(50)),
        ("aws-chunked", b"2A6b\r\n" + PNG + b"\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"),
        ("aws-chunked", b"400;chunk-signature=" + b"0" * 64 + b"\r\n" + JPEG),
    ],
)
def test_encoded_image_is_called_that(why: str, body: bytes) -> None:
    seen = look("a.png", body)
    assert not seen.is_image
    assert why in seen.suspect


@pytest.mark.parametrize("body", NO_IMAGES.values(), ids=NO_IMAGES)
def test_anything_else_under_an_images_name_is_no_image(body: bytes) -> None:
    assert {NO_IMAGE} == {look(f"a.{suffix}", body) for suffixes in SUFFIXES.values() for suffix in suffixes}


@pytest.mark.parametrize("name", ["a", "a.txt", "a.json", "a.svg", "a.tga"])
def test_name_that_promises_no_image_takes_all_but_a_page(name: str) -> None:
    for body in NO_IMAGES.values():
        assert Look(is_image=body is not PAGE) == look(name, body)


@pytest.mark.parametrize(
    "page", [b"<html>", b"\xef\xbb\xbf\r\n <HTML lang=en>", b"<!-- x -->\n<!-- y --><!doctype  HTML>", b"<head>"]
)
def test_page_is_known_however_it_begins(page: bytes) -> None:
    assert [False, True, True] == [look(name, page).is_image for name in ("a.txt", "a.html", "a.htm")]


# --- images that are cut ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [1, 12, 13, 5000])
def test_png_without_its_end_is_suspect(missing: int) -> None:
    assert Look(suspect=CUT_PNG) == look("a.png", PNG[:-missing]) == look("a", PNG[:-missing])
    assert Look(mislabelled=True, suspect=CUT_PNG) == look("a.jpg", PNG[:-missing])


def test_png_half_of_zeros_is_suspect() -> None:
    assert CUT_PNG == look("a.png", PNG[:-6000] + bytes(6000)).suspect


@pytest.mark.parametrize("appended", [b"\n", bytes(512), b"a comment of some program" * 100])
def test_png_with_something_appended_is_whole(appended: bytes) -> None:
    assert Look() == look("a.png", PNG + appended)


@pytest.mark.parametrize("missing", [1, 2, 100, len(SCAN), len(SCAN) + 8])
def test_jpeg_without_its_end_is_suspect(missing: int) -> None:
    assert Look(suspect=CUT_JPEG) == look("a.jpeg", JPEG[:-missing])


FILM = b"\0\0\0\x18ftypmp42" + shake_128(b"film").digest(20_000)
APPENDED = {
    "zeros": bytes(10_000),
    "a film": FILM,
    "a film whose end is a table": FILM + b"\0\0\x01\x00stco" + (b"\0\0\x12\x34" * 3000),
    "Samsung's trailer": b"\0\0\x01\x0aImage_UTC_Data1700000000000SEFH" + bytes(40) + b"SEFT",
    "a second image": JPEG,
}


@pytest.mark.parametrize("appended", APPENDED.values(), ids=APPENDED)
def test_jpeg_with_something_appended_is_whole(appended: bytes) -> None:
    assert Look() == look("a.jpg", JPEG + appended)


def test_webp_shorter_than_it_says_is_suspect() -> None:
    assert [Look(), Look()] == [look("a.webp", WEBP), look("a.webp", WEBP + b"\0")]
    assert Look(suspect="the WebP has 1011 bytes of 1012") == look("a.webp", WEBP[:-1])


@pytest.mark.parametrize("count", [1, 1000])
def test_comments_before_a_page_or_a_drawing_are_passed_over_once(count: int) -> None:
    comments = b"<!-- a layer -->\n" * count
    assert not look_at("notes.txt", comments + b"<html>", b"", 0).is_image
    assert look_at("drawing.svg", comments + b"<svg/>", b"", 0).is_image
    assert look_at("open.txt", b"<!-- no end", b"", 0).is_image
