"""Recall of evidence in long conversations (LoCoMo): raw turns, the default model, no language model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from ww.bench import data, locomo
from ww.bench.figure import DENSE_ONLY, Bench, Figure, Scale, p95, skipped
from ww.memory.episodic import EpisodicMemory
from ww_core.stores.ports import Dirty

UNIT = "share of the evidence"
TARGETS: Mapping[str, Mapping[int, float]] = {"": {5: 0.73, 10: 0.82}, "_late": {5: 0.76, 10: 0.85}}
"""Recall at k: by default, and with late interaction."""
P95_TARGETS = {"": ("locomo_recall_p95", 50.0), "_late": ("locomo_late_p95", 50.0)}
"""Milliseconds of a recall, the query not cached."""
PEERS = {"": ("_dense", "dense alone"), "_late": ("", "the default")}
LOST_TARGET = 0.03
"""Most that recall may be lower in conversations that nothing was tuned on."""
CONTEXT_SECONDS = 600.0

Scores: TypeAlias = tuple[Mapping[int, float], float]
"""Evidence recall by k, and the 95th percentile of a recall in ms."""


def run(bench: Bench) -> Iterator[Figure]:
    """All conversations at full scale, else the shortest, which is held against nothing."""
    full = bench.scale.full
    late = "" if full else "at --scale full only"
    if why := "at --scale quick and full only" if bench.scale.name == "tiny" else data.absent(locomo.FILE):
        for kind, reason in {"": why, "_late": late or why}.items():
            yield from _not_measured(kind, reason)
        yield from (_lost(kind, late or why) for kind in TARGETS)
        return
    known = locomo.load(data.folder() / locomo.FILE)
    found = known if full else [min(known, key=lambda conversation: len(conversation.episodes))]
    scores = _measured(bench, "locomo", found)
    questions = sum(len(c.questions) for c in found)
    note = f"{questions} questions" + ("" if full else f" of {found[0].name}")
    for kind in TARGETS:
        yield from _judged(kind, scores, note, bench.scale) if kind in scores else _not_measured(kind, late)
    unseen = late or data.absent(locomo.PUBLISHED)
    names = {conversation.name for conversation in known}
    others = [] if unseen else [c for c in locomo.load(data.folder() / locomo.PUBLISHED) if c.name not in names]
    there = _measured(bench, "locomo-unseen", others) if others else {}
    yield from (_lost(kind, unseen or f"{locomo.PUBLISHED} has no others", scores, there) for kind in TARGETS)


def _judged(kind: str, scores: Mapping[str, Scores], note: str, scale: Scale) -> Iterator[Figure]:
    key, peer = PEERS[kind]
    (ours, ms), (theirs, peer_ms) = scores[kind], scores[key]
    for k, target in TARGETS[kind].items():
        yield Figure(f"locomo{kind}_recall_at_{k}", ours[k], UNIT, target, theirs[k], peer, note=note,
                     unjudged=scale.at_full("all conversations"))  # fmt: skip
    name, target = P95_TARGETS[kind]
    yield Figure(name, ms, "ms", target, peer_ms, peer, low_is_good=True, note=f"{note}, query not cached",
                 unjudged=scale.at_full("all conversations"))  # fmt: skip


def _not_measured(kind: str, why: str) -> Iterator[Figure]:
    yield from (skipped(f"locomo{kind}_recall_at_{k}", UNIT, why, target) for k, target in TARGETS[kind].items())
    name, target = P95_TARGETS[kind]
    yield skipped(name, "ms", why, target, low_is_good=True)


def _lost(
    kind: str, why: str, seen: Mapping[str, Scores] | None = None, unseen: Mapping[str, Scores] | None = None
) -> Figure:
    """How much lower the recall of evidence is where it is lower the most; ``why`` where nothing unseen is there."""
    name = f"locomo{kind}_lost_unseen"
    if not (seen and unseen):
        return skipped(name, UNIT, why, LOST_TARGET, low_is_good=True)
    (known, _), (other, _) = seen[kind], unseen[kind]
    note = ", ".join(f"@{k} {other[k]:.3f} beside {known[k]:.3f}" for k in known)
    most = max(known[k] - other[k] for k in known)
    return Figure(name, most, UNIT, LOST_TARGET, low_is_good=True, note=note)


def _measured(bench: Bench, place: str, conversations: Sequence[locomo.Conversation]) -> dict[str, Scores]:
    """By default, ``_dense`` alone, and at full scale with ``_late`` interaction."""
    ways: dict[str, Mapping[str, object]] = {"": {}, "_dense": DENSE_ONLY}
    if bench.scale.full:
        ways["_late"] = {"recall_weight_late": 1}
    memories = {kind: EpisodicMemory(settings=bench.place(place, **changes)) for kind, changes in ways.items()}
    writer = memories.get("_late", memories[""])  # what late interaction reads is kept by who embeds
    try:
        for conversation in conversations:
            writer.sync.store_batch(conversation.episodes)
        bench.say(f"{place}: embedding {sum(len(c.episodes) for c in conversations):,} turns")
        writer.sync.flush(timeout=CONTEXT_SECONDS)
        _await_context(writer)
        return {kind: _scores(memories[kind], conversations) for kind in reversed(memories)}
    finally:
        for memory in memories.values():
            memory.close()


def _await_context(memory: EpisodicMemory) -> None:
    """What surrounds an episode comes into its context after it is embedded."""
    deployment = memory.core.deployment
    end = time.monotonic() + CONTEXT_SECONDS
    while deployment.graph.dirty(Dirty.CONTEXT, 1) and time.monotonic() < end:
        deployment.doorbell.ring()
        time.sleep(0.2)


def _scores(memory: EpisodicMemory, conversations: Sequence[locomo.Conversation]) -> Scores:
    """Every question is a new one to the cache."""
    memory.sync.recall("how is everybody", session_id=conversations[0].name)
    service, seconds = memory.core.deployment.embedding, []
    found: dict[int, list[float]] = {k: [] for k in TARGETS[""]}
    for conversation in conversations:
        for question in conversation.questions:
            service.forget(None)  # the memories share a cache
            started = time.perf_counter()
            answer = memory.sync.recall(question.text, session_id=conversation.name, limit=max(found))
            seconds.append(time.perf_counter() - started)
            ids = [result.episode_id for result in answer]
            for k in found:
                found[k].append(locomo.evidence_recall(ids, question, k))
    return {k: float(np.mean(scores)) for k, scores in found.items()}, p95(seconds)
