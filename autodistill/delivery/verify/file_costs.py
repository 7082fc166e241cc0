"""Size and latency of the files that would ship: every student, baseline and the teacher exported once as ONNX.

What cannot be exported has no figure; it stays in the table. Weights do not change either number, as long as no two
tensors are equal (``as_if_trained``), so networks are exported as they were built.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autodistill.core.errors import AutodistillError, ResourceError, UserCodeError
from autodistill.core.records import LatencyTarget, Objective, Params, Task

if TYPE_CHECKING:
    from torch import nn

    from autodistill.search.results.verified import VerifiedRow
    from autodistill.training.data.datasets import ImageData
    from autodistill.training.teachers.teacher import Teacher

SHIPPED = ("latency_ms", "onnx_bytes")
"""Objectives that a file is measured for; ``bytes`` is of the deployed form as safetensors, counted exactly."""


@dataclass(frozen=True)
class FileCosts:
    """What one network costs.

    Attributes:
        costs: counted costs by name.
        bytes: of the ONNX file.
        latency_ms: of that file.
    """

    costs: Mapping[str, float]
    bytes: int | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, eq=False)
class Network:
    """A network and the images it takes."""

    make: Callable[[], nn.Module]
    image_size: int
    channels: int


def student_network(student: Params, data: ImageData) -> Network:
    """The network of a student, untrained."""
    from autodistill.training.students import build as students

    size, channels, classes = data.image_size, data.channels, len(data.classes)

    def make() -> nn.Module:
        return students.build_student(student, image_size=size, channels=channels, num_classes=classes).eval()

    return Network(make, size, channels)


def teacher_network(teacher: Teacher) -> Network | None:
    """The teacher's network, where it is one."""
    from torch import nn

    network = teacher.network
    if not isinstance(network, nn.Module):
        return None
    return Network(lambda: copy.deepcopy(network), teacher.image_size, teacher.preprocessing.channels)


def judged_by_files(
    students: Sequence[VerifiedRow], objectives: Sequence[Objective], target: LatencyTarget
) -> tuple[tuple[str, ...], str]:
    """The objectives that the exported files are judged by, and a sentence that says so, or why not.

    The file is what ships. Its figure is taken of every student with a verdict or of none, so that no two kinds of
    latency are compared; and only where the search too has measured this CPU, as other targets are of other machines.

    Args:
        students: rows with the costs of their files.
        objectives: of the study.
        target: of the study's latency.
    """
    ready = [row for row in students if row.accuracy is not None]
    taken, said = [], []
    for name in [o.name for o in objectives if o.name in SHIPPED]:
        lacking = [str(row.trial) for row in ready if row.shipped(name) is None]
        if name == "latency_ms" and not _of_this_cpu(target):
            said.append(f"{name} as the search measured it ({_where(target)}), which a file on this CPU does not tell")
        elif lacking or not ready:
            whose = f"the file of trial {', '.join(lacking)} has no such figure" if lacking else "no run is finished"
            said.append(f"{name} as the search measured it, for all students: {whose}")
        else:
            taken.append(name)
            said.append(f"{name} of the exported file, which is what ships")
    return tuple(taken), f"Verdicts take {'; and '.join(said)}." if said else ""


def _of_this_cpu(target: LatencyTarget) -> bool:
    """Whether latency is of this CPU, in the precision of the file."""
    here = target.table is None and target.command is None and target.device.startswith("cpu")
    return here and target.precision == "fp32" and target.runtime in ("torch", "onnxruntime")


def _where(target: LatencyTarget) -> str:
    if target.table is not None or target.command is not None:
        return "by a table" if target.table is not None else "by the study's command"
    return f"{target.runtime} on {target.device}, {target.precision}"


def file_costs(networks: Mapping[str, Network], task: Task, objectives: Sequence[Objective]) -> dict[str, FileCosts]:
    """Costs of all networks; the files are measured in interleaved rounds.

    Args:
        networks: by a name of the caller's.
        task: gives the latency target.
        objectives: whose counted costs are wanted beside parameters and bytes.
    """
    from autodistill.training.costs.counts import cost_metrics, known_costs
    from autodistill.training.costs.file_latency import file_latencies
    from autodistill.training.deployed.form import as_if_trained
    from autodistill.training.deployed.onnx_files import export_onnx

    wanted = dict.fromkeys(["params", "bytes", *(o.name for o in objectives if o.name in cost_metrics)])
    out: dict[str, FileCosts] = {}
    files: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix="autodistill-verify-") as folder:
        for index, (name, one) in enumerate(networks.items()):
            size, channels = one.image_size, one.channels
            try:
                model = one.make().cpu()
                out[name] = FileCosts(known_costs(model, image_size=size, channels=channels, metrics=wanted))
                file = export_onnx(
                    as_if_trained(model), Path(folder) / f"{index}.onnx", image_size=size, channels=channels
                )
            except AutodistillError:  # it cannot be counted or exported: no figure
                continue
            files[name] = file.path
            out[name] = FileCosts(out[name].costs, file.bytes)
        try:
            times = file_latencies(list(files.values()), task.latency)
        except (ResourceError, UserCodeError) as error:  # hours of training must not be lost to a missing package
            warnings.warn(f"the exported files are not timed: {error}", stacklevel=2)
            times = None
    for name, milliseconds in zip(files, times or (), strict=False):
        out[name] = FileCosts(out[name].costs, out[name].bytes, milliseconds)
    return out
