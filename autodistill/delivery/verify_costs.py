"""Size and latency of the files that would ship: every student, baseline and the teacher exported once as ONNX.

What cannot be exported has no figure; it stays in the table. Weights do not change either number, so a baseline is
exported as it was built.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autodistill.errors import AutodistillError, ResourceError, UserCodeError
from autodistill.records import Objective, Params, Task

if TYPE_CHECKING:
    from torch import nn

    from autodistill.training.datasets import ImageData
    from autodistill.training.teacher import Teacher


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
    from autodistill.training import students

    size, channels, classes = data.image_size, data.channels, len(data.classes)

    def make() -> nn.Module:
        return students.build(student, image_size=size, channels=channels, num_classes=classes).eval()

    return Network(make, size, channels)


def teacher_network(teacher: Teacher) -> Network | None:
    """The teacher's network, where it is one."""
    from torch import nn

    network = teacher.network
    if not isinstance(network, nn.Module):
        return None
    return Network(lambda: copy.deepcopy(network), teacher.image_size, teacher.preprocessing.channels)


def file_costs(networks: Mapping[str, Network], task: Task, objectives: Sequence[Objective]) -> dict[str, FileCosts]:
    """Costs of all networks; the files are measured in interleaved rounds.

    Args:
        networks: by a name of the caller's.
        task: gives the latency target.
        objectives: whose counted costs are wanted beside parameters and bytes.
    """
    from autodistill.training.costs import cost_metrics, known_costs
    from autodistill.training.file_latency import file_latencies
    from autodistill.training.onnx_files import export_onnx

    wanted = dict.fromkeys(["params", "bytes", *(o.name for o in objectives if o.name in cost_metrics)])
    out: dict[str, FileCosts] = {}
    files: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix="autodistill-verify-") as folder:
        for index, (name, one) in enumerate(networks.items()):
            size, channels = one.image_size, one.channels
            try:
                model = one.make().cpu()
                out[name] = FileCosts(known_costs(model, image_size=size, channels=channels, metrics=wanted))
                file = export_onnx(model, Path(folder) / f"{index}.onnx", image_size=size, channels=channels)
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
