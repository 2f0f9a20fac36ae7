"""What is asked of everyone: how many images of which size, from which server, over what, so many at once."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, product
from typing import Any, Self

TRANSPORTS = ("http", "https")
PROOFS = ("md5", "crc64nvme")
SERVERS = ("nginx", "seaweed")
SIZES = ("4KB", "350KB", "1.4MB")
DELAY_SECONDS = 0.03  # to the first byte: S3 in one's own region, on an ordinary day

_UNITS = {"B": 1, "KB": 1024, "MB": 1024**2}
_USUAL_IMAGES = {"4 KB": 28_700, "350 KB": 3_000, "1.4 MB": 1_000}
_USUAL_BYTES = 1024**3


@dataclass(frozen=True, slots=True)
class Size:
    """How large an image is. `label`: as people write it, such as "350 KB"."""

    label: str
    size_bytes: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "350KB" or "1.4 MB". Raises ValueError."""
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(B|KB|MB)", text.upper())
        if match is None:
            raise ValueError(f"{text!r} is not a size such as 4KB or 1.4MB")
        return cls(f"{match[1]} {match[2]}", int(float(match[1]) * _UNITS[match[2]]))

    @property
    def usual_images(self) -> int:
        """How many make a run long enough to be measured, and short enough to be repeated."""
        return _USUAL_IMAGES.get(self.label) or max(20, min(28_700, _USUAL_BYTES // max(1, self.size_bytes)))


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many images at once: actors, and downloads for each. Peers that know no actors get the product."""

    actors: int
    workers: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "5x10". Raises ValueError."""
        actors, _, workers = text.partition("x")
        if not (actors.isdecimal() and workers.isdecimal() and int(actors) and int(workers)):
            raise ValueError(f"{text!r} is not a concurrency such as 5x10 (actors x downloads for each)")
        return cls(int(actors), int(workers))

    @property
    def slots(self) -> int:
        return self.actors * self.workers

    def __str__(self) -> str:
        return f"{self.actors}x{self.workers}"


def parse_delay(text: str) -> float:
    """Seconds, from "30ms" or "0". Raises ValueError."""
    match = re.fullmatch(r"([0-9]+) ?(?:ms)?", text)
    if match is None:
        raise ValueError(f"{text!r} is not a delay such as 30ms")
    return int(match[1]) / 1000


@dataclass(frozen=True, slots=True)
class Scenario:
    """One line-up: everyone brings the same images from the same server under the same conditions.

    `proof`: what the server vouches for an image with. md5: its ETag. crc64nvme: that ETag and, where it is asked for, the
    checksum that S3 itself computes of every object uploaded since 2025.
    """

    size: Size
    images: int
    concurrency: Concurrency
    transport: str = "http"
    proof: str = "md5"
    delay_seconds: float = 0
    server: str = "nginx"

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be measured."""
        if self.server == "seaweed" and (self.transport, self.proof, self.delay_seconds) != ("http", "md5", 0):
            raise ValueError("seaweed is measured over http, with md5 and without delay")

    @property
    def conditions(self) -> str:
        """All but the images and how many at once, such as "https crc64nvme 30 ms"."""
        server = "" if self.server == "nginx" else f"{self.server} "
        delay = f" {self.delay_seconds * 1000:.0f} ms" if self.delay_seconds else ""
        return f"{server}{self.transport} {self.proof}{delay}"

    def __str__(self) -> str:
        return f"{self.images:,} x {self.size.label}, {self.conditions}, {self.concurrency}"

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_document(cls, document: dict[str, Any]) -> Self:
        """The inverse of `document`. Raises KeyError, TypeError or ValueError."""
        parts = {"size": Size(**document["size"]), "concurrency": Concurrency(**document["concurrency"])}
        return cls(**document | parts)


def usual_scenarios(images: int | None = None) -> list[Scenario]:
    """The scenarios without a choice: each one that a goal is set for, not the full cross product.

    | what                | sizes | proofs | at once     |
    |---------------------|-------|--------|-------------|
    | HTTP                | all   | both   | 5x10, 20x10 |
    | HTTPS               | all   | both   | 5x10        |
    | HTTP, 30 ms         | 350KB | both   | 5x10        |
    | SeaweedFS           | 4KB   | md5    | 5x10        |
    """
    return [
        *chosen_scenarios(concurrencies=["5x10", "20x10"], images=images),
        *chosen_scenarios(transports=["https"], images=images),
        *chosen_scenarios(sizes=["350KB"], delays_seconds=[DELAY_SECONDS], images=images),
        *chosen_scenarios(sizes=["4KB"], servers=["seaweed"], images=images),
    ]


def chosen_scenarios(
    *,
    sizes: Sequence[str] = (),
    transports: Sequence[str] = (),
    proofs: Sequence[str] = (),
    delays_seconds: Sequence[float] = (),
    servers: Sequence[str] = (),
    concurrencies: Sequence[str] = (),
    images: int | None = None,
) -> list[Scenario]:
    """Every combination of these; of a kind that is not named: all sizes, what the server can prove, else the plainest.

    Raises ValueError for a value that is none, or a combination that cannot be measured.
    """
    made = []
    for server, transport, delay_seconds in product(
        servers or SERVERS[:1], transports or TRANSPORTS[:1], delays_seconds or [0]
    ):
        for text, proof in product(sizes or SIZES, proofs or (PROOFS if server == "nginx" else PROOFS[:1])):
            size = Size.parse(text)
            for at_once in concurrencies or ["5x10"]:
                concurrency = Concurrency.parse(at_once)
                many = images or size.usual_images
                made.append(Scenario(size, many, concurrency, transport, proof, delay_seconds, server))
    return made


def grouped(scenarios: Sequence[Scenario]) -> Iterator[tuple[Size, int, list[list[Scenario]]]]:
    """By images, for they are made once, and then by server, for it is started once; each scenario once."""

    def images(scenario: Scenario) -> tuple[int, str, int]:
        return scenario.size.size_bytes, scenario.size.label, scenario.images

    def served(scenario: Scenario) -> tuple[str, str, float, str]:
        return scenario.server, scenario.transport, scenario.delay_seconds, scenario.proof

    for _, same_images in groupby(sorted(dict.fromkeys(scenarios), key=images), key=images):
        alike = sorted(same_images, key=served)
        yield alike[0].size, alike[0].images, [list(same_server) for _, same_server in groupby(alike, key=served)]
