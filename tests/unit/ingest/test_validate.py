"""Every bad value is refused with its name, the value and a way out; every good one comes through unchanged."""

import math
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ww_core.errors import InvalidInput
from ww_core.ids import IdMaker
from ww_core.ingest import validate
from ww_core.models import Episode

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def made(item: object) -> Episode:
    return validate.episode(item, position=7, episode_id="made", now=NOW)


class Loop(dict[str, Any]):
    """A context that contains itself."""

    def __init__(self) -> None:
        super().__init__()
        self["self"] = self


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


BAD: list[tuple[object, str]] = [
    ("", "content is empty"),
    (" \n\t ", "content is empty"),
    ("\u200b\u200b", "content is empty: '\\u200b\\u200b' (give it at least one visible character)"),
    ("\ufeff \u2060\xad\u202e\x1b\x00\u2029", "content is empty: "),
    ("x" * 50_001, "50001 characters"),
    ("a\x00b", "NUL character at position 1"),
    ("a\ud800b", "lone surrogate"),
    (b"bytes", "content must be text, not bytes"),
    (None, "not NoneType None"),
    (42, "not int 42"),
    ({}, "without content"),
    ({"content": None}, "content must be text"),
    ({"content": "x", "sesion_id": "a"}, "did you mean session_id"),
    ({"text": "x"}, "did you mean content"),
    ({"content": "x", 3: "a"}, "unknown key 3"),
    ({"content": "x", "timestamp": datetime(2026, 1, 1)}, "has no time zone"),  # noqa: DTZ001 - naive on purpose
    ({"content": "x", "timestamp": "2026-01-01T00:00:00"}, "has no time zone"),
    ({"content": "x", "timestamp": "yesterday"}, "no ISO 8601 time: 'yesterday'"),
    ({"content": "x", "timestamp": 1767225600}, "not int 1767225600"),
    ({"content": "x", "timestamp": datetime(1, 1, 1, tzinfo=UTC)}, "out of range"),
    ({"content": "x", "timestamp": datetime.max.replace(tzinfo=UTC)}, "out of range"),
    ({"content": "x", "timestamp": datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))}, "out of range"),
    ({"content": "x", "importance": math.nan}, "importance must be a number from 0 to 1, not nan"),
    ({"content": "x", "importance": math.inf}, "not inf"),
    ({"content": "x", "importance": -0.1}, "not -0.1"),
    ({"content": "x", "importance": 1.1}, "not 1.1"),
    ({"content": "x", "importance": True}, "not True"),
    ({"content": "x", "importance": "high"}, "not 'high'"),
    ({"content": "x", "outcome": "succes"}, "did you mean success"),
    ({"content": "x", "outcome": 1}, "outcome 1 is unknown"),
    ({"content": "x", "context": [1]}, "must be a JSON object, not list"),
    ({"content": "x", "context": "{}"}, "must be a JSON object, not str"),
    ({"content": "x", "context": {1: "a"}}, "the key 1"),
    ({"content": "x", "context": {"a": math.nan}}, "no JSON"),
    ({"content": "x", "context": {"a": {"b": [math.inf]}}}, "no JSON"),
    ({"content": "x", "context": {"a": object()}}, "no JSON"),
    ({"content": "x", "context": {"a": {1, 2}}}, "no JSON"),
    ({"content": "x", "context": {"a": "\ud800"}}, "lone surrogate"),
    ({"content": "x", "context": {"a": "x" * 16_384}}, "at most 16384"),
    ({"content": "x", "context": Loop()}, "no JSON"),
    ({"content": "x", "context": deep(100_000)}, "no JSON"),
    ({"content": "x", "episode_id": ""}, "episode_id has 0 characters"),
    ({"content": "x", "episode_id": "x" * 129}, "episode_id has 129 characters"),
    ({"content": "x", "episode_id": 5}, "episode_id must be text"),
    ({"content": "x", "episode_id": "a\nb"}, "control character"),
    ({"content": "x", "episode_id": "\udfff"}, "lone surrogate"),
    ({"content": "x", "session_id": ""}, "session_id has 0 characters"),
    ({"content": "x", "session_id": "   "}, "session_id is blank"),
    ({"content": "x", "session_id": "x" * 129}, "session_id has 129 characters"),
    ({"content": "x", "session_id": "a\x00"}, "control character"),
    ({"content": "x", "position": -1}, "position must be"),
    ({"role": "user", "content": None}, "content must be text"),
    ({"role": "user", "content": [{"type": "image"}]}, "content is empty"),
    ({"role": 3, "content": "x"}, "role must be text"),
    (Episode("x", importance=2), "not 2"),
    (Episode("x", timestamp=datetime(2026, 1, 1)), "has no time zone"),  # noqa: DTZ001 - naive on purpose
    (Episode(""), "content is empty"),
]


@pytest.mark.parametrize(("item", "says"), BAD, ids=[says for _, says in BAD])
def test_bad_input_is_refused_in_one_line_that_says_what(item: object, says: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        made(item)
    line = str(refusal.value)
    assert says in line
    assert "\n" not in line
    assert line.isprintable()
    assert len(line) < 400


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "  padded\n",
        "line\nline\tand \x1b[31mred\x1b[0m",
        "\u200bx\u200b",
        "日本語 🎉",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u0301",
        "x" * 50_000,
        "\x07bell",
        "a\r\nb",
    ],
)
def test_ordinary_content_comes_back_unchanged(text: str) -> None:
    assert made(text).content == text


def test_whitespace_counts_only_where_it_is_inside() -> None:
    assert made(" " * 10 + "x" * 50_000 + "\n").content == "x" * 50_000


@given(st.text(min_size=1, max_size=200))
def test_any_text_is_stored_as_it_is_or_refused(text: str) -> None:
    try:
        assert made(text).content == text
    except InvalidInput:
        invisible = all(unicodedata.category(c) in ("Cc", "Cf", "Zs", "Zl", "Zp") for c in text)
        assert invisible or "\x00" in text or any("\ud800" <= c <= "\udfff" for c in text)


def test_what_an_item_lacks_is_filled() -> None:
    assert made("x") == Episode("x", episode_id="made", session_id="default", timestamp=NOW, position=7)
    assert made({"content": "x"}) == made("x") == made(Episode("x"))


def test_store_keywords_come_through() -> None:
    item = {
        "content": "x",
        "session_id": "s",
        "timestamp": "2026-01-01T01:00:00+01:00",
        "context": {"tool": "kubectl", "n": [1, None, True]},
        "outcome": "failure",
        "importance": 1,
        "episode_id": "own",
        "position": 3,
    }
    assert made(item) == Episode(
        "x", "own", "s", datetime(2026, 1, 1, tzinfo=UTC), {"tool": "kubectl", "n": [1, None, True]}, "failure", 1.0, 3
    )


def test_chat_messages_keep_their_role() -> None:
    assert made({"role": "user", "content": "hello"}).context == {"role": "user"}
    parts = {
        "role": "user",
        "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}],
    }
    assert made(parts).content == "a\nb"
    named = made({"role": "user", "name": "Ann", "content": "x", "context": {"role": "own"}})
    assert named.context == {"role": "own", "name": "Ann"}


def test_the_callers_context_may_change_afterwards() -> None:
    context = {"a": [1]}
    episode = made({"content": "x", "context": context})
    context["a"].append(2)
    assert episode.context == {"a": [1]}


def test_a_context_of_exactly_16_kib_fits() -> None:
    assert made({"content": "x", "context": {"a": "x" * (16 * 1024 - len('{"a": ""}'))}}).context


def test_ids_ascend_are_unique_and_look_like_uuids() -> None:
    import uuid

    maker = IdMaker()
    ids = [i for n in (1, 5000, 1, 1, 9000) for i in maker.make(n)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert uuid.UUID(ids[0]).version == 7
    assert all(len(i) == 36 for i in ids[:10])
    assert uuid.UUID(ids[0]).variant == uuid.RFC_4122
