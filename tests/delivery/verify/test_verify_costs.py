from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from autodistill.core.errors import UserCodeError
from autodistill.core.records import DataSpec, LatencyTarget, Task, TeacherSpec, stable_key
from autodistill.delivery.verify import judge as verify_judge
from autodistill.delivery.verify.file_costs import FileCosts, Network, file_costs
from autodistill.delivery.verify.plan import PLAIN, PlannedRow
from autodistill.search.objectives.objectives import resolve
from autodistill.training.costs.file_latency import file_latencies, file_run, target_words
from autodistill.training.deployed.onnx_files import export_onnx


class Unexportable(nn.Module):
    """Looks at its numbers, which neither counting nor tracing can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if float(images.sum()) > 1e9:
            raise RuntimeError
        return torch.from_numpy(np.asarray(self.layer(images.flatten(1)).detach()))


def task(tmp_path: Path, target: LatencyTarget) -> Task:
    return Task(DataSpec("digits"), TeacherSpec("x"), str(tmp_path), (1,), ("accuracy", "params"), latency=target)


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def networks() -> dict[str, Network]:
    return {"linear": Network(linear, 4, 1), "odd": Network(Unexportable, 4, 1)}


@pytest.fixture(autouse=True)
def own_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTODISTILL_LEASE", str(tmp_path / "lease"))


def test_a_network_is_counted_exported_and_timed_and_what_cannot_be_is_left_out(tmp_path: Path) -> None:
    found = file_costs(networks(), task(tmp_path, LatencyTarget()), resolve(["accuracy", "params", "macs"]))
    assert found["linear"].costs["params"] == 16 * 3 + 3
    assert found["linear"].costs["macs"] == 16 * 3
    assert (found["linear"].bytes or 0) > 4 * 51
    assert (found["linear"].latency_ms or 0) > 0
    assert "odd" not in found or found["odd"].bytes is None


def test_the_size_of_a_file_is_that_of_the_trained_student(tmp_path: Path) -> None:
    def twice() -> nn.Module:
        layers = [nn.Linear(16, 16), nn.Linear(16, 16)]
        for layer in layers:
            nn.init.zeros_(layer.bias)  # equal tensors, which the exporter writes once
        return nn.Sequential(nn.Flatten(), *layers)

    trained = twice()
    with torch.no_grad():
        for one in trained.parameters():
            one.add_(torch.rand_like(one))
    found = file_costs({"twice": Network(twice, 4, 1)}, task(tmp_path, LatencyTarget()), ())
    assert found["twice"].bytes == export_onnx(trained, tmp_path / "m.onnx", image_size=4, channels=1).bytes


def test_files_are_timed_by_the_command_of_the_target(tmp_path: Path) -> None:
    script = tmp_path / "bench.py"
    script.write_text("import os, sys\nprint(os.path.getsize(sys.argv[1]))\n")
    target = LatencyTarget(command=f"python3 {script} {{onnx}}")
    found = file_costs({"linear": Network(linear, 4, 1)}, task(tmp_path, target), ())
    assert found["linear"].latency_ms == found["linear"].bytes
    assert target_words(target) == "the study's command, batch 1"


def test_a_command_that_fails_costs_the_figure_and_not_the_verification(tmp_path: Path) -> None:
    target = LatencyTarget(command="false {onnx}")
    with pytest.warns(UserWarning, match="latency of the exported files was not measured: latency.command 'false"):
        found = file_costs({"linear": Network(linear, 4, 1)}, task(tmp_path, target), ())
    assert found["linear"].latency_ms is None
    assert found["linear"].bytes is not None
    with pytest.raises(UserCodeError):
        file_latencies([tmp_path / "x.onnx"], target)


def test_a_target_that_is_a_table_has_no_latency_of_files(tmp_path: Path) -> None:
    assert file_latencies([], LatencyTarget(table="somewhere.csv")) is None
    assert target_words(LatencyTarget(table="somewhere.csv")) == "not measured: the target is a table"


def test_a_file_is_run_on_the_batch_of_the_target(tmp_path: Path) -> None:
    file = export_onnx(linear().eval(), tmp_path / "m.onnx", image_size=4, channels=1)
    (logits,) = file_run(file.path, LatencyTarget(batch=5))()
    assert logits.shape == (5, 3)


def test_students_of_one_architecture_share_one_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def measured(networks: Mapping[str, Network], *_others: Any) -> dict[str, FileCosts]:
        seen.extend(networks)
        return {name: FileCosts({}, 10, 0.1 * place) for place, name in enumerate(networks, 1)}

    monkeypatch.setattr(verify_judge, "file_costs", measured)
    monkeypatch.setattr(verify_judge, "student_network", lambda *_: Network(linear, 4, 1))
    monkeypatch.setattr(verify_judge, "teacher_network", lambda _: None)
    small, large = {"width": 2}, {"width": 6}
    members = [PlannedRow("student", "s", one, PLAIN, {}, trial=n) for n, one in enumerate([small, large, small])]
    plan = SimpleNamespace(
        worker=SimpleNamespace(data=SimpleNamespace(image_size=4, channels=1, classes=()), teacher=None),
        retraining=SimpleNamespace(task=task(tmp_path, LatencyTarget())),
        study=SimpleNamespace(objectives=()),
        members=[*members, PlannedRow("twin", "s", small, PLAIN, {}, trial=0)],
    )
    assert set(verify_judge._costs(cast("verify_judge.Plan", plan))) == {stable_key(small), stable_key(large)}
    assert seen == [stable_key(small), stable_key(large)]
