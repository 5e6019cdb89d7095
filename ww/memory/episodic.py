"""A memory as an object, with its own settings and, where wanted, its own session."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Generator, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from ww.memory.bridge import call, pause
from ww.memory.episodic_sync import SyncEpisodicMemory
from ww_core.errors import InvalidInput
from ww_core.models import (
    BatchReceipt,
    Cluster,
    Counts,
    Episode,
    Erased,
    Recall,
    Receipt,
    Run,
    SessionInfo,
    Verification,
)

if TYPE_CHECKING:
    from ww_core.config import Settings
    from ww_core.memory import MemoryCore

__all__ = ["EpisodicMemory", "SyncEpisodicMemory"]

log = logging.getLogger(__name__)

Mode = Literal["auto", "flat", "hierarchical"]

FIRST_LOOK = 0.005
LONGEST_LOOK = 0.2
"""Seconds between two looks of ``flush``."""

_opening = threading.RLock()


def _unlock_in_child() -> None:
    global _opening
    _opening = threading.RLock()


os.register_at_fork(after_in_child=_unlock_in_child)


def _warn_of_hooks(settings: Settings) -> None:
    """Where modules are given by keyword beside a broker: no worker sees these, and an application imports its own."""
    missing = [module for module in settings.hooks if module not in sys.modules]
    if missing and settings.sources()["hooks"] == "keyword":
        log.warning(
            "hooks given by keyword are not loaded where redis_url is set: import %s here, set T4DM_HOOKS for workers",
            ", ".join(missing),
            extra={"action": "hooks.load"},
        )


class _Done:
    """What has happened already, for callers who await it."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


_DONE = _Done()


class EpisodicMemory:
    """Everything an agent's memory does, for callers with an event loop; ``sync`` has the same for those without.

    ``session_id`` is for calls that name none (else: ``default`` for storing, all sessions for reading). ``settings``
    is a Settings; any setting may be given by keyword and is the strongest source. The memory opens when it is first
    used and may be used from several event loops, threads and forked processes; two memories on one data directory
    share it. Raises ConfigurationError for settings that are not usable.
    """

    def __init__(self, session_id: str | None = None, settings: Settings | None = None, **keywords: Any) -> None:
        from ww_core.config import Settings
        from ww_core.ingest import validate

        self.session_id = None if session_id is None else validate.identifier("session_id", session_id)
        if settings is None:
            self.settings = Settings(**keywords)
        elif isinstance(settings, Settings):
            self.settings = settings.replace(**keywords) if keywords else settings
        else:
            raise InvalidInput(f"settings must be a ww.Settings, not {type(settings).__name__}")
        self._core: MemoryCore | None = None
        self._pid = 0

    async def __aenter__(self) -> Self:
        await call(lambda: self.core)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        _ = self.core
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"EpisodicMemory(session_id={self.session_id!r}, data_dir={str(self.settings.data_dir)!r})"

    @property
    def core(self) -> MemoryCore:
        """The blocking core, opened where it is not (again after a fork)."""
        core = self._core
        if core is None or self._pid != os.getpid():
            with _opening:
                core = self._core
                if core is None or self._pid != os.getpid():
                    core = self._open()
        return core

    def _open(self) -> MemoryCore:
        from ww_core.deployment import Deployment
        from ww_core.memory import MemoryCore
        from ww_workers.runtimes import runtime_of

        deployment = Deployment.of(self.settings).acquire()
        try:
            _ = deployment.graph  # errors of the data directory or the server show here
            runtime = runtime_of(deployment)
            if self.settings.redis_url is None:  # this process is its own worker
                deployment.hooks.load(self.settings.hooks)
            else:
                _warn_of_hooks(self.settings)
            runtime.start()
            deployment.publish()
        except BaseException:
            if deployment.release():
                deployment.close()
            raise
        self._core, self._pid = MemoryCore(deployment, runtime, session_id=self.session_id), os.getpid()
        return self._core

    def close(self) -> Awaitable[None]:
        """Hand back what is in flight and close what no other memory uses. Used again, the memory opens again.

        Done when it returns; what it returns may be awaited, as everything else here is.
        """
        with _opening:
            core, self._core = self._core, None
            if core is not None and self._pid == os.getpid() and core.deployment.release():
                core.background.close()
                core.deployment.close()
        return _DONE

    async def aclose(self) -> None:
        """``close`` without blocking the event loop."""
        await call(self.close)

    @cached_property
    def sync(self) -> SyncEpisodicMemory:
        """The same methods for callers without an event loop."""
        return SyncEpisodicMemory(self)

    async def store(
        self,
        content: str | Episode | Mapping[str, Any],
        *,
        session_id: str | None = None,
        timestamp: datetime | str | None = None,
        context: Mapping[str, Any] | None = None,
        outcome: str | None = None,
        importance: float | None = None,
        episode_id: str | None = None,
    ) -> Receipt:
        """Store one episode; it is durable when this returns, and embedded in the background.

        ``content``: 1 to 50 000 characters, one of them visible, kept as given; or an Episode, a mapping of these
        keywords, a chat message (``role``, ``content``). ``timestamp``: aware datetime or ISO 8601 text with an offset,
        now by default. ``context``: JSON object up to 16 KiB. ``outcome``: success, failure, partial or neutral.
        ``importance``: 0 to 1, 0.5 by default. ``episode_id``: 1 to 128 characters; storing it twice keeps one episode.

        Raises InvalidInput, EpisodeConflict, StoreUnavailable.
        """
        return await call(
            lambda: self.core.store(
                content,
                session_id=session_id,
                timestamp=timestamp,
                context=context,
                outcome=outcome,
                importance=importance,
                episode_id=episode_id,
            )
        )

    async def store_batch(
        self, items: Iterable[str | Episode | Mapping[str, Any]] | AsyncIterable[str | Episode | Mapping[str, Any]]
    ) -> BatchReceipt:
        """Store a stream of what ``store`` takes, in bounded memory; one bad item refuses no other.

        An item's place in the stream orders it among others of its session and time. Raises StoreUnavailable where
        nothing could be stored at all; where the store fails later, the items concerned are among the rejected.
        """
        from ww_core.ingest.core import store_stream

        return await store_stream(items, lambda chunk, first: call(lambda: self.core.store_chunk(chunk, first)))

    async def recall(
        self,
        query: str,
        session_id: str | Sequence[str] | None = None,
        *,
        limit: int = 10,
        offset: int = 0,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        outcome: str | Sequence[str] | None = None,
        context: Mapping[str, Any] | None = None,
        cluster: str | Sequence[str] | None = None,
        mode: Mode | None = None,
        archived: bool | None = False,
        mmr: float | None = None,
        explain: bool = False,
    ) -> Recall:
        """The episodes that answer the query, best first.

        ``session_id``: one or several, all by default. ``limit``: 1 to 100; ``offset`` skips that many. ``since``
        (inclusive) and ``until`` (exclusive): aware times. ``outcome``: one or several. ``context``: keys whose values
        must be equal. ``cluster``: members of one or several clusters. ``mode``: ``flat``, ``hierarchical`` or
        ``auto`` instead of the setting ``hierarchical_search``. ``archived``: None looks there too, True only there.
        ``mmr``: 0 (varied) to 1 (relevant). ``explain`` also names the parts of a score that are 0.

        Raises InvalidInput, StoreUnavailable. Where no model answers in time, the words alone decide (mode ``bm25``).
        """
        return await call(
            lambda: self.core.recall(
                query,
                session_id=session_id,
                limit=limit,
                offset=offset,
                since=since,
                until=until,
                outcome=outcome,
                context=context,
                cluster=cluster,
                mode=mode,
                archived=archived,
                mmr=mmr,
                explain=explain,
            )
        )

    async def get(self, episode_id: str) -> Episode:
        """One episode, with its state and cluster. Raises NotFound."""
        return await call(lambda: self.core.get(episode_id))

    async def update(
        self,
        episode_id: str,
        *,
        content: str | None = None,
        timestamp: datetime | str | None = None,
        context: Mapping[str, Any] | None = None,
        outcome: str | None = None,
        importance: float | None = None,
    ) -> Episode:
        """Change what is given; new content is embedded again. Raises InvalidInput, NotFound."""
        return await call(
            lambda: self.core.update(
                episode_id,
                content=content,
                timestamp=timestamp,
                context=context,
                outcome=outcome,
                importance=importance,
            )
        )

    async def forget(self, episode_id: str | None = None, *, session_id: str | None = None) -> Erased:
        """Erase one episode, or everything of a session, for good: nothing brings it back. Raises NotFound."""
        return await call(lambda: self.core.forget(episode_id, session_id=session_id))

    async def list(
        self,
        session_id: str | Sequence[str] | None = None,
        *,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        limit: int | None = None,
        outcome: str | Sequence[str] | None = None,
        context: Mapping[str, Any] | None = None,
        archived: bool | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Episode]:
        """Episodes in the order of their times, read page by page."""
        pages = await call(
            lambda: self.core.pages(
                session_id=session_id,
                since=since,
                until=until,
                limit=limit,
                outcome=outcome,
                context=context,
                archived=archived,
                newest_first=newest_first,
            )
        )
        while (page := await call(lambda: next(pages, None))) is not None:
            for episode in page:
                yield episode

    async def sessions(self) -> Sequence[SessionInfo]:
        """Every session, with how many episodes it has and when they begin and end."""
        return await call(lambda: self.core.sessions())

    async def neighbours(self, episode_id: str, *, before: int = 3, after: int = 3) -> Sequence[Episode]:
        """The episode between those before and after it in its session (0 to 100 each). Raises NotFound."""
        return await call(lambda: self.core.neighbours(episode_id, before=before, after=after))

    async def clusters(self, session_id: str | None = None) -> Sequence[Cluster]:
        """What the latest consolidation made of a session, or of all."""
        return await call(lambda: self.core.clusters(session_id))

    async def about(self, cluster_id: str, *, limit: int = 10) -> Recall:
        """What is known about a cluster's subject: its most central episodes (1 to 100), best first.

        ``as_text`` makes a block for a prompt of them. Raises NotFound.
        """
        return await call(lambda: self.core.about(cluster_id, limit=limit))

    async def runs(self, session_id: str | None = None, *, limit: int = 50) -> Sequence[Run]:
        """Consolidations, newest first."""
        return await call(lambda: self.core.runs(session_id, limit=limit))

    async def working_memory(self, session_id: str | None = None) -> tuple[Episode, ...]:
        """What the session has in mind in this process: the last few episodes stored or recalled, latest last."""
        return await call(lambda: self.core.in_mind(session_id))

    async def recent(self, session_id: str | None = None, *, limit: int | None = None) -> tuple[Episode, ...]:
        """What this process stored last in the session, oldest first (the Episode Buffer)."""
        return await call(lambda: self.core.recent(session_id, limit=limit))

    @overload
    async def consolidate(self, session_id: str, *, dry_run: bool = False, wait: float | None = None) -> Run: ...
    @overload
    async def consolidate(
        self, session_id: None = None, *, dry_run: bool = False, wait: float | None = None
    ) -> Run | Sequence[Run]: ...
    async def consolidate(
        self, session_id: str | None = None, *, dry_run: bool = False, wait: float | None = None
    ) -> Run | Sequence[Run]:
        """Cluster what is new in a session; without one, in every session (a list of runs).

        ``dry_run`` shows what would change and changes nothing. ``wait``: seconds to wait where workers do it, None
        until it is done; the run's status says how far it came. Raises Busy, NotFound, BrokerUnavailable.
        """
        names = await call(lambda: self.core.consolidated_sessions(session_id))
        if names is None:
            name = self.core.one_session(session_id)
            return await call(lambda: self.core.consolidate(name, dry_run=dry_run, wait=wait))
        return [await self.consolidate(name, dry_run=dry_run, wait=wait) for name in names]

    async def rollback(self, run_id: str) -> Run:
        """Take a session's visible run back: what was visible before it is visible again, but for what was erased or
        got new content since. Raises NotFound, InvalidInput where it is not the visible run, Busy during a run."""
        return await call(lambda: self.core.rollback(run_id))

    async def flush(self, timeout: float = 30) -> None:
        """Return when everything stored so far is embedded or dead. Raises FlushTimeout after ``timeout`` seconds."""
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
            raise InvalidInput(f"timeout must be seconds from 0 on, not {timeout!r}")
        end = time.monotonic() + timeout
        mark = await call(lambda: self.core.mark())
        look = FIRST_LOOK
        while not await call(lambda: self.core.settled(mark)):
            left = end - time.monotonic()
            if left <= 0:
                raise await call(lambda: self.core.flush_timeout(timeout))
            await pause(min(look, left))
            look = min(2 * look, LONGEST_LOOK)

    async def counts(self, session_id: str | None = None) -> Counts:
        """How many episodes were acknowledged, and where they are now."""
        return await call(lambda: self.core.counts(session_id))

    async def verify(self) -> Verification:
        """Compare the record with the vectors, completely."""
        return await call(lambda: self.core.verify())
