from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from picture_sets import CLASSES, as_parquet, features, rows, same, write_photos

from autodistill.core.errors import DataError, ResourceError, UsageError
from autodistill.core.records import DataSpec
from autodistill.training.data import datasets
from autodistill.training.data.sources.tables.arrow_files import ArrowFile


def spec(path: Path | None, /, **options: object) -> DataSpec:
    return DataSpec("hf", root=None if path is None else str(path), image_size=8, options=options)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hugging Face's library writes into the test's folder and asks no network."""
    import datasets as library

    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def folders(root: Path) -> DataSpec:
    return DataSpec("image_folder", root=str(root), image_size=8)


def test_a_saved_dataset_and_a_folder_of_images_equal_class_folders(tmp_path: Path, hub: Path) -> None:
    import datasets as library

    root = write_photos(tmp_path / "photos", {"train": 3, "validation": 3, "test": 3})
    expected = datasets.load_images(folders(root), tmp_path / "cache")
    same(expected, datasets.load_images(spec(root), tmp_path / "cache"))
    made = library.load_dataset(str(root))
    made.save_to_disk(str(tmp_path / "saved"))
    same(expected, datasets.load_images(spec(tmp_path / "saved"), tmp_path / "cache"))
    made["train"].to_parquet(tmp_path / "train.parquet")
    one = datasets.load_images(spec(tmp_path / "train.parquet"), tmp_path / "cache")
    assert len(one.train) + len(one.val) == 6  # one image of each class is held out as test part
    test = datasets.load_test(spec(tmp_path / "saved"), tmp_path / "cache")
    assert np.array_equal(test.images, datasets.load_test(folders(root), tmp_path / "cache").images)


def test_a_name_on_the_hub_is_read_through_the_library(
    tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets as library

    root = write_photos(tmp_path / "photos", {"train": 3, "validation": 3, "test": 3})
    original = library.load_dataset_builder
    asked = []

    def stand_in(path: str, **keywords: object) -> object:
        asked.append((path, keywords))
        return original(str(root))

    monkeypatch.setattr(library, "load_dataset_builder", stand_in)
    given = spec(None, name="shop/clothes", config="small", revision="abc")
    same(datasets.load_images(folders(root), tmp_path / "cache"), datasets.load_images(given, tmp_path / "cache"))
    assert asked[0] == ("shop/clothes", {"name": "small", "revision": "abc"})


def test_a_name_that_cannot_be_reached_is_an_error_in_words(tmp_path: Path, hub: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read shop/nothing: .* The hub does not answer, and the"):
        datasets.load_images(spec(None, name="shop/nothing"), tmp_path / "cache")
    with pytest.raises(UsageError, match=r"both data.root and data.options.name"):
        datasets.check_source(spec(tmp_path, name="shop/nothing"))


def test_without_the_library_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = as_parquet(write_photos(tmp_path / "photos"), tmp_path / "parquet")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ResourceError, match=r"pip install 'autodistill-search\[hf\]'"):
        datasets.load_images(spec(root), tmp_path / "cache")
    file = spec(root / "train-00000-of-00001.parquet")  # single files need pyarrow alone
    assert datasets.load_images(file, tmp_path / "cache").classes == CLASSES


def test_splits_with_other_names_are_named_by_options(tmp_path: Path, hub: Path) -> None:
    root = as_parquet(write_photos(tmp_path / "photos"), tmp_path / "parquet")
    (root / "test-00000-of-00001.parquet").unlink()
    given = spec(root, test="validation")
    data, test = datasets.load_images(given, tmp_path / "cache"), datasets.load_test(given, tmp_path / "cache")
    assert (len(data.train) + len(data.val), len(test)) == (30, 9)
    with pytest.raises(UsageError, match=r"has no split 'valid'; did you mean 'validation'\? Its splits: train, val"):
        datasets.load_images(spec(root, test="valid"), tmp_path / "cache")


def write(path: Path, root: Path, label: list[object], **columns: object) -> Path:
    images = [(root / name).read_bytes() for name, _, _ in rows(root)]
    table = pa.table({"image": images[: len(label)], "label": label, **columns})
    pq.write_table(table, path)
    return path


def test_problems_are_named_by_row(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos", {"train": 4})
    path = tmp_path / "x.parquet"
    table = pa.table({"image": [b"", b"no"], "label": [0, -1]}).replace_schema_metadata(features(CLASSES))
    pq.write_table(table, path)
    with pytest.raises(DataError, match=r"1 of 2 rows of x.parquet .*\n  row 2 of x.parquet: label -1; allowed"):
        datasets.load_images(spec(path), tmp_path / "cache")
    images = [(root / name).read_bytes() for name, _, _ in rows(root)]
    images[3], images[5] = b"no image", None
    pq.write_table(pa.table({"image": images, "label": [one[1] for one in rows(root)]}), path)
    with pytest.raises(DataError) as refused:
        datasets.check_files(spec(path), tmp_path / "cache")
    assert "2 of 12 images cannot be read" in str(refused.value)
    assert "row 4 of x.parquet (not an image that Pillow can read)" in str(refused.value)
    assert "row 6 of x.parquet (no picture: neither bytes nor a path)" in str(refused.value)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"cannot read .*x.parquet: .*damaged or no Parquet or Arrow file"):
        datasets.load_images(spec(path), tmp_path / "cache")
    pq.write_table(pa.table({"image": [1.5], "label": [0]}), path)
    with pytest.raises(DataError, match=r"column 'image' of x.parquet has the type double; expected pictures"):
        datasets.load_images(spec(path), tmp_path / "cache")


def test_labels_are_texts_numbers_or_lists(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos", {"train": 4})
    names = [one[1] for one in rows(root)]
    texts = datasets.load_images(spec(write(tmp_path / "a.parquet", root, names)), tmp_path / "cache")
    numbers = [CLASSES.index(name) for name in names]
    counted = datasets.load_images(spec(write(tmp_path / "b.parquet", root, numbers)), tmp_path / "cache")
    assert (texts.classes, counted.classes) == (CLASSES, ("0", "1", "2"))
    assert np.array_equal(texts.train.labels, counted.train.labels)
    lists = [[name, "all"] for name in names]
    several = datasets.load_images(spec(write(tmp_path / "c.parquet", root, lists)), tmp_path / "cache")
    assert several.classes == ("all", *CLASSES)
    assert several.train.labels.sum(1).tolist() == [2] * len(several.train)


def test_a_file_of_one_row_group_is_not_read_into_memory_at_once(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 2**20, dtype=np.uint8).tobytes()
    cells = [noise[index:] + noise[:index] for index in range(96)]
    path = tmp_path / "large.parquet"
    pq.write_table(pa.table({"image": cells, "label": [0] * 96}), path, compression="none", use_dictionary=False,
                   write_batch_size=4)  # fmt: skip
    del cells
    file, most, before = ArrowFile(path), 0, pa.total_allocated_bytes()
    for _ in file.pictures("image"):
        most = max(most, pa.total_allocated_bytes() - before)
    assert path.stat().st_size > 96 * 2**20
    assert most < 48 * 2**20
