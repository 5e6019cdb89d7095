"""The reference way to run a model: sentence-transformers on torch, on any device it knows."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ww_core.embedding.backends import domain_error
from ww_core.embedding.cuda import AHEAD, Fetched, Passes
from ww_core.embedding.source import ModelSource
from ww_core.embedding.tokens import Batch
from ww_core.errors import ConfigurationError, ModelUnavailable
from ww_core.models import Vector

_load_lock = threading.Lock()
_single_threaded = False  # whether this is a forked child whose OpenMP threads stayed with the parent


def pick_device(wanted: str) -> str:
    """``wanted``, or for ``auto`` the best device there is. Raises ConfigurationError for one that is not there."""
    if wanted == "cpu" or (wanted == "auto" and not _may_have_accelerator()):
        return "cpu"
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[wanted]:
        raise ConfigurationError(
            f"embedding_device is {wanted}, but torch finds no such device",
            hint="set embedding_device: auto, or install a torch build for it",
        )
    return wanted


def _may_have_accelerator() -> bool:
    """Whether asking torch is worth the seconds that importing it takes."""
    if sys.platform != "linux":
        return True
    if os.environ.get("CUDA_VISIBLE_DEVICES", "unset").strip() in ("", "-1"):
        return False
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-ctrl", "/dev/kfd"))


class TorchBackend:
    """A SentenceTransformer whose forward pass is fed ready-made word pieces."""

    BF16 = "torch-bf16"

    def __init__(self, model: Any, device: str, *, bf16: bool = False) -> None:
        self._model = model
        self._bf16 = bf16
        self.device = device
        self._passes = Passes(self._pooled, device) if device == "cuda" else None
        self.name = self.BF16 if bf16 else "torch"

    @classmethod
    def load(cls, source: ModelSource, *, device: str, fp16: bool, threads: int | None) -> TorchBackend:
        """Load from the model's directory only. Raises ModelUnavailable; OutOfMemory is the caller's to tell."""
        import torch
        from sentence_transformers import SentenceTransformer

        if device == "cuda" and torch.cuda._is_in_bad_fork():
            raise ModelUnavailable(
                "CUDA cannot be used in a forked process whose parent used it",
                hint="start the process with spawn (worker_pool_start_method)",
            )
        with _load_lock:
            if _single_threaded:
                threads = 1
            if threads is not None:
                torch.set_num_threads(threads)
            progress: Any = import_module("transformers.utils.logging")
            progress.disable_progress_bar()  # it would write to the stderr of a command that prints JSON
            try:
                model = SentenceTransformer(str(source.directory), device=device, local_files_only=True)
            except Exception as error:
                # What the libraries raise for a broken file has no common base.
                raise domain_error(error, device) or ModelUnavailable(
                    f"model in {source.directory} cannot be loaded: {type(error).__name__}: {error}",
                    hint="embedding_model must be a directory that sentence-transformers can load",
                ) from error
        model.eval()
        return cls(model.half() if fp16 else model, device)

    def with_bf16(self) -> TorchBackend:
        """The same weights, run under bfloat16 autocast."""
        return TorchBackend(self._model, self.device, bf16=True)

    @property
    def model(self) -> Any:
        """The SentenceTransformer itself."""
        return self._model

    def run(self, batches: Iterable[Batch]) -> Iterator[Vector]:
        if self._passes is None:
            yield from (_numpy(self._on_device(batch)["sentence_embedding"]) for batch in batches)
            return
        under_way: deque[Fetched] = deque()
        for batch in batches:
            under_way.append(self._passes.run(batch))
            if len(under_way) > AHEAD:
                yield under_way.popleft().rows()
        while under_way:
            yield under_way.popleft().rows()

    def pooled_and_states(self, batch: Batch) -> tuple[Vector, NDArray[np.float32]]:
        made = self._on_device(batch)
        return _numpy(made["sentence_embedding"]), _numpy(made["token_embeddings"])

    def _on_device(self, batch: Batch) -> Any:
        import torch

        return self._forward(torch.from_numpy(batch.ids).to(self.device), torch.from_numpy(batch.mask).to(self.device))

    def _pooled(self, ids: Any, mask: Any) -> Any:
        return self._forward(ids, mask)["sentence_embedding"]

    def _forward(self, ids: Any, mask: Any) -> Any:
        import torch

        precision = torch.autocast(self.device, dtype=torch.bfloat16) if self._bf16 else nullcontext()
        with torch.inference_mode(), precision:
            return self._model({"input_ids": ids, "attention_mask": mask})


def single_threaded_after_fork() -> None:
    """Make torch safe in a forked child: its OpenMP threads stayed with the parent, and waiting for them hangs."""
    global _single_threaded
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch = sys.modules.get("torch")
    if torch is not None:
        _single_threaded = True
        torch.set_num_threads(1)


def _numpy(tensor: Any) -> Vector:
    result: Vector = tensor.float().cpu().numpy()
    return result


__all__ = ["TorchBackend", "pick_device", "single_threaded_after_fork"]
