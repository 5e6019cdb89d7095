"""``ww worker`` and ``ww beat``: Celery with the right queues."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import typer

from ww.cli.opening import settings_of
from ww.cli.options import Globals, everywhere, globals_of
from ww_core.errors import ConfigurationError, InvalidInput
from ww_core.hooks import process_hooks
from ww_core.stores.ports import Queue

POOLS: Mapping[str, tuple[Queue, ...]] = {
    "gpu": (Queue.EMBED,),
    "cpu": (Queue.EMBED,),
    "query": (Queue.QUERY,),
    "consolidate": (Queue.CONSOLIDATE,),
    "maintain": (Queue.MAINTAIN,),
    "all": tuple(Queue),
}
"""The queues that a worker of each pool consumes."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(context_settings=passed_on)(everywhere(worker))
    app.command(context_settings=passed_on)(everywhere(beat))


def worker(
    ctx: typer.Context,
    pool: str = typer.Option("all", "--pool", help=f"Which work to do: {', '.join(POOLS)}."),
    concurrency: int | None = typer.Option(None, "--concurrency", "-c", help="Child processes (1; 2 for all)."),
) -> None:
    """Do background work for a broker: a Celery worker. Options after these go to celery."""
    if pool not in POOLS:
        raise InvalidInput(f"pool {pool!r} is unknown", hint=f"use one of {', '.join(POOLS)}")
    if concurrency is not None and concurrency < 1:
        raise InvalidInput(f"--concurrency must be at least 1, not {concurrency}")
    options = globals_of(ctx)
    # Here, where somebody sees it: the process becomes another one before it does anything.
    process_hooks().load(settings_of(options).hooks)
    # One worker for everything still answers queries while it embeds.
    children = concurrency or (2 if pool == "all" else 1)
    queues = ",".join(queue.value for queue in POOLS[pool])
    name = f"{pool}-{os.getpid()}@%h"
    arguments = ["worker", "-n", name, "-Q", queues, "-P", "prefork", "-c", str(children), "-E", *_level(options)]
    if pool == "gpu":
        arguments.append("worker.pool_start_method=spawn")  # CUDA cannot be used in a forked child
    run_celery(options, [*arguments, *ctx.args])


def beat(ctx: typer.Context) -> None:
    """Ring for scheduled work: one Celery beat. Options after these go to celery."""
    options = globals_of(ctx)
    schedule = settings_of(options).data_dir / "beat-schedule"
    schedule.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    run_celery(options, ["beat", "-s", str(schedule), *_level(options), *ctx.args])


def _level(options: Globals) -> list[str]:
    return ["-l", "DEBUG" if options.verbose else "INFO"]


def run_celery(options: Globals, arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> NoReturn:
    """Become ``celery -A ww_workers``; the options of the command line go with it as variables."""
    if settings_of(options).redis_url is None:
        raise ConfigurationError("redis_url is not set, so there is no broker to work for", hint="set T4DM_REDIS_URL")
    environment = dict(os.environ if environ is None else environ)
    # Only from the environment does it reach Celery's pool: children then do not die of a SIGTERM that the whole group
    # gets, and hand back what they hold as their parent tells them.
    environment["REMAP_SIGTERM"] = "SIGQUIT"
    if options.config is not None:
        environment["T4DM_CONFIG"] = str(options.config.absolute())
    if options.data_dir is not None:
        environment["T4DM_DATA_DIR"] = str(options.data_dir.absolute())
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-m", "celery", "-A", "ww_workers", *arguments]
    os.execve(sys.executable, command, environment)  # noqa: S606 - no shell, the interpreter itself
