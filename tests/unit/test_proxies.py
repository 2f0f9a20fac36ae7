import re

import pytest

from daemon.adapters.http.proxies import bypasses_proxy, find_proxy

NAME, BELOW, ADDRESS, LOOPBACK = "example.com", "b.s3.example.com", "10.1.2.3", "::1"

# The rows of the docstring's table -> NO_PROXY, and the hosts on port 9000 that it has, of those four.
ENTRIES: dict[str, list[tuple[str, set[str]]]] = {
    "*": [("*", {NAME, BELOW, ADDRESS, LOOPBACK}), ("a.example, *", {NAME, BELOW, ADDRESS, LOOPBACK})],
    "example.com, .example.com, *.example.com": [
        (entry, {NAME, BELOW}) for entry in ("example.com", ".example.com", "*.example.com", "EXAMPLE.com.", " com ,")
    ],
    "10.0.0.1, ::1, [::1]": [
        ("10.1.2.3", {ADDRESS}),
        *((entry, {LOOPBACK}) for entry in ("::1", "[::1]", "0:0:0:0:0:0:0:1", "10.0.0.1,::1", "a ::1")),
    ],
    "10.0.0.0/8, fd00::/8": [
        *((entry, {ADDRESS}) for entry in ("10.0.0.0/8", "10.9.9.9/8", "10.1.2.3/32", "0.0.0.0/0", "10.1.2.2/31")),
        *((entry, {LOOPBACK}) for entry in ("::/64", "::1/128", "[::]/8", "::/0")),
        ("10.1.2.0/31", set()),
        ("fd00::/8", set()),
    ],
    "example.com:9000, 10.0.0.1:9000, [::1]:9000": [
        ("example.com:9000", {NAME, BELOW}),
        ("10.1.2.3:9000", {ADDRESS}),
        ("[::1]:9000", {LOOPBACK}),
        ("example.com:80,10.1.2.3:90000,[::1]:9", set()),
    ],
    "anything else": [
        (entry, set())
        for entry in (
            *("", ",", " , ", ".", "*.", "*example.com.evil", "xample.com", "ample.com", "b.example.com", "s3.example"),
            *("10.1.2", "10.", "10.1.2.3/33", "10.0.0.0/x", "1.2.3", "3", "::1/129", "2.3:9000", "http://example.com"),
        )
    ],
}


def test_table_is_walked_whole() -> None:
    rows = re.findall(r"^ *\|([^|]*)\|", bypasses_proxy.__doc__ or "", re.MULTILINE)[2:]
    assert [row.strip() for row in rows] == list(ENTRIES)


@pytest.mark.parametrize(
    ("no_proxy", "hosts"),
    [case for cases in ENTRIES.values() for case in cases],
    ids=lambda value: " ".join(sorted(value)) if isinstance(value, set) else value,
)
def test_no_proxy_has_what_its_entry_says(no_proxy: str, hosts: set[str]) -> None:
    assert hosts == {host for host in (NAME, BELOW, ADDRESS, LOOPBACK) if bypasses_proxy(no_proxy, host, 9000)}


@pytest.mark.parametrize(("name", "direct"), [("no_proxy", True), ("NO_PROXY", True), ("NO_PROXIES", False)])
def test_no_proxy_is_read_in_either_case(monkeypatch: pytest.MonkeyPatch, name: str, direct: bool) -> None:
    for ambient in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(ambient, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv(name, "10.0.0.0/8,::1")
    assert [direct, direct] == [find_proxy("http", host, 9000) is None for host in ("10.1.2.3", "::1")]
