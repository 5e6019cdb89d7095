"""Where settings come from: keywords, the environment, a YAML file and presets, each key with its place."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ww_core.errors import ConfigurationError
from ww_core.presets import switches

PREFIX = "T4DM_"
FILE_VARIABLE = "T4DM_CONFIG"
FILE_NAME = "t4dm.yaml"


@dataclass(frozen=True, slots=True)
class Entry:
    """A value as it was written, and where: ``keyword``, a variable's name, ``FILE:LINE`` or ``preset NAME``."""

    value: Any = field(repr=False)
    where: str


Layer: TypeAlias = Mapping[str, Entry]


def collect(
    *,
    config: Path | None,
    overrides: Mapping[str, Any],
    origin: str,
    environ: Mapping[str, str],
    known: Collection[str],
) -> tuple[Layer, ...]:
    """Read every source, the strongest first. Raises ConfigurationError on an unknown key or an unreadable file."""
    for key in overrides:
        if key not in known:
            raise unknown_key(key, f"a {origin}", known)
    keywords = {key: Entry(value, origin) for key, value in overrides.items()}
    path = find_file(config, environ)
    return (keywords, read_environment(environ, known), read_file(path, known) if path else {})


def resolve(layers: Sequence[Layer]) -> dict[str, Entry]:
    """The strongest entry of every key that is set anywhere, a preset's switches below all of them."""
    entries: dict[str, Entry] = {}
    for layer in reversed(layers):
        entries.update(layer)
    preset = entries.get("preset")
    if preset is not None and isinstance(preset.value, str):
        given = {key for key, entry in entries.items() if entry.value not in (None, "")}
        for switch in switches(preset.value, given):
            entries.setdefault(switch.key, Entry(switch.value, f"preset {preset.value}"))
    return entries


def unknown_key(key: str, where: str, known: Collection[str]) -> ConfigurationError:
    """The error for a key that no setting has; it suggests the nearest one."""
    near = difflib.get_close_matches(key.lower(), sorted(known), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "`ww config` lists every setting"
    return ConfigurationError(f"unknown setting {key!r} in {where}", hint=hint)


def read_environment(environ: Mapping[str, str], known: Collection[str]) -> Layer:
    """The ``T4DM_*`` variables. An empty one counts as not set, as compose files pass them."""
    layer: dict[str, Entry] = {}
    for name, value in environ.items():
        if not name.upper().startswith(PREFIX) or name.upper() == FILE_VARIABLE or not value.strip():
            continue
        key = name[len(PREFIX) :].lower()
        if key not in known:
            error = unknown_key(key, "the environment", known)
            near = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.5)
            hint = f"did you mean {PREFIX}{near[0].upper()}?" if near else error.hint
            raise ConfigurationError(f"unknown variable {name} in the environment", hint=hint)
        layer[key] = Entry(value.strip(), name)
    return layer


def find_file(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The settings file: the one named, else ``T4DM_CONFIG``, ./t4dm.yaml, the user's config directory, else none."""
    named = [(config, "--config")] if config is not None else []
    if not named and environ.get(FILE_VARIABLE, "").strip():
        named = [(Path(environ[FILE_VARIABLE].strip()), FILE_VARIABLE)]
    for candidate, source in named:
        path = candidate.expanduser()
        if not path.is_file():
            raise ConfigurationError(
                f"no settings file {str(candidate)!r}, named by {source}",
                hint="`ww config --init` writes one",
            )
        return path
    home = Path(environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    for path in (Path(FILE_NAME), home / "world-weaver" / FILE_NAME):
        if path.is_file():
            return path
    return None


def read_file(path: Path, known: Collection[str]) -> Layer:
    """The keys of one YAML file with their lines. Raises ConfigurationError naming file and line."""
    import yaml  # only where there is a file: not every process has one

    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"cannot read settings file {str(path)!r}: {reason}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "not YAML"
        # The problem only: the parser's own text quotes the line, which may hold a password.
        hint = "settings are lines of `key: value`: `ww config --init` writes such a file"
        raise ConfigurationError(f"{place} is not valid YAML: {problem}", hint=hint) from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise ConfigurationError(f"{path}:{root.start_mark.line + 1} is not a list of `key: value` lines")
    layer: dict[str, Entry] = {}
    for key_node, value_node in root.value:
        key, place = str(key_node.value), f"{path}:{key_node.start_mark.line + 1}"
        if key not in known:
            raise unknown_key(key, place, known)
        if key in layer:
            raise ConfigurationError(f"{key} is set twice: {layer[key].where} and {place}", hint="remove one")
        try:
            value = yaml.SafeLoader("").construct_object(value_node, deep=True)
        except yaml.YAMLError:
            raise ConfigurationError(f"{key} has a value that is not plain YAML ({place})") from None
        if key in ("data_dir", "neo4j_ca_certs") and isinstance(value, str) and not value.startswith("~"):
            value = str(path.absolute().parent / value)  # relative to the file, or each directory has its own memory
        layer[key] = Entry(value, place)
    return layer
