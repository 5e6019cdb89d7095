"""The fast way to run a BERT model on a CPU: ONNX Runtime at full precision, without loading torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ww_core.embedding.bert import BertWeights
from ww_core.embedding.onnx_graph import POOLED, STATES, BertGraph
from ww_core.embedding.paths import usable_cores
from ww_core.embedding.source import ModelSource
from ww_core.embedding.tokens import Batch
from ww_core.models import Vector

_ERRORS_ONLY = 3  # onnxruntime's log severity; what it warns of is its own business


class OnnxBackend:
    """An ONNX Runtime session over the model's own float32 weights."""

    name = "onnx"
    device = "cpu"

    def __init__(self, session: Any) -> None:
        self._session = session

    @classmethod
    def load(cls, source: ModelSource, *, threads: int | None) -> OnnxBackend:
        """Raises UnsupportedModel: see BertWeights."""
        import onnxruntime

        graph = BertGraph(BertWeights.read(source))
        model = graph.build().SerializeToString()
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # A plan for every shape ever seen is kept otherwise: memory would grow with every new batch shape.
        options.enable_mem_pattern = False
        # Threads that spin between two operators take the core from whoever writes the last batch to the stores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        names = list(graph.weights)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(graph.weights[name]) for name in names]
        options.add_external_initializers(names, values)
        return cls(onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]))

    def run(self, batches: Iterable[Batch]) -> Iterator[Vector]:
        for batch in batches:
            yield self._session.run([POOLED], {"ids": batch.ids, "mask": batch.mask})[0]

    def pooled_and_states(self, batch: Batch) -> tuple[Vector, NDArray[np.float32]]:
        pooled, states = self._session.run([POOLED, STATES], {"ids": batch.ids, "mask": batch.mask})
        return pooled, states


__all__ = ["OnnxBackend"]
