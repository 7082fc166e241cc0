"""Costs stored between studies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autodistill.core.records import LatencyTarget
from autodistill.training.costs import cost_memory
from autodistill.training.costs.cost_memory import LATENCY, CostMemory, cache_folder

STUDENT = {"family": "resnet", "width": 4}
SHAPE = {"image_size": 8, "channels": 1}
TARGET = LatencyTarget()
COSTS = {"params": 10.0, "macs": 20.0, LATENCY: 0.5}


def test_what_was_put_is_there_after_a_save_and_a_load(tmp_path: Path) -> None:
    first = CostMemory(tmp_path / "deep" / "er")
    key = first.key(STUDENT, SHAPE, 3)
    assert first.get(key, ["params"], None) is None
    first.put(key, COSTS, TARGET)
    first.save()
    assert CostMemory(tmp_path / "deep" / "er").get(key, ["params", "macs"], TARGET) == COSTS


def test_only_what_is_asked_for_is_given_and_only_when_all_of_it_is_known() -> None:
    memory = CostMemory(None)
    key = memory.key(STUDENT, SHAPE, 3)
    memory.put(key, {"params": 10.0}, TARGET)
    assert memory.get(key, ["params"], None) == {"params": 10.0}
    assert memory.get(key, ["params", "macs"], None) is None
    assert memory.get(key, ["params"], TARGET) is None
    memory.put(key, {LATENCY: 0.5}, TARGET)
    assert memory.get(key, ["params"], TARGET) == {"params": 10.0, LATENCY: 0.5}


@pytest.mark.parametrize(
    "other",
    [{"runtime": "onnxruntime"}, {"device": "cuda"}, {"batch": 2}, {"precision": "bf16"}, {"threads": 2}],
)
def test_a_latency_belongs_to_its_target(other: dict[str, object]) -> None:
    memory = CostMemory(None)
    key = memory.key(STUDENT, SHAPE, 3)
    memory.put(key, COSTS, TARGET)
    assert memory.get(key, ["params"], replace(TARGET, **other)) is None


def test_a_latency_of_an_older_protocol_is_measured_again_and_counts_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = CostMemory(None)
    key = memory.key(STUDENT, SHAPE, 3)
    memory.put(key, COSTS, TARGET)
    monkeypatch.setattr(cost_memory, "PROTOCOL", cost_memory.PROTOCOL + 1)
    assert memory.get(key, ["params"], TARGET) is None
    assert memory.get(key, ["params", "macs"], None) == {"params": 10.0, "macs": 20.0}


def test_a_latency_belongs_to_its_machine_and_counts_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = CostMemory(tmp_path)
    key = here.key(STUDENT, SHAPE, 3)
    here.put(key, COSTS, TARGET)
    here.save()
    monkeypatch.setattr(cost_memory, "machine", lambda target: "another")
    there = CostMemory(tmp_path)
    assert there.get(key, ["params", "macs"], TARGET) is None
    assert there.get(key, ["params", "macs"], None) == {"params": 10.0, "macs": 20.0}


ONNX = LatencyTarget(runtime="onnxruntime")


@pytest.mark.parametrize("target", [ONNX, replace(ONNX, precision="int8"), replace(TARGET, precision="int8")])
@pytest.mark.parametrize("package", ["onnxruntime", "onnxruntime-gpu"])
def test_a_latency_by_onnxruntime_belongs_to_its_version_and_one_by_torch_does_not(
    target: LatencyTarget, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = CostMemory(None)
    key = memory.key(STUDENT, SHAPE, 3)
    memory.put(key, COSTS, target)
    memory.put(key, {LATENCY: 0.7}, TARGET)
    real = cost_memory.version_of
    monkeypatch.setattr(cost_memory, "version_of", lambda name: "99.9" if name == package else real(name))
    assert memory.get(key, ["params"], target) is None
    assert memory.get(key, ["params", "macs"], TARGET) == {**COSTS, LATENCY: 0.7}


def test_the_key_differs_by_student_shape_and_classes_and_ignores_order() -> None:
    memory = CostMemory(None)
    keys = {
        memory.key(STUDENT, SHAPE, 3),
        memory.key({**STUDENT, "width": 8}, SHAPE, 3),
        memory.key(STUDENT, {**SHAPE, "channels": 3}, 3),
        memory.key(STUDENT, SHAPE, 4),
    }
    assert len(keys) == 4
    assert memory.key(dict(reversed(STUDENT.items())), SHAPE, 3) in keys


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"[1, 2]", b'{"key": 3}', b"\xff\xfe", b'{"key": {"params": "x"}}']
)
def test_a_broken_file_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "costs.json").write_bytes(content)
    memory = CostMemory(tmp_path)
    assert memory.get("key", ["params"], None) is None
    memory.put("key", {"params": 1.0}, TARGET)
    memory.save()
    assert CostMemory(tmp_path).get("key", ["params"], None) == {"params": 1.0}


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_memory(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    memory = CostMemory(blocked)
    memory.put("key", {"params": 1.0}, TARGET)
    memory.save()
    assert memory.get("key", ["params"], None) == {"params": 1.0}


def test_nothing_new_is_not_written_again(tmp_path: Path) -> None:
    memory = CostMemory(tmp_path)
    memory.save()
    assert list(tmp_path.iterdir()) == []
    memory.put("key", {"params": 1.0}, TARGET)
    memory.save()
    (tmp_path / "costs.json").unlink()
    memory.put("key", {"params": 1.0}, TARGET)
    memory.save()
    assert list(tmp_path.iterdir()) == []


def test_two_studies_that_save_in_turn_keep_both_their_rows(tmp_path: Path) -> None:
    one, two = CostMemory(tmp_path), CostMemory(tmp_path)
    one.put("a", {"params": 1.0}, TARGET)
    two.put("b", {"params": 2.0}, TARGET)
    one.save()
    two.save()
    assert set(json.loads((tmp_path / "costs.json").read_text())) == {"a", "b"}


def test_the_folder_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("AUTODISTILL_CACHE", raising=False)
    assert cache_folder() == tmp_path / "autodistill"
    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("AUTODISTILL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "autodistill"


def test_the_machine_is_the_same_each_time() -> None:
    assert cost_memory.machine() == cost_memory.machine()


def test_sizes_of_onnx_files_that_an_older_release_remembered_are_counted_again(tmp_path: Path) -> None:
    memory = CostMemory(tmp_path)
    key = memory.key(STUDENT, SHAPE, 3)
    (tmp_path / "costs.json").write_text(json.dumps({key: {"params": 10.0, "onnx_bytes": 99.0}}))
    memory = CostMemory(tmp_path)
    assert memory.get(key, ["params"], None) == {"params": 10.0}
    assert memory.get(key, ["params", "onnx_bytes"], None) is None
    memory.put(key, {"onnx_bytes": 101.0}, TARGET)
    assert memory.get(key, ["params", "onnx_bytes"], None) == {"params": 10.0, "onnx_bytes": 101.0}
