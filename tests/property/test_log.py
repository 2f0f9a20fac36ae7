"""Law: whatever an event holds, it is one line of valid JSON under 4,096 bytes."""

import json
from datetime import datetime, timedelta, timezone

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from daemon.adapters.log import LINE_BYTES, journal_line, json_line


class Speechless:
    def __str__(self) -> str:
        raise RuntimeError("injected: this object has no text")


any_text = st.text(st.characters(exclude_categories=()), max_size=200)  # lone surrogates and control characters too
long_text = st.builds(lambda text, times: text * times, any_text, st.integers(1, 1_000))
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**60),
    st.floats(),
    any_text,
    long_text,
    st.binary(),
    st.datetimes(timezones=st.just(timezone(timedelta(seconds=1)))),
    st.builds(Speechless),
)
keys = st.one_of(any_text, st.integers(), st.none(), st.tuples(st.integers()), st.floats())
junk = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=20), st.tuples(inner), st.dictionaries(keys, inner, max_size=20), st.frozensets(st.integers())
    ),
    max_leaves=40,
)
events = st.one_of(
    st.dictionaries(any_text, junk, max_size=30), st.dictionaries(any_text, st.integers(), min_size=100, max_size=300)
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # of a busy machine
@given(events)
@example({"many": list(range(100_000))})
@example({f"{'key' * 100}{n}": n for n in range(100)})
@example({"when": datetime.max})
def test_any_event_is_one_short_line_of_valid_json(event: dict[str, object]):
    line = json_line(event)
    assert line.endswith(b"\n")
    assert 1 == line.count(b"\n")
    assert len(line) <= LINE_BYTES
    facts = json.loads(line.decode())
    assert ["timestamp", "level", "event"] == list(facts)[:3]
    assert "cut" in line.decode() or len(event.keys() | {"timestamp", "level", "event"}) == len(facts), "a fact is missing"
    assert len(journal_line(event)) < 4_096


@given(st.dictionaries(st.text("abc", min_size=1), st.one_of(st.integers(-(2**63), 2**64 - 1), st.text("äx\n"), st.booleans())))
def test_what_fits_is_written_as_it_is(facts: dict[str, object]):
    line = json_line({"event": "e", **facts})
    if b"cut" not in line:
        assert {"timestamp": None, "level": None, "event": "e", **facts} == json.loads(line)
