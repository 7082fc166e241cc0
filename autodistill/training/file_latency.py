"""Latency of ONNX files by the one protocol: all of them in interleaved rounds, under the machine's lease.

The file is what ships, so this is the figure to quote; the search's own latency may be of another runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from autodistill.errors import ResourceError
from autodistill.records import LatencyTarget
from autodistill.training import latency, lease
from autodistill.training.latency_sources import latency_of_file
from autodistill.training.runtimes import Run, threads


def file_latencies(
    files: Sequence[tuple[Path, int, int]], target: LatencyTarget
) -> list[latency.Latency] | list[float] | None:
    """Latency of ONNX files on a target.

    Args:
        files: path, pixels per side and channels of each.
        target: batch, threads and device; its command measures in place of this machine where it has one.

    Returns:
        Milliseconds per batch, in the order of the files; ``None`` for a target that is a table.

    Raises:
        ResourceError: onnxruntime, or its CUDA provider, is not installed.
        UserCodeError: the target's command fails.
    """
    if target.table is not None:
        return None
    if target.command is not None:
        return [latency_of_file(target, path) for path, _, _ in files]
    runs = [file_run(path, target, image_size=size, channels=channels) for path, size, channels in files]
    with lease.quiet(), threads(target.threads):
        return latency.measure_runs(runs) if runs else []
