"""Unlabelled images: which are read, and which are left out because they are labelled images already."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from autodistill.core.errors import DataError, UnknownNameError, UsageError
from autodistill.core.records import DataSpec
from autodistill.training.data import datasets
from autodistill.training.data.unlabelled import near_copies

SIDE = 32


def picture(seed, size=48):
    """Return a smooth colour picture with a few edges, like a photograph."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)).copy()
    top, left = rng.integers(0, size // 2, 2)
    pixels[top : top + size // 3, left : left + size // 3] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


@pytest.fixture
def photos(tmp_path):
    """Write class folders with own validation and test images, and return the folder."""
    root, seed = tmp_path / "photos", 0
    for part, count in (("train", 6), ("val", 3), ("test", 3)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                picture(seed).save(root / part / name / f"{number}.png")
                seed += 1
    return root


@pytest.fixture
def further(tmp_path):
    """Write five new pictures into nested folders, and return the folder."""
    root = tmp_path / "further"
    (root / "a" / "b").mkdir(parents=True)
    for number in range(5):
        picture(100 + number).save((root if number < 2 else root / "a" / "b") / f"new{number}.png")
    (root / "notes.txt").write_text("no image")
    return root


def load(photos, further, **keys):
    spec = DataSpec("image_folder", root=str(photos), image_size=SIDE, unlabelled=further, **keys)
    return datasets.load_images(spec)


def test_images_at_any_depth_become_unlabelled_images_with_ids_of_their_own(photos, further):
    plain, data = load(photos, None), load(photos, str(further))
    assert plain.unlabelled is None
    assert data.unlabelled.images.shape == (5, 3, SIDE, SIDE)
    assert data.unlabelled.ids.tolist() == list(range(18, 23))
    assert data.pool_size == plain.pool_size + 5
    assert sum(data.unlabelled.left_out.values()) == 0
    for name in ("train", "val"):
        assert np.array_equal(getattr(data, name).ids, getattr(plain, name).ids)
    assert (data.mean, data.std, data.classes) == (plain.mean, plain.std, plain.classes)


def test_the_fingerprint_covers_the_unlabelled_images(photos, further):
    plain, data = load(photos, None), load(photos, str(further))
    assert load(photos, str(further)).fingerprint == data.fingerprint != plain.fingerprint
    picture(200).save(further / "more.png")
    assert load(photos, str(further)).fingerprint != data.fingerprint


def test_copies_of_labelled_images_and_repeated_ones_are_left_out_and_counted(photos, further):
    (further / "copies").mkdir()
    for place, name in (("val/cat/0", "v0"), ("val/dog/2", "v1"), ("test/cat/1", "t0"), ("train/dog/0", "r0")):
        (further / "copies" / f"{name}.png").write_bytes((photos / f"{place}.png").read_bytes())
    (further / "copies" / "twice.png").write_bytes((further / "new0.png").read_bytes())
    data = load(photos, str(further))
    assert data.unlabelled.left_out == {"validation": 2, "test": 1, "training": 1, "repeated": 1}
    assert len(data.unlabelled) == 5
    assert data.unlabelled.words() == (
        "5 unlabelled images (left out: 2 among the validation images, 1 among the test images, "
        "1 among the labelled training images, 1 repeated)"
    )
    test = datasets.load_test(DataSpec("image_folder", str(photos), SIDE))
    held = {image.tobytes() for image in (*data.val.images, *test.images)}
    assert not {image.tobytes() for image in data.unlabelled.images} & held


@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize("how", ["jpeg", "smaller", "mirrored", "mirrored jpeg", "brighter"])
def test_a_copy_that_was_changed_a_little_is_found_too(photos, further, part, how):
    with Image.open(photos / part / "cat" / "1.png") as image:
        copy = image.convert("RGB")
    if "mirrored" in how:
        copy = ImageOps.mirror(copy)
    if how == "smaller":
        copy = copy.resize((40, 40), Image.Resampling.BICUBIC)
    if how == "brighter":
        copy = copy.point(lambda level: min(255, round(level * 1.08)))
    copy.save(further / f"copy.{'jpg' if 'jpeg' in how else 'png'}", **({"quality": 40} if "jpeg" in how else {}))
    data = load(photos, str(further))
    assert data.unlabelled.left_out["validation" if part == "val" else "test"] == 1
    assert len(data.unlabelled) == 5


def test_different_pictures_are_no_near_copies_whatever_their_contrast():
    ours = np.stack([np.asarray(picture(seed, SIDE)).transpose(2, 0, 1) for seed in range(300)])
    theirs = np.stack([np.asarray(picture(1000 + seed, SIDE)).transpose(2, 0, 1) for seed in range(300)])
    assert not near_copies(ours, theirs).any()
    faint = (ours // 8 + 100).astype(np.uint8)
    assert not near_copies(faint, (theirs // 8 + 100).astype(np.uint8)).any()
    assert near_copies(faint, faint).all()
    black = np.zeros((2, 3, SIDE, SIDE), dtype=np.uint8)
    assert not near_copies(black, black).any()  # nothing is seen on them: only equal pixels count


def test_training_images_without_their_label_may_be_unlabelled(photos):
    data = load(photos, str(photos / "train"), train_size=6)
    assert data.unlabelled.left_out == {"validation": 0, "test": 0, "training": 6, "repeated": 0}
    assert len(data.unlabelled) == 6
    rows = {image.tobytes() for image in data.train.images} | {image.tobytes() for image in data.unlabelled.images}
    assert len(rows) == 12


def test_all_of_them_copies_is_an_error(photos):
    with pytest.raises(DataError, match=r"all 12 unlabelled images of .* are copies of labelled images"):
        load(photos, str(photos / "train"))


def test_a_registered_source_gives_its_images_in_the_size_and_channels_of_the_labelled_ones(photos):
    data = load(photos, {"source": "digits"})
    assert data.unlabelled.images.shape[1:] == (3, SIDE, SIDE)
    digits = datasets.load_images(DataSpec("digits", image_size=8, unlabelled={"source": "synthetic"}))
    assert digits.unlabelled.images.shape[1:] == (1, 8, 8)


def test_grey_studies_read_folders_in_grey(photos, further):
    data = load(photos, str(further), options={"channels": 1})
    assert data.unlabelled.images.shape == (5, 1, SIDE, SIDE)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("nowhere/at/all", DataError, "not a folder; expected unlabelled images"),
        ({"root": "x", "source": "digit"}, UnknownNameError, "did you mean 'digits'"),
        ({"roots": "x"}, UnknownNameError, "did you mean 'root'"),
        ({"source": "folder"}, UsageError, "needs a folder: --unlabelled DIR"),
        (3, UsageError, "give a folder, or a mapping"),
    ],
)
def test_a_wrong_place_is_refused_before_images_are_read(photos, given, error, message):
    with pytest.raises(error, match=message):
        datasets.check_source(DataSpec("image_folder", root=str(photos), unlabelled=given))


def test_a_broken_file_is_named(photos, further):
    (further / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 6 images cannot be read.*\n.*broken\.png"):
        load(photos, str(further))


def test_the_comparison_is_made_once_and_read_from_the_cache_afterwards(photos, further, monkeypatch):
    first = load(photos, str(further))
    monkeypatch.setattr("autodistill.training.data.unlabelled._codes", None)
    assert load(photos, str(further)).fingerprint == first.fingerprint
