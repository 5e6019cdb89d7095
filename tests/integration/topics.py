"""Texts on a few subjects, which any encoder can tell apart."""

from __future__ import annotations

TOPICS = {
    "disk": [
        "the disk of api-7 is full",
        "no space left on the volume of api-7",
        "the disk on api-7 ran out of space",
        "api-7 reports a full disk again",
        "the volume of api-7 has no space left",
        "disk space on api-7 is exhausted",
    ],
    "tea": [
        "Anna drinks green tea in the morning",
        "a cup of green tea for Anna",
        "Anna prefers green tea over coffee",
        "green tea is what Anna drinks",
        "Anna ordered another green tea",
        "the green tea that Anna likes is gone",
    ],
    "train": [
        "the train to Berlin leaves at nine",
        "we missed the train to Berlin",
        "the Berlin train was late again",
        "a ticket for the train to Berlin",
        "the train from Berlin arrived late",
        "the next train to Berlin is at ten",
    ],
}
