"""Write docs/reference.md from the code: ``python -m tests.support.reference``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import ww
import ww.errors
from tests.processes import ROOT
from ww import hooks, memory
from ww.cli.app import command
from ww.embedding import get_embedding_service
from ww.memory.episodic import EpisodicMemory
from ww.observability import get_metrics
from ww_core.config import Settings
from ww_core.config.errors import allowed
from ww_core.config.template import GROUPS, default
from ww_core.hooks import POINTS
from ww_workers import tasks
from ww_workers.app import app

PAGE = ROOT / "docs" / "reference.md"
HEADER = """# Reference

Everything public, made from the code by `python -m tests.support.reference`; a test compares.
"""


def reference() -> str:
    """The whole page."""
    parts = [HEADER, *_python(), *_cli(), *_tasks(), *_settings()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _python() -> Iterator[str]:
    yield "## Python\n"
    yield f"`from ww import …`: {', '.join(f'`{name}`' for name in ww.__all__)}.\n"
    yield "### Functions of `ww.memory`\n"
    yield (
        "Coroutines on the default settings. `ww.memory.sync` has the same names without `await`. An `EpisodicMemory` "
        "has them as methods, and as blocking ones under `.sync`.\n"
    )
    for name in memory.__all__:
        yield from _function(f"memory.{name}", getattr(EpisodicMemory, name))
    yield "### `EpisodicMemory`\n"
    yield f"`from ww.memory.episodic import EpisodicMemory`: `EpisodicMemory{_signature(EpisodicMemory)}`\n"
    yield _text(EpisodicMemory) + "\n"
    for name in ("close", "aclose"):
        yield from _function(f"EpisodicMemory.{name}", getattr(EpisodicMemory, name))
    yield "### Results\n"
    yield "Frozen dataclasses. Times are UTC and aware.\n"
    for name in ww.__all__:
        kind = getattr(ww, name)
        if inspect.isclass(kind) and is_dataclass(kind):
            yield f"- **{name}** ({', '.join(f'`{field.name}`' for field in fields(kind))}): {_first(kind)}"
    yield "\n### Errors\n"
    yield "In `ww.errors`; each has `.message` and `.hint`.\n"
    for name in ww.errors.__all__:
        kind = getattr(ww.errors, name)
        bases = ", ".join(base.__name__ for base in kind.__bases__)
        yield f"- **{name}** ({bases}): {_first(kind)}"
    yield "\n### Hooks\n"
    yield "`from ww import hooks`; each is a decorator, bare or with `priority=0, timeout=1.0` (seconds).\n"
    for point in POINTS:
        yield f"- `@hooks.{point}`: {_first(getattr(hooks, point))}"
    yield "\n### Embedding and figures\n"
    for label, function in (
        ("ww.embedding.get_embedding_service", get_embedding_service),
        ("ww.observability.get_metrics", get_metrics),
    ):
        yield from _function(label, function)


def _function(label: str, function: Callable[..., Any]) -> Iterator[str]:
    signature = inspect.signature(function)
    kept = [parameter for name, parameter in signature.parameters.items() if name != "self"]
    yield f"#### `{label}`\n"
    yield f"```text\n{label.rpartition('.')[2]}{_shown(signature.replace(parameters=kept))}\n```\n"
    yield _text(function) + "\n"


def _signature(kind: type) -> str:
    signature = inspect.signature(kind)
    return _shown(signature)


def _shown(signature: inspect.Signature) -> str:
    text = re.sub("['\"]", "", str(signature))
    return re.sub(r"\b(?:ww_core|ww|datetime|collections|typing)\.(?:\w+\.)*(?=[A-Z]|datetime)", "", text)


def _text(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").replace("``", "`")


def _first(thing: Any) -> str:
    return " ".join(_text(thing).split("\n\n")[0].split())


def _cli() -> Iterator[str]:
    root = command()
    yield "## Command line\n"
    yield "`ww COMMAND`. These go before or after the command:\n"
    everywhere = {_plain(parameter.name) for parameter in _options(root)}
    yield from _options_table(_options(root))
    yield "\nExit codes: 0 done, 1 the answer is no, 2 the command line or a setting is wrong, 3 a store, the"
    yield "broker or the model cannot be used, 130 interrupted.\n"
    for name, one in sorted(root.commands.items()):
        yield from _command(f"ww {name}", one, everywhere)


def _command(name: str, one: Any, everywhere: set[str]) -> Iterator[str]:
    context = command().make_context("ww", [], resilient_parsing=True)
    usage = one.collect_usage_pieces(type(context)(one, info_name=name))
    yield f"### `{name}`\n"
    yield " ".join((one.help or "").split()) + "\n"
    subcommands = getattr(one, "commands", {})
    if not subcommands:
        yield f"```text\n{' '.join([name, *usage])}\n```\n"
    own = [parameter for parameter in _options(one) if _plain(parameter.name) not in everywhere]
    yield from _options_table(own)
    yield ""
    for sub, inner in subcommands.items():
        yield from _command(f"{name} {sub}", inner, everywhere)


def _plain(name: str) -> str:
    return name.removeprefix("everywhere_")


def _options(one: Any) -> list[Any]:
    found = [parameter for parameter in one.params if parameter.param_type_name == "option"]
    return [p for p in found if p.name != "help" and "--version" not in p.opts] if one.name == "ww" else found


def _options_table(options: list[Any]) -> Iterator[str]:
    rows = [option for option in options if option.name != "help"]
    if not rows:
        return
    yield "| option | what |\n|---|---|"
    for option in rows:
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        yield f"| {names} | {_cell(option.help or '')} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _tasks() -> Iterator[str]:
    yield "\n## Tasks\n"
    yield 'Celery tasks, sent by name with `queue="ww"` to the Redis of the workers, or imported from'
    yield "`ww_workers.tasks`. Results are kept for `result_expires` seconds.\n"
    yield "| task | arguments | result | what |\n|---|---|---|---|"
    for name in sorted(n for n in app.tasks if n.startswith("ww.")):
        task = app.tasks[name]
        taken = [p for p in inspect.signature(task.run).parameters if p not in ("self", "run_id")]
        listed = ", ".join(f"`{p}`" for p in taken) or ""
        listed = "`content` and the keywords of `memory.store`" if name == "ww.store" else listed
        kept = "ignored" if task.ignore_result else _RESULTS[name]
        yield f"| `{name}` | {listed} | {kept} | {_cell(_first(task.run))} |"
    assert {f"ww.{name}" for name in tasks.__all__} <= set(app.tasks)


_RESULTS = {
    "ww.store": "the receipt: `episode_id`, `state`, `duplicate`",
    "ww.embed_query": "the vector, a list of numbers",
    "ww.consolidate": "the run, as `ww consolidate --json` prints it",
    "ww.verify": "as `ww verify --json` prints it",
}


def _settings() -> Iterator[str]:
    yield "\n## Settings\n"
    yield "In t4dm.yaml by these names, in the environment as `T4DM_` and the name in capitals, and as keywords of"
    yield "`Settings` and `EpisodicMemory`. The file [t4dm.yaml](../t4dm.yaml) says besides what the presets change."
    for key, field in Settings.model_fields.items():
        if key == "data_dir" or key in GROUPS:
            yield f"\n### {GROUPS[key]}\n"
            yield "| setting | takes | default | what |\n|---|---|---|---|"
        takes, what = _cell(allowed(field).removesuffix(" or null")), _cell(field.description or "")
        yield f"| `{key}` | {takes} | {_default(default(key))} | {what} |"


def _default(value: Any) -> str:
    if value is None or value == ():
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
