from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from picture_sets import as_csv, same, write_photos
from PIL import Image

from autodistill.core.errors import DataError, UnknownNameError, UsageError
from autodistill.core.records import DataSpec
from autodistill.training.data import datasets


def spec(path: Path, /, **options: object) -> DataSpec:
    return DataSpec("manifest", root=str(path), image_size=8, options=options)


def table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    """A table beside twelve photographs 0.png to 11.png."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def lines(*labels: object, head: str = "path,label", mark: str = ",") -> str:
    return "\n".join([head, *(f"{number}.png{mark}{label}" for number, label in enumerate(labels))]) + "\n"


def test_names_of_columns_delimiters_and_byte_order_marks_are_found(tmp_path: Path) -> None:
    labels = ["cat", "dog"] * 6
    expected = datasets.load_images(spec(table(tmp_path / "a", lines(*labels))), tmp_path / "cache")
    for name, text in (
        ("semicolons.csv", "\ufeff" + lines(*labels, head="File;Class", mark=";")),
        ("tabs.tsv", lines(*labels, head="filename\ttarget", mark="\t")),
        ("odd.csv", lines(*labels, head="where,what")),
    ):
        options = {"path": "where", "label": "what"} if name == "odd.csv" else {}
        same(expected, datasets.load_images(spec(table(tmp_path / "a", text, name), **options), tmp_path / "cache"))


def test_a_missing_column_lists_those_of_the_table(tmp_path: Path) -> None:
    path = table(tmp_path, lines(*"abababababab", head="path,kind"))
    with pytest.raises(DataError, match=r"none of the columns label, .* Its columns: 'path', 'kind'.*options\.label="):
        datasets.load_images(spec(path))
    with pytest.raises(DataError, match=r"no column 'kinds'; did you mean 'kind'\?"):
        datasets.load_images(spec(path, label="kinds"))
    with pytest.raises(UnknownNameError, match=r"'lable'; did you mean 'label'"):
        datasets.load_images(spec(path, lable="kind"))


def test_rows_that_cannot_be_used_are_named_by_their_line(tmp_path: Path) -> None:
    text = "path,label,split\n0.png,a,train\n1.png,,train\n,b,train\n3.png,b,tests\n"
    with pytest.raises(DataError) as refused:
        datasets.load_images(spec(table(tmp_path, text)))
    assert str(refused.value).splitlines() == [
        "3 of 4 rows of labels.csv cannot be used:",
        "  line 3 (1.png): no label",
        "  line 4: no path",
        "  line 5 (3.png): split 'tests'; allowed: train, validation, test",
    ]


def test_pictures_that_cannot_be_read_are_named_by_their_line(tmp_path: Path) -> None:
    path = table(tmp_path, lines(*"abababababab"))
    (tmp_path / "3.png").write_text("no image")
    (tmp_path / "4.png").unlink()
    (tmp_path / "5.png").unlink()
    os.mkfifo(tmp_path / "5.png")
    with pytest.raises(DataError) as refused:
        datasets.check_files(spec(path), tmp_path / "cache")
    message = str(refused.value)
    assert message.startswith("3 of 12 images cannot be read; repair or remove them:")
    assert "line 5 of labels.csv: 3.png (not an image that Pillow can read)" in message
    assert "line 6 of labels.csv: 4.png ([Errno 2] No such file" in message
    assert "line 7 of labels.csv: 5.png (not a regular file)" in message


def test_a_line_with_another_number_of_columns_and_no_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 3 of labels.csv has 3 columns, the first line has 2"):
        datasets.load_images(spec(table(tmp_path, "path,label\n0.png,a\n1.png,b,c\n")))
    with pytest.raises(DataError, match=r"line 2 of labels.jsonl is no JSON: "):
        datasets.load_images(spec(table(tmp_path, '{"path": "0.png", "label": 1}\n{path}\n', "labels.jsonl")))


def test_whole_numbers_are_ordered_by_value_and_given_classes_as_given(tmp_path: Path) -> None:
    path = table(tmp_path, lines(*[9, 10] * 6))
    assert datasets.load_images(spec(path), tmp_path / "cache").classes == ("9", "10")
    path = table(tmp_path, lines(*["cat", "dog"] * 6))
    (tmp_path / "names.txt").write_text("dog\nemu\ncat\n")
    for classes in (["dog", "emu", "cat"], "names.txt"):
        given = spec(path, classes=classes)
        data = datasets.load_images(given, tmp_path / "cache")
        assert data.classes == ("dog", "emu", "cat")
        assert set(data.train.labels) == {0, 2}
        with pytest.warns(UserWarning, match="classes without training images: emu"):
            datasets.check_files(given, tmp_path / "cache")
    with pytest.raises(DataError, match=r"line 2 of labels.csv: 0.png: class 'cat' is not among the classes given"):
        datasets.load_images(spec(path, classes=["dog", "emu"]))


def test_a_class_of_the_test_rows_alone_is_refused(tmp_path: Path) -> None:
    text = lines(*(f"{'ab'[n % 2]},train" for n in range(11)), "c,test", head="path,label,split")
    with pytest.raises(DataError, match=r"line 13 of labels.csv: 11.png: class 'c' has no training images"):
        datasets.load_images(spec(table(tmp_path, text)))


def test_several_labels_come_from_lists_separators_and_columns(tmp_path: Path) -> None:
    names = [("red", "round"), ("blue",), (), ("blue", "round")] * 3
    expected = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 0, 1]] * 3)
    columns = "\n".join(["path,blue,red,round", *(f"{n}.png,{a},{b},{c}" for n, (a, b, c) in enumerate(expected))])
    tables = (
        (lines(*("|".join(one) for one in names)), "labels.csv", {"separator": "|"}),
        ("\n".join(f'{{"path": "{n}.png", "label": {list(one)}}}'.replace("'", '"') for n, one in enumerate(names)),
         "labels.jsonl", {}),
        (columns, "columns.csv", {"label": ["blue", "red", "round"]}),
    )  # fmt: skip
    for text, name, options in tables:
        given = spec(table(tmp_path, text, name), **options)
        data, test = datasets.load_images(given, tmp_path / "cache"), datasets.load_test(given, tmp_path / "cache")
        assert data.classes == ("blue", "red", "round")
        assert data.train.labels.shape[1] == 3
        every = np.concatenate([data.train.labels, data.val.labels, test.labels])
        assert sorted(map(tuple, every)) == sorted(map(tuple, expected))
    with pytest.raises(DataError, match=r"line 2 \(0.png\): column 'blue' is '2'; with several label columns each is"):
        datasets.load_images(spec(table(tmp_path, columns.replace("0.png,0", "0.png,2"), "columns.csv"),
                                  label=["blue", "red", "round"]))  # fmt: skip


def test_the_tables_of_the_splits_and_a_folder_with_one_table_are_found(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos")
    whole = datasets.load_images(spec(as_csv(root)), tmp_path / "cache")
    head, *rest = (root / "labels.csv").read_text().splitlines()
    same(whole, datasets.load_images(spec(root), tmp_path / "cache"))
    (root / "labels.csv").unlink()
    for part in ("train", "validation", "test"):
        members = [line.rpartition(",")[0] for line in rest if line.endswith(f",{part}")]
        (root / f"{part}.csv").write_text("\n".join([head.rpartition(",")[0], *members]))
    same(whole, datasets.load_images(spec(root), tmp_path / "cache"))
    (root / "train.csv").rename(root / "first.csv")
    with pytest.raises(DataError, match=r"must have one table of images, or train.csv, .* it has first.csv, test.csv"):
        datasets.check_source(spec(root))


def test_the_order_of_the_rows_does_not_matter_and_a_changed_picture_does(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos")
    first = datasets.load_images(spec(as_csv(root)), tmp_path / "cache")
    head, *rest = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([head, *reversed(rest)]))
    same(first, datasets.load_images(spec(root / "labels.csv"), tmp_path / "cache"))
    Image.new("RGB", (20, 9), "red").save(root / "train" / "hat" / "a.jpg")
    changed = datasets.load_images(spec(root / "labels.csv"), tmp_path / "cache")
    assert changed.fingerprint != first.fingerprint


def test_a_table_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    path = table(tmp_path, lines(*"abababababab"))
    datasets.check_source(spec(path))
    with pytest.raises(UsageError, match=r"data source 'manifest' needs a table of images .*--data-root PATH"):
        datasets.check_source(DataSpec("manifest"))
    with pytest.raises(DataError, match=r"label.csv' does not exist; did you mean '.*labels.csv'\?"):
        datasets.check_source(spec(tmp_path / "label.csv"))
    with pytest.raises(DataError, match=r"0.png is no table; allowed suffixes: .csv"):
        datasets.check_source(spec(tmp_path / "0.png"))
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        datasets.check_source(spec(tmp_path / "pipe.csv"))


def test_pictures_that_are_no_squares_are_reported_from_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path / "cache"))
    given = spec(as_csv(write_photos(tmp_path / "photos")))
    with pytest.warns(UserWarning, match=r"cuts off 3\d% of their pixels on average; 39 of 39 images lose more"):
        datasets.warn_of_cut(given, datasets.load_images(given))


def test_decoding_shows_its_progress(tmp_path: Path) -> None:
    given, calls = spec(as_csv(write_photos(tmp_path / "photos"))), []
    with datasets.decoding_shown(lambda done, total: calls.append((done, total))):
        datasets.check_files(given, tmp_path / "cache")
    assert calls[-1] == (12, 12)
    assert (39, 39) in calls
