"""The same pictures as class folders, table, Parquet and tar files give the same arrays, fingerprints and trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from picture_sets import as_csv, as_jsonl, as_parquet, as_tars, same, write_photos

from autodistill.core.records import Candidate, DataSpec, Task, TeacherSpec, WorkerContext
from autodistill.training.data import datasets
from autodistill.training.trials.evaluate import evaluator

CODE = """
from torch import nn

class Colour(nn.Module):
    def forward(self, x):
        return 20 * x.mean((2, 3))
"""


def specs(root: Path, out: Path, **options: object) -> dict[str, DataSpec]:
    """The same photographs from every kind of source."""
    folder = DataSpec("image_folder", root=str(root), image_size=16, **options)
    return {
        "folder": folder,
        "csv": replace(folder, source="manifest", root=str(as_csv(root))),
        "jsonl": replace(folder, source="manifest", root=str(as_jsonl(root))),
        "parquet": replace(folder, source="hf", root=str(as_parquet(root, out / "parquet"))),
        "tar": replace(folder, source="webdataset", root=str(as_tars(root, out / "tar"))),
        "tar.gz": replace(folder, source="webdataset", root=str(as_tars(root, out / "gz", ending="tar.gz"))),
        "json": replace(folder, source="webdataset", root=str(as_tars(root, out / "json", kind="json"))),
        "tar of folders": replace(
            folder, source="webdataset", root=str(as_tars(root, out / "plain", kind="")), options={"label": "folder"}
        ),
    }


@pytest.mark.parametrize("resize", ["crop", "squash", "letterbox"])
def test_folders_tables_parquet_and_tars_give_equal_arrays(tmp_path: Path, resize: str) -> None:
    root = write_photos(tmp_path / "photos")
    loaded = {}
    for name, spec in specs(root, tmp_path, resize=resize).items():
        cache = tmp_path / "cache" / name
        datasets.check_files(spec, cache)
        loaded[name] = datasets.load_images(spec, cache), datasets.load_test(spec, cache)
        datasets.check_parts(spec, loaded[name][0], cache)
    first, test = loaded["folder"]
    assert first.train.images.shape == (30, 3, 16, 16)
    assert (len(first.val), len(test)) == (9, 12)
    for name in loaded:
        same(first, loaded[name][0])
        assert np.array_equal(test.images, loaded[name][1].images)
        assert np.array_equal(test.labels, loaded[name][1].labels)
        assert datasets.images_key(first) == datasets.images_key(loaded[name][0])


def test_missing_splits_are_made_alike_from_every_source(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos", {"train": 10})
    for spec in specs(root, tmp_path).values():
        data = datasets.load_images(spec, tmp_path / "cache")
        test = datasets.load_test(spec, tmp_path / "cache")
        assert (len(data.train) + len(data.val), len(test)) == (24, 6)
        same(datasets.load_images(specs_folder(root), tmp_path / "cache"), data)
        expected = datasets.load_test(specs_folder(root), tmp_path / "cache")
        assert np.array_equal(test.images, expected.images)


def specs_folder(root: Path) -> DataSpec:
    return DataSpec("image_folder", root=str(root), image_size=16)


def test_equal_pictures_give_equal_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "colour_teacher.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    root = write_photos(tmp_path / "photos")
    student = {"family": "resnetv2", "width": 4, "stages": 2}
    kd = {"loss": "kd", "temperature": 2.0, "alpha": 0.5}
    found = {}
    for name, spec in specs(root, tmp_path).items():
        if name not in ("folder", "csv", "parquet", "tar"):
            continue
        data = datasets.load_images(spec, tmp_path / "cache")
        task = Task(
            data=spec,
            teacher=TeacherSpec("colour_teacher:Colour", accept_weak=True),
            directory=str(tmp_path / name),
            rungs=(1, 2),
            metrics=("accuracy", "params"),
            cache=str(tmp_path / "cache"),
            images=datasets.images_key(data),
        )
        candidate = Candidate(0, student, kd, {"lr": 0.02, "batch_size": 8, "augment": "flip_crop"}, 7)
        reports = list(evaluator(task, WorkerContext())(candidate))
        found[name] = [dict(report.values) for report in reports]
    assert len(found["folder"]) == 3
    assert {name: values == found["folder"] for name, values in found.items()} == dict.fromkeys(found, True)
