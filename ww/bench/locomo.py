"""LoCoMo as a recall benchmark: turns as episodes, questions with the turns that hold their evidence."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ww_core.models import Episode

FILE, PUBLISHED = "locomo-dev.json", "locomo10.json"
"""The conversations that settings were tried on, and all ten as they were published."""
_EVIDENCE = re.compile(r"D\d+:\d+")
_TURN_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Question:
    """``evidence``: ids of the episodes that answer it; ``category`` 1 to 5 as the data set has it."""

    text: str
    evidence: frozenset[str]
    category: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """One session with its questions; those without resolvable evidence are left out."""

    name: str
    episodes: tuple[Episode, ...]
    questions: tuple[Question, ...]


def load(path: Path) -> list[Conversation]:
    """All conversations of the file."""
    return [_conversation(record) for record in json.loads(path.read_text(encoding="utf-8"))]


def evidence_recall(found: list[str], question: Question, k: int) -> float:
    """Share of the evidence among the first ``k`` results."""
    return len(question.evidence & set(found[:k])) / len(question.evidence)


def _conversation(record: dict[str, Any]) -> Conversation:
    name, parts = record["sample_id"], record["conversation"]
    numbers = sorted(int(key.split("_")[1]) for key, value in parts.items() if isinstance(value, list))
    episodes = []
    for number in numbers:
        start = datetime.strptime(parts[f"session_{number}_date_time"], "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
        for i, turn in enumerate(parts[f"session_{number}"]):
            image = f" [image: {turn['blip_caption']}]" if turn.get("blip_caption") else ""
            episodes.append(
                Episode(
                    f"{turn['speaker']}: {turn['text']}{image}",
                    episode_id=f"{name}/{turn['dia_id']}",
                    session_id=name,
                    timestamp=start + timedelta(seconds=_TURN_SECONDS * i),
                )
            )
    known = {episode.episode_id for episode in episodes}
    questions = []
    for entry in record["qa"]:
        ids = {f"{name}/{turn}" for turn in _EVIDENCE.findall(" ".join(entry.get("evidence", [])))}
        if ids & known:
            questions.append(Question(entry["question"], frozenset(ids & known), entry["category"]))
    return Conversation(name, tuple(episodes), tuple(questions))
