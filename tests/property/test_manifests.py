"""parse_json reads what Python's json writes, and Python's json reads what dump_json writes."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.core.json_output import dump_json
from daemon.core.manifests import parse_json

TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)  # lone surrogates among them
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXTS, children, max_size=4),
    max_leaves=12,
)
quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(VALUES)
def test_manifest_that_python_wrote_is_read(value: object) -> None:
    content = json.dumps(value)
    assert json.dumps(json.loads(content, parse_int=float)) == json.dumps(as_floats(parse_json(content.encode(), "x")))


@quick
@given(VALUES)
def test_every_value_is_written_as_json(value: object) -> None:
    json.loads(dump_json(value))


def as_floats(value: object) -> object:
    """Integers are floats in one of the two parsers: no number of a manifest is ever used."""
    if isinstance(value, dict):
        return {key: as_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_floats(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
