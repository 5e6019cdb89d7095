"""An episode's trace leads from its store through the task to the upsert, and costs nothing where it is off."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.documentation import blocks, write_files
from tests.processes import ROOT, run_python
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.observability.tracing import STORE, UPSERT, process_tracing
from ww_workers.jobs import Jobs


class Bells:
    """Nobody listens."""

    def embed(self) -> None:
        return None

    def consolidate(self, run: object) -> None:
        return None


@pytest.fixture
def provider() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    made, exporter = TracerProvider(), InMemorySpanExporter()
    made.add_span_processor(SimpleSpanProcessor(exporter))
    yield made, exporter
    process_tracing().disable()
    made.shutdown()


def test_an_episode_is_traced_from_store_through_the_task_to_the_upsert(
    quick_path: Path, provider: tuple[TracerProvider, InMemorySpanExporter]
) -> None:
    made, exporter = provider
    deployment = Deployment(Settings(data_dir=quick_path))
    process_tracing().enable(1.0, made)
    with made.get_tracer("application").start_as_current_span("request") as request:
        receipt = deployment.ingest.store("The deploy of api-7 failed: out of disk")
    deployment.ingest.store_batch([f"text {i}" for i in range(3)])
    jobs = Jobs(deployment, Bells())
    assert jobs.embed_pending(max_seconds=120).embedded == 4
    spans = exporter.get_finished_spans()
    (task,) = [span for span in spans if span.name == "ww.embed_pending"]
    (stored,) = [s for s in spans if s.name == STORE and s.attributes["ww.episode_id"] == receipt.episode_id]
    (upserted,) = [s for s in spans if s.name == UPSERT and s.attributes["ww.episode_id"] == receipt.episode_id]
    assert stored.context.trace_id == upserted.context.trace_id
    assert [link.context.span_id for link in stored.links] == [request.get_span_context().span_id]
    assert [link.context.span_id for link in upserted.links] == [task.context.span_id]
    assert stored.end_time <= upserted.end_time <= task.end_time
    assert len({span.context.trace_id for span in spans if span.name == STORE}) == 4
    assert not any("disk" in str(value) for span in spans for value in span.attributes.values()), "no text in spans"

    exporter.clear()
    process_tracing().enable(0.0, made)
    deployment.ingest.store("in no sample")
    process_tracing().disable()
    deployment.ingest.store("not traced at all")
    jobs.embed_pending(max_seconds=120)
    assert exporter.get_finished_spans() == ()
    deployment.close()


def test_the_example_of_the_page_traces_an_episode_from_its_store_to_its_upsert(quick_path: Path) -> None:
    page = "docs/operations.md"
    write_files(page, quick_path)
    (example,) = (block.text for block in blocks("python", page=page) if not block.file)
    out = run_python(
        example,
        cwd=quick_path,
        T4DM_DATA_DIR=str(quick_path / "memory"),
        PYTHONPATH=os.pathsep.join([str(quick_path), str(ROOT)]),
        PYTHONWARNINGS="error::RuntimeWarning",
    )
    spans = dict(re.findall(r'"name": "([\w.]+)",\s+"context": \{\s+"trace_id": "(\w+)"', out))
    assert {STORE, UPSERT, "ww.embed_pending"} <= spans.keys()
    assert spans[STORE] == spans[UPSERT] != spans["ww.embed_pending"]
    assert "out of disk" not in out


def test_the_setting_trace_sample_turns_tracing_on(tmp_path: Path) -> None:
    try:
        Deployment(Settings(data_dir=tmp_path))
        assert not process_tracing().on
        Deployment(Settings(data_dir=tmp_path, trace_sample=0.5))
        assert process_tracing().on
    finally:
        process_tracing().disable()
