"""The README explains every event and every code that the source has, and no other."""

import pytest

from tests.support.vocabulary import (
    COMPOSED,
    codes_in_source,
    composed_suffixes_in_source,
    differences,
    events_in_source,
    explained,
    levels_in_source,
)


def test_readme_has_every_event_and_code_of_the_source_and_no_other():
    assert [] == differences(), "python -m tests.support.vocabulary says it as well"


@pytest.mark.parametrize("table", ["events", "codes"])
def test_every_row_says_what_it_means(table):
    assert [] == [name for name, cells in explained(table).items() if len(cells[-1]) < 10]


def test_levels_are_those_of_the_source():
    rows = explained("events")
    assert [] == sorted((event, level) for event, level in levels_in_source() if event in rows and rows[event][0] != level)


def test_events_that_are_put_together_are_known():
    assert COMPOSED.keys() == composed_suffixes_in_source()


def test_codes_and_events_are_found_in_each_form():
    in_class, by_keyword, by_place, by_constant, in_dict = "disk-full", "object-archived", "url-website", "no-images", "more"
    assert {in_class, by_keyword, by_place, by_constant, in_dict} <= codes_in_source()
    logged, said, composed, in_a_table = "run.started", "start.failed", "identity.failed", "folder.failed"
    assert {logged, said, composed, in_a_table} <= events_in_source()
    assert not {"response.json", "lock.held"} & events_in_source()
