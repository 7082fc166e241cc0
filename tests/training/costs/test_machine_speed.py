from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autodistill.training.costs import machine_speed
from autodistill.training.costs.cost_memory import CostMemory
from autodistill.training.costs.machine_speed import slowness, steady


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path))
    machine_speed._reference.cache_clear()
    yield tmp_path
    machine_speed._reference.cache_clear()


def test_the_reference_is_measured_once_on_a_machine_and_remembered(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durations = {
        machine_speed.CALIBRATION_SECONDS: [0.004, 0.002, 0.009],
        machine_speed.LOOK_SECONDS: [0.005, 0.006, 0.007],
    }
    monkeypatch.setattr(machine_speed, "_timed", durations.__getitem__)
    assert slowness()() == pytest.approx(0.006 / 0.004)
    assert len(CostMemory(home)._rows) == 1
    durations[machine_speed.CALIBRATION_SECONDS] = [1.0]  # another process, in a slow minute
    machine_speed._reference.cache_clear()
    assert slowness()() == pytest.approx(0.006 / 0.004)


def test_each_number_of_threads_has_a_reference_of_its_own(home: Path) -> None:
    before = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert slowness()() > 0
    finally:
        torch.set_num_threads(before)
    assert len(CostMemory(home)._rows) == 2


def test_the_work_leaves_random_numbers_alone(home: Path) -> None:
    machine_speed._work.cache_clear()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    slowness()()
    assert torch.equal(torch.rand(3), expected)


def test_a_gpu_has_clocks_of_its_own(home: Path) -> None:
    assert slowness("cuda:1") is steady
    assert steady() == 1.0
