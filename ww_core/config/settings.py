"""The settings in force: read from every source, checked, immutable, each with the place its value came from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from ww_core.config.checks import check_together, warn_of_sizes
from ww_core.config.errors import configuration_error, is_secret
from ww_core.config.fields import SCHEMES, Fields
from ww_core.config.layers import Layer, collect, resolve
from ww_core.masking import MASK, mask


class Settings(Fields):
    """All settings, immutable and hashable. A key nobody knows is an error that names the nearest known one.

    ``Settings(key=value, ...)`` reads every source, as ``Settings.load`` does; keywords are the strongest.
    Raises ConfigurationError, which names the key, its value, its range and its place.
    """

    _layers: tuple[Layer, ...] = PrivateAttr(default=())
    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    def __init__(self, *, _layers: Sequence[Layer] | None = None, **overrides: Any) -> None:
        fields = type(self).model_fields
        layers = _layers
        if layers is None:
            layers = collect(config=None, overrides=overrides, origin="keyword", environ=os.environ, known=fields)
        entries = resolve(layers)
        try:
            super().__init__(**{key: entry.value for key, entry in entries.items()})
        except ValidationError as error:
            raise configuration_error(error, entries, fields) from None
        self._layers = tuple(layers)
        self._sources = {key: entries[key].where if key in entries else "default" for key in fields}
        check_together(self, self._sources)
        warn_of_sizes(self, self._sources)

    @classmethod
    def load(cls, *, config: Path | None = None, origin: str = "keyword", **overrides: Any) -> Settings:
        """Read every source. ``config``: the settings file; ``origin``: how ``sources`` names the keywords."""
        fields = cls.model_fields
        return cls(_layers=collect(config=config, overrides=overrides, origin=origin, environ=os.environ, known=fields))

    def replace(self, **overrides: Any) -> Settings:
        """These settings with some keys changed; the sources that made them are not read again."""
        keywords = collect(
            config=None, overrides=overrides, origin="keyword", environ={}, known=type(self).model_fields
        )
        return type(self)(_layers=(keywords[0], *self._layers))

    def sources(self) -> Mapping[str, str]:
        """Where each value came from: ``keyword``, a variable, ``FILE:LINE``, ``preset NAME`` or ``default``."""
        return dict(self._sources)

    def shown(self) -> dict[str, Any]:
        """Every value as JSON, fit to be printed: secrets hidden, URLs without their passwords."""
        values: dict[str, Any] = self.model_dump(mode="json")
        for key, field in type(self).model_fields.items():
            value = getattr(self, key)
            if is_secret(field) and value is not None:
                values[key] = mask(value.get_secret_value()) if key in SCHEMES else MASK
        return values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """One source: the layers are merged before, because each value must know its place."""
        return (init_settings,)
