"""What a factory or a plugin returns is checked field by field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodistill.core.errors import DataError
from autodistill.core.records import DataSpec
from autodistill.training.data import datasets
from autodistill.training.data.sources.base import LabelledImages

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 3, 4, 4), dtype=np.uint8)
LABELS = np.arange(12) % 3
NAMES = ("a", "b", "c")
MASK = np.arange(12) >= 9


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "returned_pool.py").write_text("value = None\ndef make(part):\n    return value\n")
    monkeypatch.syspath_prepend(tmp_path)
    import importlib

    module = importlib.import_module("returned_pool")

    def load(value: Any) -> datasets.ImageData:
        monkeypatch.setattr(module, "value", value, raising=False)
        return datasets.load_images(DataSpec("returned_pool:make"), tmp_path / "cache")

    return load


def pool(**fields: Any) -> LabelledImages:
    return LabelledImages(**{"images": IMAGES, "labels": LABELS, "classes": NAMES, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": IMAGES.astype(float)}, r"images of type float64; expected uint8"),
        ({"images": IMAGES.tolist()}, r"images as list; expected a numpy array"),
        ({"images": IMAGES.transpose(0, 2, 3, 1)}, r"The channels are last: use images.transpose\(0, 3, 1, 2\)"),
        ({"images": IMAGES[:0]}, r"0 images and 12 labels"),
        ({"labels": LABELS.tolist()}, r"labels as list; expected a numpy array"),
        ({"labels": LABELS.astype(float)}, r"labels float64 \(12,\); expected integers"),
        ({"labels": LABELS == 1}, r"labels bool \(12,\); expected integers"),
        ({"labels": LABELS[:7]}, r"12 images and 7 labels"),
        ({"labels": LABELS - 1}, r"labels from -1 to 1; allowed: 0 to 2"),
        ({"labels": np.eye(3, dtype=int)[LABELS][:, :2]}, r"labels of shape \(12, 2\) and 3 classes"),
        ({"classes": "abc"}, r"class names as str; expected a list"),
        ({"classes": {"a", "b", "c"}}, r"class names as set; expected a list"),
        ({"classes": {"a": 0, "b": 1, "c": 2}}, r"keys 'a', 'b', 'c'; .* It is \{name: index\}; turn it round"),
        ({"classes": {0: "a", 1: "b", 3: "c"}}, r"keys 0, 1, 3; expected a list, or \{index: name\} with .* 0 to 2"),
        ({"classes": ["a", "b", "b"]}, r"class name 'b' twice"),
        ({"classes": ["a", "b", None]}, r"NoneType as a class name"),
        ({"classes": ["a", "b", ""]}, r"an empty text as a class name"),
        ({"validation": np.flatnonzero(MASK)}, r"validation mask int64 \(3,\); expected bool \(12,\)"),
        ({"validation": MASK.astype(int)}, r"validation mask int64 \(12,\); expected bool \(12,\)"),
        ({"validation": MASK[:5]}, r"validation mask bool \(5,\); expected bool \(12,\)"),
        ({"validation": MASK.tolist()}, r"validation mask list; expected bool \(12,\)"),
        ({"validation": np.ones(12, bool)}, r"marks all 12 images as validation"),
        ({"fingerprint": 7}, r"fingerprint 7; expected a text"),
    ],
)  # fmt: skip
def test_a_field_of_another_kind_is_refused(load: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(pool(**fields))


def test_names_by_index_and_numbers_are_class_names(load: Any) -> None:
    assert load(pool(classes={2: "c", 0: "a", 1: "b"})).classes == NAMES
    assert load(pool(classes={"2": "c", "0": "a", "1": "b"})).classes == NAMES  # as JSON has them
    assert load((IMAGES, LABELS, np.array(NAMES))).classes == NAMES
    assert load((IMAGES, LABELS, [7, 8, 9])).classes == ("7", "8", "9")
    assert load((IMAGES, LABELS)).classes == ("0", "1", "2")
    with pytest.raises(DataError, match="class names as str"):
        load((IMAGES, LABELS, "abc"))


def test_a_good_mask_is_used(load: Any) -> None:
    data = load(pool(validation=MASK))
    assert data.val.ids.tolist() == [9, 10, 11]
