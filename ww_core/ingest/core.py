"""The ingestion core: validate, ask the hooks, write as pending, remember, ring. No model, no vectors, no broker."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from ww_core.buffers import Buffers
from ww_core.errors import EpisodeConflict, InvalidInput, Unavailable
from ww_core.hooks import Hooks
from ww_core.ids import new_ids
from ww_core.ingest import validate
from ww_core.models import BatchReceipt, Episode, Receipt
from ww_core.observability.metrics import ATTEMPTS, Metrics
from ww_core.observability.tracing import STORE, process_tracing
from ww_core.stores.ports import Added, AddResult, GraphStore, Strength

log = logging.getLogger(__name__)

CHUNK_ITEMS = 2000
"""Episodes of one write: the fixed cost of a commit is spread thin, and other writers wait for 50 ms or so at most."""
CHUNK_CHARS = 4 * 1024 * 1024
"""Characters of one write, so that a stream of the longest texts stays in bounded memory as well."""

T = TypeVar("T")


class Ingest:
    """Where every episode comes in. Blocking and thread-safe; ``ring`` returns at once."""

    def __init__(
        self,
        graph: GraphStore,
        *,
        hooks: Hooks,
        metrics: Metrics,
        buffers: Buffers,
        ring: Callable[[], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._graph = graph
        self._hooks = hooks
        self._metrics = metrics
        self._buffers = buffers
        self._ring = ring
        self._clock = clock

    def store(self, item: object, *, session_id: str | None = None) -> Receipt:
        """Store one item: durable when this returns. ``session_id`` is for items that name none.

        Raises InvalidInput, EpisodeConflict, StoreUnavailable.
        """
        with self._metrics.operation("store"):
            now = self._clock()
            home = validate.session(session_id)
            episode = validate.episode(item, position=0, episode_id=new_ids(1)[0], now=now, session_id=home)
            episode = self._before(episode, now)
            result = self._write([episode])[0]
            if isinstance(result, Exception):
                raise result
            return result

    def chunk(
        self, items: Sequence[object], *, first: int, session_id: str | None = None
    ) -> tuple[list[Receipt], list[tuple[int, Exception]]]:
        """Store the items of one write; ``first`` is the index of the first in its call, and gives their positions.

        Returns the receipts in input order and (index, error) of every item refused. A store that cannot be reached
        refuses the whole chunk that way.
        """
        start = time.perf_counter()
        now = self._clock()
        home = validate.session(session_id)
        ids = new_ids(len(items))
        hooked = self._hooks.has("before_store")
        episodes: list[Episode] = []
        places: list[int] = []
        rejected: list[tuple[int, Exception]] = []
        for index, (item, episode_id) in enumerate(zip(items, ids, strict=True), first):
            try:
                episode = validate.episode(item, position=index, episode_id=episode_id, now=now, session_id=home)
                episodes.append(self._before(episode, now) if hooked else episode)
                places.append(index)
            except InvalidInput as error:
                rejected.append((index, error))
        accepted: list[Receipt] = []
        try:
            results = self._write(episodes)
        except Unavailable as error:
            self._metrics.failed("store", error, len(episodes))
            rejected += [(index, error) for index in places]
        else:
            for index, result in zip(places, results, strict=True):
                if isinstance(result, Exception):
                    rejected.append((index, result))
                else:
                    accepted.append(result)
        rejected.sort(key=lambda pair: pair[0])
        self._metrics.increment(ATTEMPTS, len(items))
        self._metrics.observe("store_batch", time.perf_counter() - start)
        return accepted, rejected

    def store_batch(self, items: Iterable[object], *, session_id: str | None = None) -> BatchReceipt:
        """Store a stream in chunks; one bad item refuses no other. Raises StoreUnavailable where nothing was stored."""
        batch = Batch()
        for chunk in chunks(items):
            batch.add(len(chunk), *self.chunk(chunk, first=batch.seen, session_id=session_id))
        return batch.receipt()

    def restore(self, episodes: Sequence[Episode]) -> BatchReceipt:
        """Write episodes exactly as they were exported. No hook is asked: they were when the episodes were stored.

        Ids that were erased here, or hold other content, are rejected. Raises StoreUnavailable.
        """
        if not episodes:
            return BatchReceipt((), ())
        added = self._graph.add(episodes)
        results = [_receipt(e, a) for e, a in zip(episodes, added, strict=True)]
        # also of what was there: a run that was cut off in between is made good by the next, and later recalls stay
        recalls = [
            Strength(e.episode_id, e.stability, e.last_recalled_at)
            for e, result in zip(episodes, results, strict=True)
            if isinstance(result, Receipt) and e.last_recalled_at is not None
        ]
        archived = [
            e.episode_id for e, a in zip(episodes, added, strict=True) if e.archived and a.outcome is Added.CREATED
        ]
        if recalls:
            self._graph.strengthen(recalls)
        if archived:
            self._graph.archive(archived)
        self._ring()
        return BatchReceipt(
            tuple(result for result in results if isinstance(result, Receipt)),
            tuple((index, result) for index, result in enumerate(results) if isinstance(result, Exception)),
        )

    def update(
        self,
        episode_id: str,
        *,
        content: str | None = None,
        timestamp: datetime | str | None = None,
        context: Mapping[str, Any] | None = None,
        outcome: str | None = None,
        importance: float | None = None,
    ) -> Episode:
        """Change what is given (None leaves a field as it is). Raises InvalidInput, NotFound, StoreUnavailable."""
        validate.identifier("episode_id", episode_id)
        changed = self._graph.update(
            episode_id,
            content=None if content is None else validate.content(content),
            timestamp=None if timestamp is None else validate.timestamp(timestamp),
            context=None if context is None else validate.context(context),
            outcome=validate.outcome(outcome),
            importance=None if importance is None else validate.importance(importance),
        )
        self._buffers.forget([episode_id])
        if content is not None:
            self._buffers.ca1.add([changed])
        self._ring()
        return changed

    def _before(self, episode: Episode, now: datetime) -> Episode:
        changed = self._hooks.apply("before_store", episode)
        if changed is episode:
            return episode
        changed = replace(changed, episode_id=episode.episode_id, position=episode.position)
        return validate.checked(changed, position=episode.position, episode_id=episode.episode_id, now=now)

    def _write(self, episodes: Sequence[Episode]) -> list[Receipt | Exception]:
        if not episodes:
            return []
        since = time.time_ns()
        with self._metrics.timer("store.graph"):
            added = self._graph.add(episodes)
        results = [_receipt(e, a) for e, a in zip(episodes, added, strict=True)]
        created = [e for e, a in zip(episodes, added, strict=True) if a.outcome is Added.CREATED]
        if created:
            tracing = process_tracing()
            if tracing.on:
                names = [episode.episode_id for episode in created]
                tracing.episodes(STORE, names, since=since, around=tracing.current())
            self._buffers.stored(created)
            self._ring()
            if self._hooks.has("after_store"):
                by_id = {r.episode_id: r for r in results if isinstance(r, Receipt)}
                for episode in created:
                    self._hooks.notify("after_store", episode, by_id[episode.episode_id])
        return results


class Batch:
    """What became of the items of one call so far."""

    def __init__(self) -> None:
        self.seen = 0
        self._accepted: list[Receipt] = []
        self._rejected: list[tuple[int, Exception]] = []

    def add(self, items: int, accepted: list[Receipt], rejected: list[tuple[int, Exception]]) -> None:
        """One chunk of ``items`` is done. Raises its Unavailable where nothing at all was stored so far."""
        if not self._accepted and not accepted:
            for _, error in rejected:
                if isinstance(error, Unavailable):
                    raise error
        self.seen += items
        self._accepted += accepted
        self._rejected += rejected

    def receipt(self) -> BatchReceipt:
        return BatchReceipt(tuple(self._accepted), tuple(self._rejected))


class _Gather:
    """Collects items until they make one write."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._chars = 0

    def add(self, item: object) -> bool:
        """Whether the chunk is full now."""
        self.items.append(item)
        text = item
        if isinstance(item, Episode):
            text = item.content
        elif isinstance(item, Mapping):
            text = item.get("content")
        if isinstance(text, str):
            self._chars += len(text)
        return len(self.items) >= CHUNK_ITEMS or self._chars >= CHUNK_CHARS


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """The stream in pieces of one write each. Raises InvalidInput where ``items`` is no stream of items.

    Where the stream itself raises, what it gave before is handed out first.
    """
    check_stream(items)
    gather = _Gather()
    try:
        for item in items:
            if gather.add(item):
                yield gather.items
                gather = _Gather()
    except GeneratorExit:
        raise
    except BaseException:
        if gather.items:
            yield gather.items
        raise
    if gather.items:
        yield gather.items


async def store_stream(
    items: Iterable[object] | AsyncIterable[object],
    store: Callable[[list[Any], int], Awaitable[tuple[list[Receipt], list[tuple[int, Exception]]]]],
) -> BatchReceipt:
    """``store_batch`` for a caller with an event loop: ``store`` takes one chunk and the index of its first item."""
    batch = Batch()
    if not isinstance(items, AsyncIterable):
        for chunk in chunks(items):
            batch.add(len(chunk), *await store(chunk, batch.seen))
        return batch.receipt()
    gather = _Gather()
    try:
        async for item in items:
            if gather.add(item):
                full, gather = gather, _Gather()
                batch.add(len(full.items), *await store(full.items, batch.seen))
    finally:  # where the stream itself raises, what it gave before is stored first
        if gather.items:
            batch.add(len(gather.items), *await store(gather.items, batch.seen))
    return batch.receipt()


def check_stream(items: object) -> None:
    """Raise InvalidInput for what is one item rather than many."""
    if isinstance(items, str | bytes | Mapping | Episode) or not isinstance(items, Iterable | AsyncIterable):
        raise InvalidInput(
            f"store_batch takes an iterable of items, not {type(items).__name__} {validate.shown(items)}",
            hint="use store for one item, or put it in a list",
        )


def _receipt(episode: Episode, added: AddResult) -> Receipt | Exception:
    match added.outcome:
        case Added.CREATED:
            return Receipt(episode.episode_id, added.state, duplicate=False)
        case Added.DUPLICATE:
            return Receipt(episode.episode_id, added.state, duplicate=True)
        case Added.CONFLICT:
            return EpisodeConflict(
                f"episode {validate.shown(episode.episode_id)} exists with other content or in another session",
                hint="choose another episode_id, or change the episode with update",
            )
        case Added.CORRECTED:
            return EpisodeConflict(
                f"episode {validate.shown(episode.episode_id)} was stored with this content and updated since",
                hint="it is kept as it is now; to change it again use update",
                corrected=True,
            )
        case Added.ERASED:
            return EpisodeConflict(
                f"episode {validate.shown(episode.episode_id)} was forgotten for good",
                hint="to store it again, give it an episode_id of its own (an ingested line has it from its text)",
            )
