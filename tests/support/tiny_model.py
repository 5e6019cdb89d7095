"""Tiny models that tests of the encoder make on the spot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ww_core.embedding.source import locate

TinyModel = Callable[..., Path]


@pytest.fixture
def tiny_model(tmp_path: Path) -> TinyModel:
    """Makes a BERT of two small layers with random weights; ``config`` and ``files`` replace what is written."""

    def make(*, pooling: str = "mean", config: dict[str, object] | None = None, **files: object) -> Path:
        from safetensors.numpy import save_file

        directory = tmp_path / f"tiny-{len(list(tmp_path.iterdir()))}"
        directory.mkdir()
        default = locate("all-MiniLM-L6-v2").directory
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "modules.json"):
            shutil.copyfile(default / name, directory / name)
        (directory / "1_Pooling").mkdir()
        flag = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
        written: dict[str, object] = {
            "config.json": {
                "architectures": ["BertModel"],
                "model_type": "bert",
                "hidden_act": "gelu",
                "hidden_size": 32,
                "intermediate_size": 64,
                "layer_norm_eps": 1e-12,
                "max_position_embeddings": 64,
                "num_attention_heads": 2,
                "num_hidden_layers": 2,
                "pad_token_id": 0,
                "type_vocab_size": 2,
                "vocab_size": 30522,
            }
            | (config or {}),
            "1_Pooling/config.json": {"word_embedding_dimension": 32}
            | {key: name == pooling for name, key in flag.items()},
            "sentence_bert_config.json": {"max_seq_length": 32, "do_lower_case": False},
        } | files
        for name, content in written.items():
            (directory / name).write_text(json.dumps(content))
        save_file(_weights(hidden=32, wide=64, layers=2), directory / "model.safetensors")
        return directory

    return make


def _weights(*, hidden: int, wide: int, layers: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)

    def draw(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.2).astype(np.float32)

    named = {
        "embeddings.word_embeddings.weight": draw(30522, hidden),
        "embeddings.position_embeddings.weight": draw(64, hidden),
        "embeddings.token_type_embeddings.weight": draw(2, hidden),
        "embeddings.LayerNorm.weight": 1 + draw(hidden),
        "embeddings.LayerNorm.bias": draw(hidden),
        "pooler.dense.weight": draw(hidden, hidden),
        "pooler.dense.bias": draw(hidden),
    }
    for layer in range(layers):
        shapes = {
            "attention.self.query": (hidden, hidden),
            "attention.self.key": (hidden, hidden),
            "attention.self.value": (hidden, hidden),
            "attention.output.dense": (hidden, hidden),
            "attention.output.LayerNorm": (hidden,),
            "intermediate.dense": (wide, hidden),
            "output.dense": (hidden, wide),
            "output.LayerNorm": (hidden,),
        }
        for name, shape in shapes.items():
            named[f"encoder.layer.{layer}.{name}.weight"] = draw(*shape) + (len(shape) == 1)
            named[f"encoder.layer.{layer}.{name}.bias"] = draw(shape[0])
    return {name: array.astype(np.float32) for name, array in named.items()}
