from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autodistill.core.errors import ResourceError, UsageError
from autodistill.engines.driving.slots import Slot, cpu_count, devices_each, make_slots
from autodistill.engines.monitor.watch import Watch
from autodistill.engines.setup.packing import Load, slots_for
from autodistill.search.study.study import Study


def test_cpu_threads_are_divided_among_workers() -> None:
    slots = make_slots(2, use_gpus=False)
    assert [s.index for s in slots] == [0, 1]
    assert all(s.device == "cpu" and s.threads == max(1, cpu_count() // 2) for s in slots)


def test_without_a_number_there_is_one_worker_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autodistill.engines.driving.slots._gpu_count", lambda: 3)
    assert [s.device for s in make_slots(None)] == ["cuda:0", "cuda:1", "cuda:2"]
    assert [s.device for s in make_slots(4)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]


def test_impossible_numbers_of_workers_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        make_slots(0, use_gpus=False)
    with pytest.raises(ResourceError, match="do not fit this machine"):
        make_slots(100_000, use_gpus=False)


def test_several_workers_share_a_gpu_and_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autodistill.engines.driving.slots._gpu_count", lambda: 2)
    slots = make_slots(None, slots_per_gpu=3)
    assert [s.device for s in slots] == ["cuda:0", "cuda:1"] * 3
    assert {s.memory_share for s in slots} == {0.3333}
    assert {s.memory_share for s in make_slots(2)} == {1.0}
    assert slots[0].context().memory_share == 0.3333


def test_a_trial_on_several_devices_gets_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autodistill.engines.driving.slots._gpu_count", lambda: 4)
    assert [s.devices for s in make_slots(None, devices_per_trial=2)] == [("cuda:0", "cuda:1"), ("cuda:2", "cuda:3")]
    with pytest.raises(ResourceError, match="3 workers with 2 devices each do not fit this machine, which has 4 GPUs"):
        make_slots(3, devices_per_trial=2)
    with pytest.raises(UsageError, match="not both"):
        make_slots(1, devices_per_trial=2, slots_per_gpu=2)


def test_on_cpus_a_trial_on_several_devices_divides_the_threads() -> None:
    (slot,) = make_slots(1, use_gpus=False, devices_per_trial=2)
    assert (slot.devices, slot.threads) == (("cpu", "cpu"), max(1, cpu_count() // 2))


def test_a_worker_takes_all_its_devices_or_its_part_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices_each(make_slots(3, use_gpus=False)) == 1.0
    assert devices_each(make_slots(2, use_gpus=False, devices_per_trial=2)) == 2.0
    monkeypatch.setattr("autodistill.engines.driving.slots._gpu_count", lambda: 4)
    assert devices_each(make_slots(2)) == 1.0
    assert devices_each(make_slots(None, slots_per_gpu=3)) == pytest.approx(1 / 3)
    assert devices_each(make_slots(6)) == pytest.approx(4 / 6)  # two GPUs are shared, two are not
    assert devices_each(make_slots(None, devices_per_trial=2)) == 2.0
    assert devices_each(make_slots(16, limited=False), gpus_per_worker=0.5) == 0.5
    assert devices_each(make_slots(16, limited=False), gpus_per_worker=0) == 1.0


GB = 2**30


@pytest.mark.parametrize(
    ("loads", "free", "cores", "expected"),
    [
        ([Load(1 * GB, 0.25), Load(2 * GB, 0.25)], 80 * GB, 16, 4),  # a quarter busy each: four fill the GPU
        ([Load(1 * GB, 0.30), Load(2 * GB, 0.50)], 80 * GB, 16, 3),  # 1 / 0.4, rounded up
        ([Load(9 * GB, 0.10)], 24 * GB, 16, 2),  # memory: 0.9 * 24 / 9.6
        ([Load(1 * GB, 0.02)], 80 * GB, 6, 6),  # cores
        ([Load(1 * GB, 0.01)], 800 * GB, 999, 16),  # never more
        ([Load(1 * GB, None)], 80 * GB, 16, 4),  # nothing says how busy it is
        ([Load(50 * GB, 0.99)], 40 * GB, 16, 1),  # one has to try
        ([Load(1 * GB, 1.0)], 80 * GB, 16, 1),
    ],
)
def test_workers_per_gpu_follow_memory_time_and_cores(loads: list[Load], free: int, cores: int, expected: int) -> None:
    assert slots_for(loads, free_bytes=free, cores_per_gpu=cores) == expected


def test_auto_measures_after_the_data_are_there_and_before_the_workers_start(monkeypatch: pytest.MonkeyPatch) -> None:
    from autodistill import api as run

    driven: list[object] = []
    monkeypatch.setattr("autodistill.engines.driving.slots._gpu_count", lambda: 2)
    monkeypatch.setattr(run, "_factory", lambda *args: driven.append("prepared"))
    monkeypatch.setattr(run, "measured_packing", lambda study, watch, slots: len(slots) + 1)
    monkeypatch.setitem(
        run.engines._entries, "local", lambda study, factory, slots, watch: driven.append([s.device for s in slots])
    )
    study = Study.create(data="digits", slots_per_gpu="auto", budget="1trials")
    run.search(study)
    assert driven == ["prepared", ["cuda:0", "cuda:1"] * 3]


def test_auto_reads_the_images_that_the_search_holds_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autodistill.engines.setup import packing
    from autodistill.training.data import datasets
    from autodistill.training.runtime.cache_folder import cache_folder

    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path / "shared"))
    rng = np.random.default_rng(0)
    for name in ("train/a", "train/b", "val/a", "val/b"):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for index in range(4):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    data = {"source": "image_folder", "root": str(tmp_path / "images"), "image_size": 8}
    study = Study.create(data=data, slots_per_gpu="auto", budget="1trials", directory=tmp_path / "study")
    datasets.load_images(study.config.data, cache_folder())
    held = sorted((tmp_path / "shared").rglob("*"))
    assert held
    monkeypatch.setattr(packing, "measure", lambda *args, **options: 3)
    assert packing.measured_packing(study, Watch(), [Slot(0, "cuda:0")]) == 3
    assert sorted((tmp_path / "shared").rglob("*")) == held
    assert not (tmp_path / "study" / "cache").exists()
