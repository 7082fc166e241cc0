from __future__ import annotations

from pathlib import Path

import pytest

from autodistill.core.errors import ResourceError
from autodistill.core.records import State, TrialRecord
from autodistill.delivery.dashboard import tensorboard
from autodistill.delivery.dashboard.tensorboard import TensorBoard

pytest.importorskip("tensorboard")
COSTS = {"params": 100.0, "epochs": 0.0, "seconds": 0.1}


def record(rungs: int, state: State = State.RUNNING) -> TrialRecord:
    shown = {
        k: {"accuracy": 0.1 * k, "params": 100.0, "epochs": float(k), "seconds": float(k)} for k in range(1, rungs + 1)
    }
    values = {"accuracy": 0.1 * rungs, "params": 100.0} if state is State.COMPLETE else {}
    return TrialRecord(
        3, state, values, {"family": "resnet", "width": 8}, {"loss": "kd"}, {}, 0, rungs={0: COSTS, **shown}
    )


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_each_rung_is_written_once_at_its_epoch(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    for trials in ([], [record(1)], [record(1)], [record(2)], [record(3, State.COMPLETE)], [record(3, State.COMPLETE)]):
        board.sync(trials)
    found = scalars(tmp_path / "trial-00003")
    assert found["accuracy"] == [(k, pytest.approx(0.1 * k)) for k in (1, 2, 3)]
    assert found["cost/params"] == [(0, 100.0)]
    assert found["result/accuracy"] == [(0, pytest.approx(0.3))]
    assert "params" not in found


def test_a_resumed_search_does_not_write_twice(tmp_path: Path) -> None:
    TensorBoard(tmp_path).sync([record(2)])
    TensorBoard(tmp_path, [record(2)]).sync([record(3)])
    assert [step for step, _ in scalars(tmp_path / "trial-00003")["accuracy"]] == [1, 2, 3]


def test_a_missing_package_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ResourceError, match="pip install tensorboard"):
        tensorboard.TensorBoard(tmp_path)
