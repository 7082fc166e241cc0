"""Size and latency of exported files: every student, every baseline and the teacher are exported once as ONNX.

A network that cannot be exported has no figure, but stays in the table. The weights change neither size nor latency, as
long as no two tensors are equal (``as_if_trained``), so untrained networks are exported.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autodistill.core.errors import AutodistillError, ResourceError, UserCodeError
from autodistill.core.records import LATENCY, LatencyTarget, Objective, Params, Task
from autodistill.core.scratch import scratch_folder

if TYPE_CHECKING:
    from torch import nn

    from autodistill.search.results.verified import VerifiedRow
    from autodistill.training.data.datasets import ImageData
    from autodistill.training.teachers.teacher import Teacher

SHIPPED = (LATENCY, "onnx_bytes")
"""Objectives measured on the file; ``bytes`` is the exact size of the deployed form as safetensors instead."""


@dataclass(frozen=True)
class FileCosts:
    """Costs of one network.

    Attributes:
        costs: counted costs by name.
        bytes: size of the ONNX file; ``None`` if the network was not exported.
        latency_ms: latency of that file; ``None`` if it was not measured.
    """

    costs: Mapping[str, float]
    bytes: int | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, eq=False)
class Network:
    """A function that builds a network, and the size and channels of its input."""

    make: Callable[[], nn.Module]
    image_size: int
    channels: int


def student_network(student: Params, data: ImageData) -> Network:
    """Return the untrained network of a student."""
    from autodistill.training.students import build as students
    from autodistill.training.students.resolution import side_of

    size, channels, classes = data.image_size, data.channels, len(data.classes)

    def make() -> nn.Module:
        return students.build_student(student, image_size=size, channels=channels, num_classes=classes).eval()

    return Network(make, side_of(student, size), channels)


def teacher_network(teacher: Teacher) -> Network | None:
    """Return the teacher's network; ``None`` if the teacher is not a torch network."""
    from torch import nn

    network = teacher.network
    if not isinstance(network, nn.Module):
        return None
    return Network(lambda: copy.deepcopy(network), teacher.image_size, teacher.preprocessing.channels)


def judged_by_files(
    students: Sequence[VerifiedRow], objectives: Sequence[Objective], target: LatencyTarget
) -> tuple[tuple[str, ...], str]:
    """Choose the objectives for which the figures of the exported files are compared, and explain the choice.

    Users run the exported file, so its figures are preferred. To compare one kind of latency only, they are used for
    all students with a verdict or for none. Latencies of files are used only if the search also measured this CPU,
    because other targets are other machines.

    Args:
        students: rows with the costs of their files.
        objectives: objectives of the study.
        target: latency target of the study.

    Returns:
        Names of the chosen objectives, and one sentence that explains the choice; empty if there is none to make.
    """
    ready = [row for row in students if row.accuracy is not None]
    chosen, reasons = [], []
    for name in [o.name for o in objectives if o.name in SHIPPED]:
        lacking = [str(row.trial) for row in ready if row.shipped(name) is None]
        if name == LATENCY and not _of_this_cpu(target):
            reasons.append(f"{name} as the search measured it ({_where(target)}), because a file on this CPU differs")
        elif lacking or not ready:
            why = f"the file of trial {', '.join(lacking)} has no such figure" if lacking else "no run is finished"
            reasons.append(f"{name} as the search measured it, for all students: {why}")
        else:
            chosen.append(name)
            reasons.append(f"{name} of the exported file, which is what ships")
    return tuple(chosen), f"Verdicts take {'; and '.join(reasons)}." if reasons else ""


def _of_this_cpu(target: LatencyTarget) -> bool:
    """Return whether the target is this CPU, in the precision of the file."""
    here = target.table is None and target.command is None and target.device.startswith("cpu")
    return here and target.precision == "fp32" and target.runtime in ("torch", "onnxruntime")


def _where(target: LatencyTarget) -> str:
    if target.table is not None or target.command is not None:
        return "by a table" if target.table is not None else "by the study's command"
    return f"{target.runtime} on {target.device}, {target.precision}"


def file_costs(networks: Mapping[str, Network], task: Task, objectives: Sequence[Objective]) -> dict[str, FileCosts]:
    """Measure the costs of all networks; the latencies of the files are measured in interleaved rounds.

    Args:
        networks: networks by any name.
        task: task with the latency target.
        objectives: objectives whose costs are counted in addition to parameters and bytes.

    Warns:
        UserWarning: the latencies could not be measured.
    """
    from autodistill.training.costs.counts import cost_metrics, known_costs
    from autodistill.training.costs.file_latency import file_latencies
    from autodistill.training.deployed.form import as_if_trained
    from autodistill.training.deployed.onnx_files import export_onnx

    wanted = dict.fromkeys(["params", "bytes", *(o.name for o in objectives if o.name in cost_metrics)])
    out: dict[str, FileCosts] = {}
    files: dict[str, Path] = {}
    with scratch_folder("verify") as folder:
        for index, (name, one) in enumerate(networks.items()):
            size, channels = one.image_size, one.channels
            try:
                model = one.make().cpu()
                out[name] = FileCosts(known_costs(model, image_size=size, channels=channels, metrics=wanted))
                file = export_onnx(
                    as_if_trained(model), Path(folder) / f"{index}.onnx", image_size=size, channels=channels
                )
            except AutodistillError:  # it cannot be counted or exported, so it has no figure
                continue
            files[name] = file.path
            out[name] = FileCosts(out[name].costs, file.bytes)
        try:
            times = file_latencies(list(files.values()), task.latency)
        except (ResourceError, UserCodeError) as error:  # a missing package must not discard hours of training
            warnings.warn(f"the latency of the exported files was not measured: {error}", stacklevel=2)
            times = None
    for name, milliseconds in zip(files, times or (), strict=False):
        out[name] = FileCosts(out[name].costs, out[name].bytes, milliseconds)
    return out
