import math

import pytest

from daemon.core.json_output import dump_json
from daemon.core.model import Secret


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":[1,"é",null,true,1.5]}', {"a": [1, "é", None, True, 1.5]}),
        ('{"\\\\udc00":["x\\\\ud800y",["\\\\udcff"],1]}', {"\udc00": ["x\ud800y", ("\udcff",), 1]}),
        ('["\\\\ud800","18446744073709551616",18446744073709551615]', ["\ud800", 2**64, 2**64 - 1]),
        ('["\\\\ud800","Secret(***)",null]', ["\ud800", Secret("hunter2"), math.nan]),
        ('["Secret(***)"]', [Secret("hunter2")]),
        ('{"1":"2"}', {1: "2"}),
    ],
)
def test_any_value_is_written(text: str, value: object) -> None:
    """A file name that is not UTF-8 ends up in an error, the error in the report."""
    assert text == dump_json(value).decode()
