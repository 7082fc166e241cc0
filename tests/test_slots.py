from __future__ import annotations

import pytest

from autodistill.engines.slots import cpu_count, make_slots
from autodistill.errors import ResourceError, UsageError


def test_cpu_threads_are_divided_among_workers() -> None:
    slots = make_slots(2, use_gpus=False)
    assert [s.index for s in slots] == [0, 1]
    assert all(s.device == "cpu" and s.threads == max(1, cpu_count() // 2) for s in slots)


def test_without_a_number_there_is_one_worker_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autodistill.engines.slots._gpu_count", lambda: 3)
    assert [s.device for s in make_slots(None)] == ["cuda:0", "cuda:1", "cuda:2"]
    assert [s.device for s in make_slots(4)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]


def test_impossible_numbers_of_workers_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        make_slots(0, use_gpus=False)
    with pytest.raises(ResourceError, match="do not fit this machine"):
        make_slots(100_000, use_gpus=False)
