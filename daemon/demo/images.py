"""The demo's images: small generated portraits, as PNG files of about 2 to 90 KB."""

import colorsys
import math
import random
import struct
import zlib
from dataclasses import dataclass

# Side in pixels, grain 0-255. All actors share these drawings, so only twenty are drawn and compressed. Colours and title
# differ for each image, so its bytes do too.
DRAWINGS = (
    *((32, 4), (48, 4), (64, 4), (80, 4), (96, 6), (96, 12), (112, 8), (128, 4), (128, 12), (144, 8)),
    *((160, 6), (160, 16), (176, 6), (192, 4), (192, 12), (208, 8), (224, 12), (256, 6), (272, 10), (344, 12)),
)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A portrait without its colours: the PNG chunks of its size and pixels."""

    header: bytes
    pixels: bytes


def draw(number: int, side: int, grain: int) -> Drawing:
    """Head and shoulders before a backdrop. Palette entries below 126 colour the backdrop, the others the figure."""
    chance = random.Random(number)
    centre_x, centre_y = side * (0.5 + 0.12 * math.sin(number * 2.4)), side * (0.42 + 0.04 * math.cos(number))
    unit = side * (0.19 + 0.03 * math.sin(number * 1.7))
    across = [(x - centre_x) / unit for x in range(side)]
    head_x, body_x = [(1.18 * x) ** 2 for x in across], [(x / 1.9) ** 2 for x in across]
    light_x = [20 * math.sin(x / side * (3 + number % 5) + number) for x in range(side)]
    rows = bytearray()
    for y in range(side):
        down = (y - centre_y) / unit
        head_y, body_y = (0.92 * down) ** 2, ((down - 3.1) / 1.75) ** 2
        light_y = 52 + 30 * math.sin(y / side * (2 + number % 4) + number * 0.7)
        noise = chance.randbytes(side)
        rows.append(0)  # filter type "none"
        for x in range(side):
            head, body = head_x[x] + head_y, body_x[x] + body_y
            shade = 238 - 70 * head if head < 1 else 210 - 80 * body if body < 1 else light_x[x] + light_y
            rows.append(int(shade) + (noise[x] * grain >> 8))
    header = struct.pack(">IIBBBBB", side, side, 8, 3, 0, 0, 0)  # 8 bits a pixel, colour type 3: indexed
    return Drawing(_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows, 6)))


def palette(hue: float) -> bytes:
    """The 256 colours of one actor."""
    colours = bytearray()
    for entry in range(256):
        figure = entry >= 126
        red, green, blue = colorsys.hls_to_rgb((hue + 0.45 * figure + entry / 900) % 1, 0.15 + 0.65 * (entry % 128 / 128), 0.5)
        colours += bytes((int(255 * red), int(255 * green), int(255 * blue)))
    return bytes(colours)


def png(drawing: Drawing, colours: bytes, title: str) -> bytes:
    """The file's content."""
    text = b"Title\0" + title.encode("latin-1")
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            drawing.header,
            _chunk(b"PLTE", colours),
            _chunk(b"tEXt", text),
            drawing.pixels,
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
