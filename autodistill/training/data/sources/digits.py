"""scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels in 10 classes, included in the package.

The set is a copy of the test part of the UCI "Optical Recognition of Handwritten Digits" data (Alpaydin and Kaynak,
1998). A pixel value is a count of dots, 0 to 16. The set has no split of its own: a fifth is held out as test set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autodistill.core.records import MULTICLASS, DataSpec
from autodistill.training.data.sources.base import (
    LabelledImages,
    Part,
    check_options,
    class_readers,
    data_sources,
    label_kinds,
)
from autodistill.training.data.sources.splits import TEST_FRACTION, TEST_SEED, hold_out

CLASSES = tuple(str(digit) for digit in range(10))
label_kinds.register("digits")(MULTICLASS)


@class_readers.register("digits")
def digit_names(spec: DataSpec) -> tuple[str, ...]:
    """Return the class names."""
    del spec
    return CLASSES


@data_sources.register("digits")
def digits(spec: DataSpec, part: Part, cache_dir: Path) -> LabelledImages:
    """Return the images of one part, ``(n, 1, 8, 8)``."""
    del cache_dir  # scikit-learn contains the images
    check_options(spec)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    test = hold_out(labels, TEST_FRACTION, seed=TEST_SEED, stream="test")
    keep = test if part == "test" else ~test
    return LabelledImages(images[keep], labels[keep], CLASSES)
