"""``ww up`` and ``ww flower``: the whole system on this machine, and its monitor."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from ww.cli.background import run_celery
from ww.cli.opening import settings_of
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, harmless, note
from ww.cli.signals import INTERRUPTED
from ww_core.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import Console

    from ww_workers.supervisor import Supervisor
    from ww_workers.system import Plan

TASK_COLUMNS = "name,state,kwargs,result,runtime,received,worker,uuid"
"""What Flower shows of a task. Our tasks have no positional arguments, and none shows a text."""

HIGHEST_PORT = 65_535


def register(app: typer.Typer) -> None:
    """Add the commands."""
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command()(everywhere(up))
    app.command(context_settings=passed_on)(everywhere(flower))


def up(
    ctx: typer.Context,
    pools: str = typer.Option("cpu,query,consolidate,maintain", "--pools", help="Worker pools, with commas."),
    beat: bool = typer.Option(True, "--beat/--no-beat", help="Run the schedule."),
    flower: bool = typer.Option(True, "--flower/--no-flower", help="Run the monitor."),
    flower_port: int = typer.Option(
        5555, "--flower-port", min=1, max=HIGHEST_PORT, help="Where it listens (another where that is taken)."
    ),
    redis_port: int = typer.Option(
        0, "--redis-port", min=0, max=HIGHEST_PORT, help="Of the redis-server it starts; 0: 6379 or a free one."
    ),
) -> None:
    """Run the whole system on this machine: broker, workers, beat and Flower, with one log. Ctrl-C ends it."""
    from ww.cli.background import POOLS
    from ww_workers import system
    from ww_workers.supervisor import Supervisor

    names = [name.strip() for name in pools.split(",") if name.strip()]
    for name in names:
        if name not in POOLS or name == "all":
            known = ", ".join(pool for pool in POOLS if pool != "all")
            raise InvalidInput(f"pool {name!r} is unknown", hint=f"use one or more of {known}")
    options = globals_of(ctx)
    settings = settings_of(options)
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    plan = system.plan(
        settings,
        config=options.config,
        pools=names,
        beat=beat,
        flower_port=flower_port if flower else None,
        redis_port=redis_port or None,
    )
    with system.alone(settings.data_dir) as lock:
        ended_by = _run(ctx, plan, Supervisor(plan.programs, _log, held=[lock]))
    if ended_by == signal.SIGINT:
        raise typer.Exit(INTERRUPTED)


def _run(ctx: typer.Context, plan: Plan, supervisor: Supervisor) -> int:
    """Run it all until a signal comes; which."""
    from ww_workers.system import await_broker

    came: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        supervisor.request_stop()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, end) for number in numbers}
    try:
        if plan.own_redis:
            supervisor.start(plan.broker)
        if await_broker(plan.redis_url, should_stop=lambda: bool(came)):
            supervisor.start()
            _announce(ctx, plan)
            supervisor.watch()
    finally:
        with suppress(OSError):  # the terminal may be gone
            note("stopping: what is in flight is finished or handed back")
        supervisor.stop()
        for number, handler in previous.items():
            signal.signal(number, handler)
    return came[0] if came else 0


def _announce(ctx: typer.Context, plan: Plan) -> None:
    from ww_core.masking import mask

    url = mask(plan.redis_url)
    flower = None if plan.flower_port is None else f"http://127.0.0.1:{plan.flower_port}"

    def show(console: Console) -> None:
        console.print(f"broker   {url}    (applications: export T4DM_REDIS_URL={url})")
        console.print(f"workers  {', '.join(plan.pools)}")
        if flower:
            console.print(f"flower   {flower}")
        console.print("Ctrl-C ends it")

    emit(globals_of(ctx).json, lambda: {"redis_url": url, "flower": flower, "pools": list(plan.pools)}, show)


def _log(name: str, line: str) -> None:
    with suppress(OSError):  # the terminal may be gone, and a child whose lines nobody reads would stand still
        sys.stderr.write(f"{name:<12} {harmless(line)}\n")
        sys.stderr.flush()


def flower(
    ctx: typer.Context,
    port: int = typer.Option(5555, "--port", min=1, max=HIGHEST_PORT, help="Where it listens."),
    address: str = typer.Option("127.0.0.1", "--address", help="On which address; its /metrics page is open to all."),
) -> None:
    """Watch workers and tasks in a browser: Flower, on loopback. Options after these go to Flower."""
    options = globals_of(ctx)
    settings = settings_of(options)
    _can_listen(address, port)
    environment = {"FLOWER_UNAUTHENTICATED_API": "false"}
    secret = settings.flower_basic_auth.get_secret_value() if settings.flower_basic_auth else ""
    if secret:
        # by the environment: arguments are shown by every process list
        environment["FLOWER_BASIC_AUTH"] = secret
    elif address not in ("127.0.0.1", "localhost", "::1"):
        note(f"Flower listens on {address} without a password; set flower_basic_auth to user:password")
    arguments = ["flower", f"--address={address}", f"--port={port}", "--enable_events", "--max_tasks=10000"]
    arguments.append(f"--tasks_columns={TASK_COLUMNS}")
    run_celery(options, [*arguments, *ctx.args], {**os.environ, **environment})


def _can_listen(address: str, port: int) -> None:
    """Raise ConfigurationError where Flower could not: it would say so with a traceback."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(place)
    except OSError as error:
        raise ConfigurationError(
            f"Flower cannot listen on {address}, port {port}: {error.strerror or error}",
            hint="choose another --port, or an --address of this machine",
        ) from error
