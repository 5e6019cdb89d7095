"""Say in one line what is wrong with a setting: its name, value, range and place."""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from ww_core.config.layers import Entry
from ww_core.errors import ConfigurationError
from ww_core.masking import MASK, mask

MAX_SHOWN_CHARS = 80


def allowed(field: FieldInfo) -> str:
    """The values a setting takes, in words.

    >>> from pydantic import Field
    >>> allowed(FieldInfo.from_annotated_attribute(int, Field(1, ge=1, le=9)))
    'a whole number from 1 to 9'
    """
    return _allowed(field.annotation, field.metadata)


def _allowed(annotation: Any, metadata: list[Any]) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extra = get_args(annotation)
        flat = [item for found in extra for item in (found.metadata if isinstance(found, FieldInfo) else [found])]
        return _allowed(inner, [*metadata, *flat])
    if origin in (Union, types.UnionType):
        return " or ".join(_allowed(part, metadata) for part in get_args(annotation))
    if origin is Literal:
        choices = [str(choice) for choice in get_args(annotation)]
        return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"
    if annotation is bool:
        return "true or false"
    if annotation is int:
        return "a whole number" + _bounds(metadata)
    if annotation is float:
        return "a number" + _bounds(metadata)
    if annotation is type(None):
        return "null"
    if annotation is Path:
        return "a path"
    if origin is tuple:
        return "a list of names"
    pattern = next((item.pattern for item in metadata if getattr(item, "pattern", None)), None)
    return f"text like {pattern}" if pattern else "text"


def _bounds(metadata: list[Any]) -> str:
    low = next((item.ge for item in metadata if getattr(item, "ge", None) is not None), None)
    above = next((item.gt for item in metadata if getattr(item, "gt", None) is not None), None)
    high = next((item.le for item in metadata if getattr(item, "le", None) is not None), None)
    if low is not None:
        return f" from {low} to {high}" if high is not None else f" of at least {low}"
    if above is not None:
        return f" above {above}" + (f" and at most {high}" if high is not None else "")
    return f" of at most {high}" if high is not None else ""


def is_secret(field: FieldInfo) -> bool:
    """Whether the setting's value must never be shown as it is."""
    return field.annotation is SecretStr or SecretStr in get_args(field.annotation)


def shown(value: Any, field: FieldInfo) -> str:
    """A value for people: secrets and passwords hidden, at most 80 characters."""
    if isinstance(value, SecretStr) or is_secret(field):
        return MASK
    text = mask(repr(value))
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"


def configuration_error(
    error: ValidationError, entries: Mapping[str, Entry], fields: Mapping[str, FieldInfo]
) -> ConfigurationError:
    """Translate pydantic's error: every bad key once, with value, range and place."""
    lines: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        key = str(detail["loc"][0]) if detail["loc"] else ""
        field, entry = fields.get(key), entries.get(key)
        if field is None or key in lines or detail["type"] == "default_factory_not_called":
            continue  # the last: a default that follows from another key, which has its own line
        where = entry.where if entry else "default"
        value = shown(entry.value if entry else detail["input"], field)
        if detail["type"] == "value_error":
            wanted = str(detail.get("ctx", {}).get("error", "")) or allowed(field)
        else:
            wanted = f"must be {allowed(field)}"
        lines[key] = f"{key} = {value} ({where}): {wanted}"
    return ConfigurationError("; ".join(lines.values()) or "the settings do not fit together")
