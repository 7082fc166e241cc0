"""Teacher caches of a worker: few are open at once, and none is closed while a training reads it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autodistill.core.errors import AutodistillError, ResourceError
from autodistill.core.records import Candidate, DataSpec, Task, WorkerContext
from autodistill.engines.timing.cold_views import cold_views
from autodistill.search.space.space import Space
from autodistill.training.augmentation.policy import Policy, policies
from autodistill.training.data import datasets
from autodistill.training.loop.recipe import scaled
from autodistill.training.teachers.cache import open_caches as cache_shelf
from autodistill.training.teachers.cache.cache import TeacherCache
from autodistill.training.teachers.cache.folders import CacheKey
from autodistill.training.teachers.cache.open_caches import KEPT, OpenCaches
from autodistill.training.trials.evaluate import WorkerState
from autodistill.training.trials.teach import teach

KEY = CacheKey("data", "teacher", "views", 0, "as the student")
SIZES = {"images": 20, "classes": 3, "views": 2}
linux = pytest.mark.skipif(sys.platform != "linux", reason="counts what the process has open in /proc")


def answer(ids: torch.Tensor) -> torch.Tensor:
    return ids[:, None].float() * torch.ones(3)


def taken(caches: OpenCaches, number: int) -> TeacherCache:
    return caches.take(replace(KEY, seed=number), **SIZES)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def open_maps(folder: Path) -> int:
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


@linux
def test_a_closed_cache_keeps_no_file_and_no_map(tmp_path: Path) -> None:
    before = open_files()
    cache = TeacherCache.open(tmp_path, KEY, **SIZES)
    cache.fetch(torch.arange(20), 0, answer)
    assert open_files() > before
    assert open_maps(tmp_path) == 2
    cache.close()
    cache.close()
    assert (open_files(), open_maps(tmp_path)) == (before, 0)


@linux
def test_a_cache_that_cannot_be_opened_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autodistill.training.teachers.cache import cache as teacher_cache

    before = open_files()

    def refuse(path: Path) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(teacher_cache, "RowLocks", refuse)
    with pytest.raises(ResourceError, match="too many open files"):
        TeacherCache.open(tmp_path, KEY, **SIZES)
    assert (open_files(), open_maps(tmp_path)) == (before, 0)


@linux
def test_only_the_caches_that_were_used_last_stay_open(tmp_path: Path) -> None:
    caches = OpenCaches(tmp_path)
    for number in range(KEPT):
        taken(caches, number)
    full = open_files()
    first = taken(caches, 0)
    for number in range(KEPT, 3 * KEPT):
        assert taken(caches, 0) is first
        taken(caches, number)
    assert len(caches) == KEPT
    assert open_files() == full
    assert open_maps(tmp_path) == 2 * KEPT


def test_a_cache_that_a_training_still_reads_is_not_closed_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_shelf, "KEPT", 1)
    caches = OpenCaches(tmp_path)
    read = taken(caches, 0)
    assert taken(caches, 1) is not read
    assert read not in caches.values()
    assert torch.equal(read.targets(torch.arange(20), 1, answer), answer(torch.arange(20)))
    again = taken(caches, 0)
    assert torch.equal(
        again.targets(torch.arange(20), 1, lambda ids: pytest.fail("asked again")), answer(torch.arange(20))
    )


@linux
def test_trials_of_ever_new_augmentation_strengths_open_no_ever_new_files(tmp_path: Path) -> None:
    spec = DataSpec("digits", train_size=64)
    data = datasets.load_images(spec)
    teacher = teach(data, {"family": "resnet", "width": 4, "depth": 1}, directory=tmp_path / "teacher", epochs=1)
    task = Task(spec, teacher, str(tmp_path), (1,), ("accuracy", "params"), cache=str(tmp_path / "cache"))
    worker, counts = WorkerState(task, WorkerContext()), []
    for number in range(KEPT + 6):
        train = {"augment": "crop", "augment_strength": 0.1 + 0.05 * number}
        list(worker.evaluate(Candidate(number, {"family": "resnet", "width": 4, "depth": 1}, {"loss": "kd"}, train, 1)))
        counts.append(open_files())
    assert len(set(counts[KEPT - 1 :])) == 1
    assert open_maps(tmp_path / "cache") == 2 * KEPT


@pytest.mark.parametrize(
    ("changed", "used_by"),
    [
        ({"padding": 0.3}, {"crop": "pad"}),
        ({"min_area": 0.5, "ratio": 2.0}, {"crop": "resized"}),
        ({"erase_area": 0.1}, {"erase": 0.5}),
        ({"magnitude": 0.9}, {"operations": 2}),
    ],
)
def test_fields_that_nothing_uses_make_no_other_views(changed: dict[str, Any], used_by: dict[str, Any]) -> None:
    assert Policy(**changed).view_key() == Policy().view_key()
    assert Policy(**changed, **used_by).view_key() != Policy(**used_by).view_key()


def test_a_strength_makes_other_views_only_where_there_is_something_to_scale() -> None:
    keys = {name: {scaled(policies.get(name), strength).view_key() for strength in (0.2, 0.7)} for name in policies}
    assert {name for name, found in keys.items() if len(found) == 1} == {"none"}


RANGE = {"low": 0.0, "high": 1.0}


@pytest.mark.parametrize(
    ("train", "training", "said"),
    [
        ({"augment_strength": RANGE}, {}, True),
        ({"augment_strength": RANGE, "augment": ["none", "crop"]}, {}, True),
        ({"augment_strength": RANGE, "teacher_mode": ["cached", "online"]}, {}, True),
        ({"augment_strength": RANGE}, {"teacher_mode": "online"}, False),
        ({"augment_strength": RANGE, "teacher_mode": "online"}, {}, False),
        ({"augment_strength": RANGE}, {"augment": "none"}, False),
        ({"augment_strength": RANGE, "augment": ["none"]}, {}, False),
        ({"augment_strength": [0.25, 0.5, 0.75]}, {}, False),
        ({"lr": RANGE | {"low": 0.1}}, {}, False),
    ],
)
def test_a_range_of_strengths_is_warned_of_where_it_leaves_no_cache_warm(
    train: dict[str, Any], training: dict[str, Any], said: bool
) -> None:
    found = cold_views(Space.parse({"student": {"family": "resnet"}, "train": train}), training)
    assert bool(found) == said
    assert not said or "range from 0 to 1" in found


def test_the_warning_comes_at_the_start_and_in_a_dry_run(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from autodistill.cli import app
    from autodistill.engines.monitor.watch import Watch
    from autodistill.engines.setup import prepare
    from autodistill.search.study.study import Study

    space = {"student": {"family": "resnet", "width": [4]}, "train": {"augment_strength": RANGE}}
    (tmp_path / "study.yaml").write_text(json.dumps({"data": "digits", "space": space, "budget": "1trials"}))
    shown = CliRunner().invoke(app, ["search", str(tmp_path / "study.yaml"), "--dry-run", "--dir", str(tmp_path / "d")])
    assert shown.stderr.count("warning: train.augment_strength is a range from 0 to 1") == 1, shown.stderr
    (tmp_path / "empty").mkdir()  # without images, the search ends before it trains a teacher
    data = {"source": "image_folder", "root": str(tmp_path / "empty"), "image_size": 8}
    study = Study.create(data=data, space=space)
    with pytest.warns(UserWarning, match="cached outputs are never reused"), pytest.raises(AutodistillError):
        prepare.prepare(study, Watch())
