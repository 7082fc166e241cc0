"""Training, validation and test part must agree: classes, sizes, order, copies, and what lies beside the images."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from picture_sets import write_photos
from PIL import Image
from typer.testing import CliRunner

import autodistill as ad
from autodistill import cli
from autodistill.core.errors import DataError, UnlikeImagesError, UserCodeError
from autodistill.core.records import Candidate, DataSpec, State, Task, TeacherSpec, WorkerContext
from autodistill.engines.driving.worker import pack_error, unpack_error
from autodistill.search.study.end_states import end_by_error
from autodistill.search.study.stopping import Streak
from autodistill.training.data import datasets
from autodistill.training.data.copies import MarkedPart, contradictions, marks, to_drop
from autodistill.training.data.sources.image_folder import list_images
from autodistill.training.trials.evaluate import evaluator

CODE = '''
import numpy as np

calls = 0

def pixels(count, seed, channels=3, side=8):
    return np.random.default_rng(seed).integers(0, 256, (count, channels, side, side), dtype=np.uint8)

def make(part, classes=None, channels=3, side=8, labels=(0, 1, 2)):
    """The options change the test part."""
    if part == "train":
        return pixels(60, 0), np.arange(60) % 3, ["a", "b", "c"]
    return pixels(30, 1, channels, side), np.resize(labels, 30), classes or ["a", "b", "c"]

def without_test(part):
    if part == "test":
        raise FileNotFoundError("no test images")
    return make(part)

def shuffled(part):
    """Another order at every call, as from a set of paths."""
    global calls
    calls += 1
    order = np.random.default_rng(calls).permutation(60)
    images, labels, names = make("train")
    return images[order], labels[order], names

def with_copies(part):
    images, labels, names = make(part)
    train = make("train")[0]
    if part == "test":
        images[:4] = train[:4]
    else:
        images[59] = images[57]  # another class
        images[58] = images[55]  # the same class
    return images, labels, names
'''


TEACHER = """
from torch import nn

class Colour(nn.Module):
    def forward(self, x):
        return 20 * x.mean((2, 3))
"""


@pytest.fixture(autouse=True)
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "parts_of_mine.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield
    import sys

    sys.modules.pop("parts_of_mine", None)


def check(spec: DataSpec, cache: Path) -> datasets.ImageData:
    datasets.check_files(spec, cache)
    data = datasets.load_images(spec, cache)
    datasets.check_parts(spec, data, cache)
    return data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["b", "a", "c"]}, r"test part in another order: class 0 is 'a' in training and 'b' in the test"),
        ({"classes": ["a", "b", "d"]}, r"only in training: 'c'; only in the test part: 'd'"),
        ({"classes": ["a", "b", "c", "d"]}, r"test part \(4\) than for training \(3\): only in training: none"),
        ({"side": 12}, r"images of 12 x 12 pixels with 3 channels for the test part and of 8 x 8 .* data.image_size"),
        ({"channels": 1}, r"8 x 8 pixels with 1 channel for the test part and of 8 x 8 pixels with 3 channels for"),
    ],
)  # fmt: skip
def test_a_test_part_unlike_training_is_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check(DataSpec("parts_of_mine:make", options=options), tmp_path)
    if "side" in options:
        check(DataSpec("parts_of_mine:make", image_size=8, options=options), tmp_path)


def test_a_dry_run_finds_classes_in_another_order(tmp_path: Path) -> None:
    call = ["search", "--data", "parts_of_mine:make", "--image-size", "8", "--dry-run", "--dir", str(tmp_path / "s")]
    result = CliRunner().invoke(cli.app, [*call, "--set", "data.options.classes=[b, a, c]", "--set",
                                          "data.val_fraction=0.3"])  # fmt: skip
    assert result.exit_code == 2
    assert "gives the classes of the test part in another order" in " ".join(result.output.split())


def test_classes_without_images_and_a_test_part_that_is_missing_are_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"classes without images: the test part has no images of 'c'\."):
        check(DataSpec("parts_of_mine:make", options={"labels": [0, 1]}), tmp_path)
    with pytest.warns(UserWarning, match=r"test part cannot be read, so 'verify' will fail: .*no test images"):
        check(DataSpec("parts_of_mine:without_test"), tmp_path)
    root = write_photos(tmp_path / "photos")
    shutil.rmtree(root / "validation" / "hat")
    with pytest.warns(UserWarning, match=r"the validation part has no images of 'hat'"):
        check(DataSpec("image_folder", root=str(root), image_size=8), tmp_path)


def test_a_worker_with_another_order_of_the_images_ends_the_search(tmp_path: Path) -> None:
    spec = DataSpec("parts_of_mine:shuffled")
    key = datasets.images_key(datasets.load_images(spec, tmp_path))
    task = Task(spec, TeacherSpec("parts_of_mine:none"), str(tmp_path), (1,), ("accuracy",), images=key)
    candidate = Candidate(0, {"family": "resnetv2", "width": 4, "stages": 2}, {"loss": "none"}, {"lr": 0.1}, 0)
    with pytest.raises(
        UnlikeImagesError, match="gave other images, or another order, than when the search began"
    ) as one:
        list(evaluator(task, WorkerContext())(candidate))
    state, reason, message = end_by_error(unpack_error(pack_error(one.value)), "")
    assert (state, reason) == (State.FAIL, "IMAGES")
    streak = Streak()
    streak.ended(state, reason, message)
    with pytest.raises(UserCodeError, match="another order"):
        streak.check()


def test_a_search_whose_worker_reads_another_order_ends_with_exit_code_4(tmp_path: Path) -> None:
    (tmp_path / "teacher_of_mine.py").write_text(TEACHER)
    study = ad.create_study(
        data={"source": "parts_of_mine:shuffled", "image_size": 8},
        teacher={"source": "teacher_of_mine:Colour", "accept_weak": True},
        space={"student": {"family": "resnet", "width": [2, 3], "depth": 1}, "train": {"lr": [0.001, 0.003, 0.01]}},
        objectives=["accuracy", "params"],
        epochs=1,
        rungs="off",
        survey="off",
        sampler="random",
        directory=tmp_path / "study",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the test part has the same images, and the teacher knows nothing
        with pytest.raises(
            UserCodeError, match="gave other images, or another order, than when the search began"
        ) as one:
            ad.search(study, budget="4trials", progress=False)
    assert one.value.exit_code == 4
    assert [(trial.state, trial.reason) for trial in study.trials()] == [(State.FAIL, "IMAGES")]


def test_a_worker_with_the_same_images_goes_on(tmp_path: Path) -> None:
    spec = DataSpec("parts_of_mine:make")
    data = datasets.load_images(spec, tmp_path)
    assert datasets.same_images(datasets.load_images(spec, tmp_path), datasets.images_key(data), spec).pool_size == 60


def test_copies_across_parts_and_classes_are_counted_and_left_out(tmp_path: Path) -> None:
    spec = DataSpec("parts_of_mine:with_copies", val_fraction=0.2)
    with pytest.warns(UserWarning, match="copies of the same picture") as caught:
        whole = check(spec, tmp_path)
    (message,) = {str(one.message) for one in caught}
    split = {int(i): name for name in ("train", "val") for i in getattr(whole, name).ids}
    in_training = sum(split[i] == "train" for i in range(4))
    if in_training:
        assert f"{in_training} training images are also in the test part" in message
    assert "1 picture has copies with different labels ('a' and 'c')" in message
    assert "--drop-duplicates" in message
    kept = datasets.load_images(DataSpec(spec.source, val_fraction=0.2, drop_duplicates=True), tmp_path)
    gone = set(whole.train.ids.tolist()) - set(kept.train.ids.tolist())
    expected = {i for i in range(4) if split[i] == "train"} | {i for i in (57, 59) if split[i] == "train"}
    if split[55] != split[58]:
        expected |= {i for i in (55, 58) if split[i] == "train"}
    assert gone == expected
    assert np.array_equal(whole.val.ids, kept.val.ids)
    assert whole.fingerprint == kept.fingerprint


def test_copies_of_files_are_found_by_their_pixels(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos")
    spec = DataSpec("image_folder", root=str(root), image_size=8)
    Image.open(root / "train" / "boot" / "b.png").save(root / "test" / "boot" / "copy.bmp")
    shutil.copy(root / "train" / "coat" / "a.jpg", root / "validation" / "coat" / "copy.jpg")
    shutil.copy(root / "train" / "hat" / "a.jpg", root / "train" / "coat" / "hat.jpg")
    shutil.copy(root / "train" / "hat" / "b.png", root / "train" / "hat" / "same.png")  # harmless
    with pytest.warns(UserWarning, match="copies of the same picture") as caught:
        check(spec, tmp_path / "cache")
    message = str(caught[-1].message)
    for part in (
        "1 training images are also in the validation part",
        "1 training images are also in the test part",
        "1 picture has copies with different labels ('coat' and 'hat')",
    ):
        assert part in message
    kept = DataSpec("image_folder", root=str(root), image_size=8, drop_duplicates=True)
    assert len(datasets.load_images(kept, tmp_path / "cache").train) == 32 - 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(kept, tmp_path / "cache")


def test_a_class_that_would_vanish_with_its_copies_is_refused(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos")
    shutil.copytree(root / "train" / "hat", root / "test" / "hat", dirs_exist_ok=True)
    spec = DataSpec("image_folder", root=str(root), image_size=8, drop_duplicates=True)
    with pytest.raises(DataError, match=r"leaves no training images of 'hat'"):
        datasets.load_images(spec, tmp_path / "cache")


def test_marks_are_equal_exactly_where_pixels_are() -> None:
    images = np.random.default_rng(0).integers(0, 2, (400, 1, 2, 3), dtype=np.uint8)
    found = marks(images)
    pixels = images.reshape(400, -1)
    expected = (pixels[:, None] == pixels[None]).all(2)
    assert np.array_equal(found[:, None] == found[None], expected)
    labels = np.arange(400) % 7
    conflicts = (expected & (labels[:, None] != labels[None])).any(1)
    assert np.array_equal(contradictions(MarkedPart(found, labels)), conflicts)
    part, other = MarkedPart(found[:200], labels[:200] * 0), MarkedPart(found[200:], labels[200:])
    assert np.array_equal(to_drop(part, [other]), expected[:200, 200:].any(1))


def test_the_flag_reaches_the_study(tmp_path: Path) -> None:
    from autodistill.config.study_file import StudyConfig, differences

    config = StudyConfig.load(None, {"data.drop_duplicates": True})
    assert config.data is not None
    assert config.data.drop_duplicates
    assert StudyConfig.load(config.resolved()).data == config.data
    assert differences(StudyConfig.load(None, {}), config) == [
        "data.drop_duplicates: the study has False, this run has True"
    ]


def test_linked_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos", {"train": 4})
    more = write_photos(tmp_path / "more", {"x": 3}) / "x" / "hat"
    (root / "train" / "hat" / "linked").symlink_to(more)
    (more / "back").symlink_to(root / "train" / "hat")
    (root / "train" / "hat" / "self").symlink_to(root / "train" / "hat")
    (root / "train" / "hat" / "again").symlink_to(more)
    listing = list_images(root, "train")
    tested = list_images(root, "test")
    names = [path for path in (*listing.files, *tested.files) if "hat" in path.parts]
    assert len(names) == 4 + 3
    assert listing.files == list_images(root, "train").files


def test_pipes_loose_images_and_what_a_mac_adds_do_not_disturb(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos")
    before = datasets.load_images(DataSpec("image_folder", root=str(root), image_size=8), tmp_path / "first")
    os.mkfifo(root / "train" / "hat" / "pipe.jpg")
    os.mkfifo(root / "train" / "hat" / "pipe")
    (root / "__MACOSX" / "train" / "hat").mkdir(parents=True)
    (root / "__MACOSX" / "train" / "hat" / "._a.jpg").write_text("x")
    (root / "train" / "__MACOSX").mkdir()
    (root / "train" / "__MACOSX" / "a.jpg").write_text("x")
    (root / "train" / "hat" / "._a.jpg").write_text("x")
    shutil.copy(root / "train" / "hat" / "a.jpg", root / "loose.jpg")
    shutil.copy(root / "train" / "hat" / "a.jpg", root / "train" / "loose.jpg")
    (root / "rest" / "x").mkdir(parents=True)
    spec = DataSpec("image_folder", root=str(root), image_size=8)
    with pytest.warns(UserWarning, match="left out") as caught:
        datasets.check_files(spec, tmp_path / "cache")
    said = "\n".join(str(one.message) for one in caught)
    assert f"images beside the class folders are left out: 1 in {root}, 1 in {root / 'train'}." in said
    assert f"no files: {root / 'train' / 'hat' / 'pipe'}" in said
    assert "folders beside those of the splits are left out: rest." in said
    after = datasets.load_images(spec, tmp_path / "cache")
    assert after.fingerprint == before.fingerprint
