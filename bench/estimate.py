"""Estimates how long a benchmark takes, from what each peer needed on two cores."""

from collections.abc import Sequence

from bench.measure import SLOW_SECONDS, settling_seconds
from bench.scenario import Scenario

# Microseconds for an image, and for each MB of it, over HTTP.
_NEEDED = {
    "actorsync": (200, 1_000),
    "s5cmd list": (950, 1_700),
    "s5cmd wildcard": (320, 950),
    "rclone": (420, 2_000),
    "rclone unchecked": (400, 950),
    "obstore": (360, 950),
    "aws s3 cp": (4_000, 3_000),
    "boto3 threads": (2_800, 1_100),
    "C floor": (25, 650),
}
_UNKNOWN = (1_000, 2_000)
_START_SECONDS = 0.4
_CHECK = (65, 850)  # to make the tree, compare it and delete it
_SERVER_SECONDS = 3
_HTTPS_TIMES = 1.4


def scenario_seconds(scenario: Scenario, peers: Sequence[str], runs: int) -> float:
    """About how long all rounds of it take."""
    megabytes = scenario.size.size_bytes / 1024**2

    def seconds(costs: tuple[int, int]) -> float:
        return scenario.images * (costs[0] + costs[1] * megabytes) / 1e6

    total = _SERVER_SECONDS + seconds(_CHECK)
    for peer in peers:
        run = seconds(_NEEDED.get(peer, _UNKNOWN)) * (_HTTPS_TIMES if scenario.transport == "https" else 1) + _START_SECONDS
        total += (settling_seconds(scenario) + run + seconds(_CHECK)) * (1 if run > SLOW_SECONDS else runs)
    return total


def unchanged_seconds(images: int, runs: int) -> float:
    """About how long a tree of that size takes to be made, scanned and deleted."""
    return images * (60 + 20 * runs) / 1e6 + 4 * runs
