"""compose/docker-compose.yml as Compose reads it: variables filled in, and the shape its specification asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.processes import ROOT

PATH = ROOT / "compose" / "docker-compose.yml"
VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?:(?P<how>:-|:\?)(?P<rest>[^}]*))?\})")

_TEXT = {"type": "string", "minLength": 1}
_DURATION = {"type": "string", "pattern": r"^(\d+(h|m|s|ms|us))+$"}
_WORDS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_COMMAND = {"anyOf": [_TEXT, _WORDS]}
_SCALAR = {"type": ["string", "number", "boolean", "null"]}
_MAP = {"type": "object", "additionalProperties": _SCALAR}


def _object(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
        "required": list(required),
    }


_HEALTH = _object(
    {
        "test": {
            "anyOf": [
                _TEXT,
                {
                    "type": "array",
                    "prefixItems": [{"enum": ["CMD", "CMD-SHELL", "NONE"]}],
                    "items": _TEXT,
                    "minItems": 1,
                },
            ]
        },
        **dict.fromkeys(("interval", "timeout", "start_period", "start_interval"), _DURATION),
        "retries": {"type": "integer", "minimum": 1},
        "disable": {"type": "boolean"},
    }
)
_DEVICE = _object({"driver": _TEXT, "count": {"type": ["integer", "string"]}, "capabilities": _WORDS}, "capabilities")
_DEPLOY = _object(
    {"resources": _object({"reservations": _object({"devices": {"type": "array", "items": _DEVICE}})})},
)
_DEPENDS = {
    "type": "object",
    "additionalProperties": _object(
        {"condition": {"enum": ["service_started", "service_healthy", "service_completed_successfully"]}}, "condition"
    ),
}
_SERVICE = _object(
    {
        "image": _TEXT,
        "build": _object({"context": _TEXT, "dockerfile": _TEXT, "args": _MAP, "target": _TEXT}, "context"),
        "command": _COMMAND,
        "entrypoint": _COMMAND,
        "environment": _MAP,
        "healthcheck": _HEALTH,
        "restart": {"type": "string", "pattern": r"^(no|always|unless-stopped|on-failure(:\d+)?)$"},
        "init": {"type": "boolean"},
        "profiles": {"type": "array", "items": {"type": "string", "pattern": "^[a-zA-Z0-9][a-zA-Z0-9_.-]+$"}},
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^([\d.]+:)?\d+(-\d+)?:\d+(-\d+)?(/\w+)?$"}},
        "volumes": {"type": "array", "items": {"type": "string", "pattern": r"^[^:]+:/[^:]*(:(ro|rw))?$"}},
        "networks": _WORDS,
        "depends_on": _DEPENDS,
        "deploy": _DEPLOY,
        "stop_grace_period": _DURATION,
        "user": _TEXT,
        "tmpfs": _WORDS,
        "read_only": {"type": "boolean"},
    }
)
SCHEMA: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **_object(
        {
            "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
            "services": {
                "type": "object",
                "patternProperties": {"^[a-zA-Z0-9._-]+$": _SERVICE},
                "additionalProperties": False,
            },
            "volumes": {"type": "object", "additionalProperties": _object({"driver": _TEXT, "name": _TEXT})},
            "networks": {
                "type": "object",
                "additionalProperties": _object({"driver": _TEXT, "internal": {"type": "boolean"}}),
            },
        },
        "services",
    ),
}
"""The parts of the specification that this project uses, strictly: a key that is not here is a mistake, or a reason to
look it up and add it."""


def load(variables: Mapping[str, str], path: Path = PATH) -> dict[str, Any]:
    """The file with its anchors merged and its variables filled in; KeyError where one is required and absent."""
    found: dict[str, Any] = _filled(yaml.safe_load(path.read_text("utf-8")), variables)
    return found


def variables_of(path: Path) -> dict[str, str]:
    """What a file like .env.example sets."""
    lines = [line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def required(path: Path = PATH) -> set[str]:
    """The variables without which Compose refuses the file."""
    return {match["name"] for match in VARIABLE.finditer(path.read_text("utf-8")) if match["how"] == ":?"}


def seconds(duration: str) -> float:
    """Of a duration such as ``1m30s``."""
    unit = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
    return sum(int(number) * unit[name] for number, name in re.findall(r"(\d+)(ms|us|h|m|s)", duration))


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, variables) for item in value]
    return VARIABLE.sub(lambda match: _replacement(match, variables), value) if isinstance(value, str) else value


def _replacement(match: re.Match[str], variables: Mapping[str, str]) -> str:
    if match["dollar"]:
        return "$"
    given = variables.get(match["name"], "")
    if given or match["how"] is None:
        return given
    if match["how"] == ":?":
        raise KeyError(f"{match['name']}: {match['rest']}")
    return match["rest"]
