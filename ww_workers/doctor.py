"""What is wrong with a deployment, and how to mend it: every check that a worker makes at start, and what only a look
at the whole shows."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import redis

from ww_core.deployment import Deployment
from ww_core.errors import BrokerUnavailable, WorldWeaverError
from ww_core.stores.ports import Queue
from ww_workers import failures
from ww_workers.inspection import transport_options, workers
from ww_workers.settings import BEAT_TICK, SWEEP_SECONDS, VISIBILITY_SECONDS

SKEW_SECONDS = 5.0
"""Clocks further apart than this confuse leases and windows."""
STUCK_SECONDS = 120.0
"""A backlog whose oldest episode waits longer than this ought to move while we look."""
LOOK_SECONDS = 3.0
FULL_SHARE = 0.95
"""Of a Redis's maxmemory."""
LEAST_FREE_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. ``message`` says what was seen, ``hint`` what to do where it is not ok."""

    name: str
    ok: bool
    message: str
    hint: str = ""


Check = Callable[[Deployment], Finding]


def examine(deployment: Deployment, *, look_seconds: float = LOOK_SECONDS) -> list[Finding]:
    """Every check that applies to these settings. Never raises for what is wrong: that is a finding."""
    checks: list[tuple[str, Check]] = [
        ("data directory", _data_directory),
        ("graph store", _graph),
        ("vector store", _vectors),
        ("model", _model),
        ("hooks", _hooks),
        ("accounting", _accounting),
        ("backlog", lambda parts: _backlog(parts, look_seconds)),
        ("dead letters", _dead),
    ]
    found = [_guarded(name, check, deployment) for name, check in checks]
    if deployment.settings.redis_url is None:
        return found
    found.append(_guarded("broker", _broker, deployment))
    if found[-1].ok:  # without an answer the others would only say the same again
        others: list[tuple[str, Check]] = [
            ("memory", _memory),
            ("eviction", _eviction),
            ("visibility", _visibility),
            ("clocks", _clocks),
            ("beat", _beat),
        ]
        found += [_guarded(name, check, deployment) for name, check in others]
        found += _consumers(deployment)
    return found


def _guarded(name: str, check: Check, deployment: Deployment) -> Finding:
    try:
        return check(deployment)
    except WorldWeaverError as error:
        return Finding(name, False, error.message, error.hint)
    except redis.RedisError as error:
        return Finding(name, False, f"the broker did not answer: {failures.line(error)}", failures.hint(error))


# -- stores and model


def _data_directory(parts: Deployment) -> Finding:
    path = parts.data_dir()
    free = shutil.disk_usage(path).free
    if free < LEAST_FREE_BYTES:
        return Finding("data directory", False, f"{path} has {free / 1e6:.0f} MB left", "free some space")
    mode = path.stat().st_mode & 0o077
    if mode:
        return Finding("data directory", False, f"{path} is open to other users", f"chmod 700 {path}")
    return Finding("data directory", True, f"{path}, {free / 1e9:.1f} GB free")


def _graph(parts: Deployment) -> Finding:
    # opening it checks the version of its schema
    parts.graph.ping()
    return Finding("graph store", True, "sqlite" if parts.embedded_graph else "neo4j answers")


def _vectors(parts: Deployment) -> Finding:
    parts.vectors.ping()
    parts.vectors.ensure(parts.embedding.fingerprint)
    facts = parts.vectors.info()
    kind = "qdrant-edge" if parts.embedded_vectors else f"qdrant {facts['version']} answers"
    return Finding("vector store", True, f"{kind}, {facts['points']} points of this model")


def _model(parts: Deployment) -> Finding:
    state = parts.embedding.describe()
    how = "not yet compared on this machine" if state.choice is None else f"{state.choice.path} ({state.choice.reason})"
    return Finding("model", True, f"{state.fingerprint.model}, {state.fingerprint.dimension} dimensions: {how}")


def _hooks(parts: Deployment) -> Finding:
    modules = parts.settings.hooks
    parts.hooks.load(modules)
    return Finding("hooks", True, f"{', '.join(modules)} can be imported" if modules else "none")


def _accounting(parts: Deployment) -> Finding:
    counts = parts.graph.counts()
    if not counts.balanced:
        return Finding("accounting", False, f"the states do not add up: {counts}", "run `ww verify`")
    return Finding("accounting", True, f"{counts.acknowledged} acknowledged, all accounted for")


def _backlog(parts: Deployment, look_seconds: float) -> Finding:
    oldest = parts.graph.oldest_pending()
    before = parts.graph.counts()
    waiting = before.pending + before.leased
    if oldest is None or oldest < STUCK_SECONDS:
        return Finding("backlog", True, f"{waiting} waiting")
    threading.Event().wait(look_seconds)
    after = parts.graph.counts()
    if after.embedded + after.dead + after.erased > before.embedded + before.dead + before.erased:
        return Finding("backlog", True, f"{after.pending + after.leased} waiting, and moving")
    hint = "see that a worker runs (`ww worker --pool cpu`) and read its log"
    if parts.settings.redis_url is None:
        hint = "run `ww flush`, which embeds them; -v shows what is in the way"
    return Finding("backlog", False, f"{waiting} waiting for up to {oldest:.0f} s, and none was embedded", hint)


def _dead(parts: Deployment) -> Finding:
    dead = parts.graph.counts().dead
    return Finding("dead letters", True, f"{dead} (`ww dead list`)" if dead else "none")


# -- broker and workers


def _client(parts: Deployment) -> redis.Redis:
    url = parts.settings.redis_url
    assert url is not None  # noqa: S101 - these checks run only with a broker
    client: redis.Redis = redis.Redis.from_url(url.get_secret_value(), socket_timeout=2, socket_connect_timeout=2)
    return client


def _broker(parts: Deployment) -> Finding:
    with _client(parts) as client:
        client.ping()
        version = client.info("server").get("redis_version")
    return Finding("broker", True, f"redis {version}")


def _memory(parts: Deployment) -> Finding:
    with _client(parts) as client:
        facts = client.info("memory")
    used, most = int(facts["used_memory"]), int(facts.get("maxmemory", 0))
    if most and used > FULL_SHARE * most:
        return Finding(
            "memory",
            False,
            f"Redis uses {used / 1e6:.0f} MB of its maxmemory of {most / 1e6:.0f} MB, and then takes no message",
            "raise its maxmemory, or see what fills it",
        )
    return Finding("memory", True, f"{used / 1e6:.0f} MB" + (f" of {most / 1e6:.0f} MB" if most else ""))


def _eviction(parts: Deployment) -> Finding:
    with _client(parts) as client:
        policy = client.info("memory").get("maxmemory_policy")
    if policy != "noeviction":
        return Finding(
            "eviction", False, f"Redis may drop keys under pressure (maxmemory-policy {policy})", "set it to noeviction"
        )
    return Finding("eviction", True, "noeviction")


def _visibility(parts: Deployment) -> Finding:
    for name, options in transport_options(parts.settings).items():
        seconds = float(options.get("visibility_timeout", 3600))
        if seconds < VISIBILITY_SECONDS:
            return Finding(
                "visibility",
                False,
                f"worker {name} has a visibility timeout of {seconds:g} s: running tasks are delivered again",
                f"leave it at {VISIBILITY_SECONDS} s or more",
            )
    return Finding("visibility", True, f"{VISIBILITY_SECONDS} s, renewed")


def _clocks(parts: Deployment) -> Finding:
    with _client(parts) as client:
        seconds, micros = client.time()
    skew = abs(parts.clock().timestamp() - (seconds + micros / 1e6))
    if skew > SKEW_SECONDS:
        return Finding("clocks", False, f"this machine and Redis differ by {skew:.0f} s", "run NTP on all of them")
    return Finding("clocks", True, f"within {skew:.1f} s")


def _beat(parts: Deployment) -> Finding:
    tick = parts.graph.get_fact(BEAT_TICK)
    if tick is None:
        return Finding("beat", False, "no beat has ever ticked", "run one `ww beat`, and a worker for the queue ww")
    age = (parts.clock() - datetime.fromisoformat(tick)).total_seconds()
    if age > 4 * SWEEP_SECONDS:
        hint = "run one `ww beat`, and a worker for the queue ww"
        return Finding("beat", False, f"beat ticked {age:.0f} s ago, it should every {SWEEP_SECONDS} s", hint)
    return Finding("beat", True, f"ticked {age:.0f} s ago")


def _consumers(parts: Deployment) -> Iterator[Finding]:
    try:
        consumed = {queue for worker in workers(parts.settings) for queue in worker.queues}
    except BrokerUnavailable as error:
        yield Finding("workers", False, error.message, error.hint)
        return
    for queue in Queue:
        name = f"queue {queue.value}"
        if queue.value in consumed:
            yield Finding(name, True, "consumed")
        else:
            pool = {Queue.EMBED: "cpu", Queue.QUERY: "query", Queue.CONSOLIDATE: "consolidate"}.get(queue, "maintain")
            yield Finding(name, False, "nobody consumes it", f"run `ww worker --pool {pool}`")
