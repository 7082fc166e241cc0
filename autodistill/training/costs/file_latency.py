"""Latency of ONNX files by the latency protocol, in interleaved rounds, under the measurement lock.

The file is what is deployed, so this is the latency to quote; the search may measure latency with another runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from autodistill.core.records import LatencyTarget
from autodistill.training.costs import latency_protocol as latency
from autodistill.training.costs.clocks import clock_of
from autodistill.training.costs.latency_targets import latency_of_file
from autodistill.training.deployed.onnx_files import open_session
from autodistill.training.deployed.runtimes import Run, threads
from autodistill.training.runtime import measurement_lock


def file_latencies(files: Sequence[Path], target: LatencyTarget) -> list[float] | None:
    """Measure ONNX files with ONNX Runtime on this CPU, or with the target's command.

    Args:
        files: ONNX files with one input ``(batch, channels, side, side)`` each.
        target: sets batch size and number of threads, or the command.

    Returns:
        Median milliseconds per batch, in the order of the files; ``None`` if the target is a table.

    Raises:
        ResourceError: onnxruntime is not installed.
        UserCodeError: The target's command fails.
    """
    if target.table is not None:
        return None
    if target.command is not None:
        return [latency_of_file(target, path) for path in files]
    runs = [file_run(path, target) for path in files]
    with measurement_lock.exclusive("cpu"):
        return [one.p50_ms for one in timed(runs, target)]


def timed(runs: Sequence[Run], target: LatencyTarget) -> list[latency.Latency]:
    """Measure prepared files in interleaved rounds; the caller must hold the measurement lock."""
    with threads(target.threads):
        return latency.measure_runs(runs, clock=clock_of(replace(target, device="cpu", runtime="onnxruntime")))


def file_run(path: Path, target: LatencyTarget) -> Run:
    """Prepare one inference of a file on a random batch."""
    session = open_session(path, threads=target.threads)
    given = session.get_inputs()[0]
    shape = (target.batch, *given.shape[1:])
    feed = {given.name: np.random.default_rng(0).random(shape, dtype=np.float32)}
    return lambda: session.run(None, feed)


def target_words(target: LatencyTarget) -> str:
    """Return a description of how the latency of files is measured, for display."""
    if target.table is not None:
        return "not measured: the target is a table"
    where = (
        "the study's command" if target.command is not None else f"onnxruntime on this CPU, threads {target.threads}"
    )
    return f"{where}, batch {target.batch}"
