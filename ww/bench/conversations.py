"""Recall of evidence in long conversations (LoCoMo): raw turns, the default model, no language model."""

from __future__ import annotations

import math
import time

import numpy as np

from ww.bench import data, locomo
from ww.bench.figure import Bench, Figure, p95, skipped
from ww.memory.episodic import EpisodicMemory
from ww_core.config import Settings
from ww_core.stores.ports import Dirty

TARGETS = {5: 0.73, 10: 0.82}
LATE_TARGETS = {5: 0.76, 10: 0.85}
P95_TARGET = 50.0
CONTEXT_SECONDS = 600.0


def run(bench: Bench) -> list[Figure]:
    """All conversations at full scale, else the shortest, which has no target of its own."""
    names = [f"locomo_recall_at_{k}" for k in TARGETS]
    if why := data.absent(locomo.FILE):
        return [skipped(name, "share of the evidence", why) for name in names]
    found = locomo.load(data.folder() / locomo.FILE)
    if not bench.scale.full:
        found = [min(found, key=lambda conversation: len(conversation.episodes))]
    dense_only = {key: 0 for key in Settings.model_fields if key.startswith("recall_weight_")}
    memory = EpisodicMemory(settings=bench.place("locomo"))
    peer = EpisodicMemory(settings=bench.place("locomo", **{**dense_only, "recall_weight_content": 1}))
    late = EpisodicMemory(settings=bench.place("locomo", recall_weight_late=1)) if bench.scale.full else None
    writer = late or memory  # what late interaction reads is kept by who embeds
    try:
        for conversation in found:
            writer.sync.store_batch(conversation.episodes)
        bench.say(f"locomo: embedding {sum(len(c.episodes) for c in found):,} turns")
        writer.sync.flush(timeout=CONTEXT_SECONDS)
        _await_context(writer)
        with_late, late_ms = (None, math.nan) if late is None else _scores(late, found)
        (ours, ours_ms), (dense, _) = _scores(memory, found), _scores(peer, found)
    finally:
        for one in (memory, peer, late):
            if one is not None:
                one.close()
    questions = sum(len(c.questions) for c in found)
    note = f"{questions} questions" if bench.scale.full else f"{questions} questions of {found[0].name}; judged at full"
    unit = "share of the evidence"
    figures = [
        Figure(name, ours[k], unit, TARGETS[k] if bench.scale.full else math.nan, dense[k], "dense alone", note=note)
        for name, k in zip(names, TARGETS, strict=True)
    ]
    figures.append(
        Figure("locomo_recall_p95", ours_ms, "ms", P95_TARGET if bench.scale.full else math.nan, low_is_good=True,
               note=f"{note}, query not cached")
    )  # fmt: skip
    if with_late is not None:
        figures.append(
            Figure("locomo_late_p95", late_ms, "ms", P95_TARGET, ours_ms, "the default", low_is_good=True,
                   note=f"{note}, query not cached")
        )  # fmt: skip
        figures += [
            Figure(f"locomo_late_recall_at_{k}", with_late[k], unit, LATE_TARGETS[k], ours[k], "the default", note=note)
            for k in TARGETS
        ]
    return figures


def _await_context(memory: EpisodicMemory) -> None:
    """The surroundings of an episode are embedded after it."""
    deployment = memory.core.deployment
    end = time.monotonic() + CONTEXT_SECONDS
    while deployment.graph.dirty(Dirty.CONTEXT, 1) and time.monotonic() < end:
        deployment.doorbell.ring()
        time.sleep(0.2)


def _scores(memory: EpisodicMemory, conversations: list[locomo.Conversation]) -> tuple[dict[int, float], float]:
    """Evidence recall by k, and the 95th percentile of a recall in ms; every question is a new one to the cache."""
    memory.sync.recall("how is everybody", session_id=conversations[0].name)
    service, seconds = memory.core.deployment.embedding, []
    found: dict[int, list[float]] = {k: [] for k in TARGETS}
    for conversation in conversations:
        for question in conversation.questions:
            service.forget(None)  # the memories share a cache
            started = time.perf_counter()
            answer = memory.sync.recall(question.text, session_id=conversation.name, limit=max(TARGETS))
            seconds.append(time.perf_counter() - started)
            ids = [result.episode_id for result in answer]
            for k in TARGETS:
                found[k].append(locomo.evidence_recall(ids, question, k))
    return {k: float(np.mean(scores)) for k, scores in found.items()}, p95(seconds)
