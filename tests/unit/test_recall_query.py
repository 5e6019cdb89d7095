"""Reading queries: names that only say who, months and years, and who speaks in a session."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ww_core.models import Episode
from ww_core.recall.query import read_query
from ww_core.recall.speakers import speaker_of, speakers_of


@pytest.mark.parametrize(
    ("text", "topic", "named"),
    [
        ("When did Anna paint the sunrise?", "When did paint the sunrise?", {"Anna"}),
        ("What is Anna's sister called?", "What is sister called?", {"Anna"}),
        ("What did Anna and Bo plan?", "What did and plan?", {"Anna", "Bo"}),
        ("what did anna paint", "what did paint", {"anna"}),
        ("Where is Annapolis?", "Where is Annapolis?", set()),
        ("Anna", "Anna", {"Anna"}),
        ("Anna?", "Anna?", {"Anna"}),
    ],
)
def test_a_speakers_name_is_cut_from_the_topic(text: str, topic: str, named: set[str]) -> None:
    reading = read_query(text, ["Anna", "Bo"])
    assert reading.topic == topic
    assert {name.lower() for name in reading.speakers} == {name.lower() for name in named}
    assert reading.text == text


def test_the_first_word_of_a_full_name_names_its_bearer() -> None:
    assert read_query("What does Mary like?", ["Mary Ann Berg"]).speakers == {"Mary Ann Berg"}


def test_a_name_that_nobody_here_bears_stays_in_the_topic() -> None:
    assert read_query("When did Anna leave?", ["Bo"]).topic == "When did Anna leave?"


@pytest.mark.parametrize(
    ("text", "months", "years"),
    [
        ("What happened in May 2023?", {5}, {2023}),
        ("may I ask what happened?", set(), set()),
        ("May I ask?", set(), set()),
        ("how did we march on", set(), set()),
        ("the trip in october", {10}, set()),
        ("on 3 Sept 2021", {9}, {2021}),
        ("between 2021-11-05 and 2022-01", {11, 1}, {2021, 2022}),
        ("room 2099b, 12345", set(), set()),
    ],
)
def test_months_and_years_are_read(text: str, months: set[int], years: set[int]) -> None:
    reading = read_query(text)
    assert (reading.months, reading.years) == (months, years)


def test_a_time_falls_in_what_the_query_names() -> None:
    reading = read_query("in June 2023")
    assert reading.falls_in(datetime(2023, 6, 9, tzinfo=UTC))
    assert not reading.falls_in(datetime(2022, 6, 9, tzinfo=UTC))
    assert not reading.falls_in(datetime(2023, 7, 9, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("on October 13, 2023", {(10, 13)}),
        ("the 3rd of May 2023", {(5, 3)}),
        ("Dec 24th", {(12, 24)}),
        ("between 2021-11-05 and 2022-01", {(11, 5)}),
        ("at 5 pm in June", set()),
        ("June 10:30", set()),
        ("45 March hares", set()),
        ("3 may follow", set()),
    ],
)
def test_days_are_read_with_their_month(text: str, days: set[tuple[int, int]]) -> None:
    assert read_query(text).days == days


def test_a_day_without_a_year_is_the_latest_one() -> None:
    now = datetime(2024, 3, 1, 12, tzinfo=UTC)
    found = {text: [start.date().isoformat() for start, _ in read_query(text).spans(now)] for text in (
        "on 29 February", "on 2 March", "on 1 March", "on 2 March 2021 or 2022", "on 30 February")}  # fmt: skip
    assert found == {
        "on 29 February": ["2024-02-29"],
        "on 2 March": ["2023-03-02"],
        "on 1 March": ["2024-03-01"],
        "on 2 March 2021 or 2022": ["2021-03-02", "2022-03-02"],
        "on 30 February": [],
    }


def test_a_speaker_is_in_the_context_or_before_the_colon() -> None:
    assert speaker_of(Episode("hello", context={"speaker": "Ann"})) == "Ann"
    assert speaker_of(Episode("hello", context={"role": "user"})) == "user"
    assert speaker_of(Episode("Ann Lee: hello")) == "Ann Lee"
    assert speaker_of(Episode("see https://example.org: here")) is None
    assert speaker_of(Episode("this is a long clause before: a colon")) is None


def test_prose_with_a_few_colons_has_no_speakers() -> None:
    prose = [Episode(f"Sentence number {i} about parsing.") for i in range(30)]
    warnings = [Episode("Warning: do not use."), Episode("Warning: deprecated."), Episode("Note: see above.")]
    assert speakers_of([*prose, *warnings]) == frozenset()


def test_a_conversation_has_speakers() -> None:
    turns = [Episode(f"{name}: turn {i}") for i in range(10) for name in ("Ann", "Bo")]
    assert speakers_of([*turns, Episode("Ps: once")]) == {"Ann", "Bo"}


@pytest.mark.parametrize(
    "text",
    ["TCK-48213", "what about v1.2?", "the error #4711", "(ERR_42)", "set max_samples", "os.path fails", "isReady"],
)
def test_codes_and_names_of_programs_are_exact(text: str) -> None:
    assert read_query(text).exact


def test_what_is_named_exactly_is_known_without_what_stands_around_it() -> None:
    assert read_query('is "INV-20448" in (max_samples)?').exact == {"INV-20448", "max_samples"}


@pytest.mark.parametrize(
    "text",
    [
        "the deploy failed",
        "in 2023",
        "on 2023-05-01",
        "at 10:30, 3rd of May",
        "i.e. 5 apples",
        "$100",
        "100 dollars, or 1500",
        "my 401k",
        "20% or 500£",
        "the 1990s",
        "on 24/12/2023",
    ],
)
def test_dates_amounts_and_plain_words_are_not(text: str) -> None:
    assert not read_query(text).exact
