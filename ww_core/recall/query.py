"""Reading a query: which words say who, which say when, and what is left to search for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_MONTH_NUMBERS = {name[:n]: i for i, name in enumerate(_MONTHS, 1) for n in (3, len(name))} | {"sept": 9}
_WORD = re.compile(r"[^\W\d_]+")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_ISO_DATE = re.compile(r"\b((?:19|20)\d\d)-(0[1-9]|1[0-2])(?:-(0[1-9]|[12]\d|3[01]))?\b")
_DAY_BEFORE = re.compile(r"\b(\d{1,2})(?:st|nd|rd|th)?\.?(?:\s+of)?\s+$", re.IGNORECASE)
_DAY_AFTER = re.compile(r"\.?\s+(\d{1,2})(?:st|nd|rd|th)?\b(?!:)", re.IGNORECASE)
"""Beside a month's name."""
_MEASURE = re.compile(
    r"\d{1,2}(?:[:.,]\d\d?)?(?:am|pm|st|nd|rd|th|h|m|s)?|\d{1,3}k|\d{1,2}0|\d+00|.*[$€£%].*|(?:19|20)?\d\d['’]?s|"
    r"\d{1,2}([/.-])\d{1,2}\1\d{4}",
    re.IGNORECASE,
)
"""Times of day, amounts, decades, dates of other forms than ISO's, and small or round numbers."""
_NAME = re.compile(r"[^\W\d]_[^\W\d]|[a-z][A-Z]|[a-z]{2}\.[a-z]{2}")
"""Inside a word: names as programs have them."""
_AROUND = "\"'“”‘’`.,;:!?()[]{}<>#"
_AMBIGUOUS = frozenset({"may", "march", "mar", "sep", "dec", "jan", "jun", "jul", "apr", "feb", "oct", "nov", "aug"})
"""Words or short forms that are months only when written like one: with a capital, and beside a day or not opening the
query."""


@dataclass(frozen=True, slots=True)
class QueryReading:
    """What a query says. ``topic`` is the text without the speakers' names; never empty unless the query is."""

    text: str
    topic: str
    speakers: frozenset[str]
    """The session's speakers that the query names."""
    months: frozenset[int]
    years: frozenset[int]
    days: frozenset[tuple[int, int]] = frozenset()
    """Those that are named with their month, as (month, day)."""
    exact: frozenset[str] = frozenset()
    """The codes, numbers and programs' names in it, which a text holds letter by letter (in any case) or not at all."""

    @property
    def dated(self) -> bool:
        return bool(self.months or self.years)

    def falls_in(self, moment: datetime) -> bool:
        """Whether a time has the month and the year that the query names (each only where it names one)."""
        return (not self.months or moment.month in self.months) and (not self.years or moment.year in self.years)

    def falls_on(self, moment: datetime) -> bool:
        """Whether it is of a day that the query names."""
        return self.falls_in(moment) and (moment.month, moment.day) in self.days

    def spans(self, now: datetime) -> list[tuple[datetime, datetime]]:
        """Start and end of the days that the query names, in UTC: in the years that it names, else the latest such day
        that is not to come."""
        found = []
        for month, day in sorted(self.days):
            for year in sorted(self.years) or range(now.year, now.year - 9, -1):
                try:
                    start = datetime(year, month, day, tzinfo=UTC)
                except ValueError:  # the 30th of February
                    continue
                if self.years or start <= now:
                    found.append((start, start + timedelta(days=1)))
                    if not self.years:
                        break
        return found


def read_query(text: str, speakers: Iterable[str] = ()) -> QueryReading:
    """Take a query apart.

    A name that the session's own speakers bear says who spoke, not what was said, so it is cut from the topic. A
    speaker is named by the whole name or by its first word (``Anna`` for ``Anna Berg``), in the speaker's spelling, or
    in any case where the query has no capitals at all.
    """
    named: set[str] = set()
    topic = text
    flags = re.IGNORECASE if text == text.lower() else 0
    for name in sorted(speakers, key=lambda n: (-len(n), n)):
        pattern = _name_pattern(name, flags)
        if pattern.search(text):
            named.add(name)
            topic = pattern.sub(" ", topic)
    topic = re.sub(r"\s+", " ", topic).strip()
    if not _WORD.search(topic):
        topic = text
    months, years, days = _dates(text)
    exact = frozenset(word for part in topic.split() if _is_exact(word := part.strip(_AROUND)))
    return QueryReading(text, topic, frozenset(named), months, years, days, exact)


def _is_exact(word: str) -> bool:
    """``TCK-48213``, ``v1.2``, ``4711``, ``max_samples``, ``os.path``; but no date, time, amount or small number."""
    if not any(letter.isdigit() for letter in word):
        return bool(_NAME.search(word))
    return not (_YEAR.fullmatch(word) or _ISO_DATE.fullmatch(word) or _MEASURE.fullmatch(word))


def _name_pattern(name: str, flags: int) -> re.Pattern[str]:
    first = name.split()[0]
    forms = {name, first} if len(first) > 1 else {name}
    spelled = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return re.compile(rf"\b(?:{spelled})\b(?:['’]s\b)?", flags)


def _dates(text: str) -> tuple[frozenset[int], frozenset[int], frozenset[tuple[int, int]]]:
    months: set[int] = set()
    days: set[tuple[int, int]] = set()
    for match in _WORD.finditer(text):
        word = match.group()
        number = _MONTH_NUMBERS.get(word.lower())
        if number is None:
            continue
        day = _DAY_BEFORE.search(text, 0, match.start()) or _DAY_AFTER.match(text, match.end())
        if word.lower() in _AMBIGUOUS and not (word[0].isupper() and (match.start() > 0 or day)):
            continue
        months.add(number)
        if day and 1 <= int(day[1]) <= 31:
            days.add((number, int(day[1])))
    years = {int(year) for year in _YEAR.findall(text)}
    for _, month, iso_day in _ISO_DATE.findall(text):
        months.add(int(month))
        if iso_day:
            days.add((int(month), int(iso_day)))
    return frozenset(months), frozenset(years), frozenset(days)
