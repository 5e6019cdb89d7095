"""The weights of a BERT encoder by name, for the paths that run one without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ww_core.embedding.source import ModelSource
from ww_core.models import Vector


class UnsupportedModel(ValueError):
    """Not an encoder this path can run; the reference path runs it."""


class BertWeights:
    """A BERT encoder's configuration and arrays, and how its states are pooled (``mean`` or ``cls``).

    Raises UnsupportedModel for another architecture.
    """

    def __init__(self, config: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], pooling: str) -> None:
        _check(config, pooling)
        self._arrays = arrays
        self._prefix = "bert." if any(name.startswith("bert.") for name in arrays) else ""
        self.pooling = pooling
        self.hidden = int(config["hidden_size"])
        self.heads = int(config["num_attention_heads"])
        self.epsilon = float(config["layer_norm_eps"])
        self.layers = [f"encoder.layer.{layer}." for layer in range(int(config["num_hidden_layers"]))]
        """What the names of each layer's weights begin with."""

    @classmethod
    def read(cls, source: ModelSource) -> BertWeights:
        """Raises UnsupportedModel where the architecture or the pipeline is another, or no safetensors are there."""
        if not source.plain:
            raise UnsupportedModel("the pipeline is more than a transformer with one pooling")
        config = json.loads((source.transformer / "config.json").read_text(encoding="utf-8"))
        return cls(config, _arrays(source), source.pooling)

    def get(self, name: str) -> Vector:
        """float32 of the shape it was saved with. Raises UnsupportedModel where it is missing."""
        try:
            return np.asarray(self._arrays[self._prefix + name], dtype=np.float32)
        except KeyError as error:
            raise UnsupportedModel(f"the weights hold no {name}") from error

    def places(self) -> Vector:
        """(positions, h): the positions' vectors with that of the token type, which a single text never changes."""
        types = self.get("embeddings.token_type_embeddings.weight")
        places: Vector = self.get("embeddings.position_embeddings.weight") + types[0]
        return places

    def linear(self, name: str) -> tuple[Vector, Vector]:
        """Weights (in, out) and bias (out,), so that the layer is ``x @ weights + bias``.

        Those of the queries hold the scaling of the attention's scores.
        """
        scale = np.float32((self.hidden // self.heads) ** -0.5 if name.endswith("query") else 1.0)
        return self.get(name + ".weight").T * scale, self.get(name + ".bias") * scale


def _arrays(source: ModelSource) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = source.transformer / "model.safetensors"
    if not file.exists():
        raise UnsupportedModel("there is no model.safetensors")
    try:
        return load_file(file)
    except (SafetensorError, TypeError, KeyError) as error:  # bfloat16 weights, which numpy does not know
        raise UnsupportedModel(f"numpy cannot read the weights: {error}") from error


def _check(config: Mapping[str, Any], pooling: str) -> None:
    wanted = {
        "model_type": (config.get("model_type"), ("bert",)),
        "hidden_act": (config.get("hidden_act"), ("gelu",)),
        "position_embedding_type": (config.get("position_embedding_type", "absolute"), ("absolute",)),
        "pooling": (pooling, ("mean", "cls")),
    }
    for name, (value, known) in wanted.items():
        if value not in known:
            raise UnsupportedModel(f"{name} is {value!r}, not one of {', '.join(known)}")


__all__ = ["BertWeights", "UnsupportedModel"]
