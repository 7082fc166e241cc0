"""The whole way: a search that never opens the test split, a verification that is killed and goes on, what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import autodistill as ad
from autodistill.cli import app
from autodistill.core.errors import StoreError, UsageError
from autodistill.delivery.export.loading import load_verified, verified_facts
from autodistill.delivery.export.write import export
from autodistill.delivery.verify.prepare import plan_verification
from autodistill.search.results.verified import Verified, read_verified
from autodistill.training.data import datasets

pytestmark = pytest.mark.slow  # three processes that import torch, one after the other

TEST_IMAGES = 120
STUDENT = {"family": "resnetv2", "stages": 2, "depth": 1}
STUDY: dict[str, Any] = {
    "name": "small",
    "data": {"source": "fashion_mnist", "val_fraction": 0.2},
    "teacher": {"source": "auto", "accept_weak": True, "options": {"model": {**STUDENT, "width": 8}, "epochs": 2}},
    "space": {
        "student": {**STUDENT, "width": [4, 6]},
        "distillation": {"loss": "kd", "temperature": 2.0, "alpha": 0.5},
        "train": {"lr": 0.02, "batch_size": 32, "ema": 0.9},
    },
    "objectives": ["accuracy", "params"],
    "epochs": 2,
    "rungs": "off",
    "survey": "off",
    "sampler": "random",
    "workers": 1,
}
SCRIPT = """
import json, sys
from pathlib import Path

opened = []  # how many runs were trained when each test file was opened

def hook(event, arguments):
    if event == "open" and "t10k" in str(arguments[0]):
        opened.append(len(list(Path(sys.argv[2]).glob("verify/runs/*/student/student.json"))))

sys.addaudithook(hook)
import autodistill as ad

if __name__ == "__main__":
    keys, folder, what = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
    if what == "search":
        ad.search(ad.Study.create(**keys, directory=folder), budget="2trials")
    else:
        ad.verify(folder, seeds=2)
    print(json.dumps(opened))
"""


def write_idx(path: Path, array: np.ndarray) -> None:
    lengths = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes())


def write_images(root: Path, prefix: str, count: int, seed: int) -> None:
    """Brightness is the class, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    images = 40 + 50 * labels[:, None, None] + rng.integers(-25, 26, (count, 8, 8))
    write_idx(root / f"{prefix}-images-idx3-ubyte", images.clip(0, 255))
    write_idx(root / f"{prefix}-labels-idx1-ubyte", labels)


def start(folder: Path, keys: dict[str, Any], what: str) -> subprocess.Popen[bytes]:
    script = folder.parent / "script.py"
    script.write_text(SCRIPT)
    arguments = [sys.executable, "-W", "ignore", str(script), json.dumps(keys), str(folder), what]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def opened_by(process: subprocess.Popen[bytes]) -> list[int]:
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error.decode()
    found: list[int] = json.loads(out.decode().strip().splitlines()[-1])
    return found


def trained(folder: Path) -> dict[str, dict[str, Any]]:
    """Facts of the runs whose training is finished, by their key."""
    paths = folder.glob("verify/runs/*/student/student.json")
    return {path.parent.parent.name: json.loads(path.read_text()) for path in paths}


def results(folder: Path) -> dict[str, dict[str, Any]]:
    paths = folder.glob("verify/runs/*/result/result.json")
    return {path.parent.parent.name: json.loads(path.read_text()) for path in paths}


class Story:
    """A search, a verification killed in the middle, and the same verification to its end."""

    def __init__(self, root: Path) -> None:
        images = root / "images"
        images.mkdir()
        write_images(images, "train", 320, 0)
        write_images(images, "t10k", TEST_IMAGES, 1)
        self.root, self.folder = root, root / "study"
        keys = {**STUDY, "data": {**STUDY["data"], "root": str(images)}}
        with start(self.folder, keys, "search") as search:
            self.opened_by_search = opened_by(search)
        with start(self.folder, keys, "verify") as killed:
            self.when_killed = self._kill(killed)
        with start(self.folder, keys, "verify") as again:
            self.opened_by_verify = opened_by(again)

    def _kill(self, process: subprocess.Popen[bytes]) -> dict[str, dict[str, Any]]:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and process.poll() is None and len(trained(self.folder)) < 2:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return trained(self.folder)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    root = tmp_path_factory.mktemp("verify")
    patch = pytest.MonkeyPatch()
    patch.setenv("AUTODISTILL_CACHE", str(root / "cache"))
    patch.setenv("AUTODISTILL_LEASE", str(root / "lease"))
    yield Story(root)
    patch.undo()


@pytest.fixture(scope="module")
def verified(story: Story) -> Verified:
    found = read_verified(story.folder)
    assert found is not None
    return found


def test_a_search_opens_no_file_of_the_test_split(story: Story) -> None:
    assert story.opened_by_search == []


def test_the_test_split_is_opened_when_every_training_is_finished(story: Story, verified: Verified) -> None:
    assert story.opened_by_verify
    assert min(story.opened_by_verify) == verified.planned


def test_a_killed_verification_repeats_no_finished_run(story: Story, verified: Verified) -> None:
    assert 2 <= len(story.when_killed) < verified.planned
    after = results(story.folder)
    assert len(after) == verified.planned == verified.finished
    for key, facts in story.when_killed.items():  # the seconds of a training are measured, so equal is the same run
        assert after[key]["seconds"] == facts["seconds"]


def test_every_row_has_its_figures(story: Story, verified: Verified) -> None:
    assert verified.test_images == TEST_IMAGES
    assert verified.complete
    for row in verified.students:
        assert row.accuracy is not None
        assert row.accuracy.low is not None
        assert 0.25 < row.accuracy.mean <= 1.0
        assert row.file_bytes is not None
        assert row.file_bytes > row.costs["params"]
        assert row.file_latency_ms is not None
        assert row.searched is not None
        assert row.validation is not None
        assert row.flattered == pytest.approx(row.searched - row.validation.mean)
        twin = verified.twin(row.trial or 0)
        assert twin is not None
        assert twin.seeds == row.seeds
        assert twin.distillation == {"loss": "none"}
    teacher = verified.teacher_row()
    assert teacher is not None
    assert teacher.accuracy is not None
    for ending in ("json", "csv"):
        assert str(story.root) not in (story.folder / f"verify.{ending}").read_text()


def test_every_measure_has_an_interval_and_classes_have_the_figures_of_the_stored_predictions(
    story: Story, verified: Verified
) -> None:
    from sklearn import metrics

    from autodistill.training.trials.run_result import read_result

    labels = datasets.load_test(ad.Study.open(story.folder).config.data, story.root / "cache").labels
    teacher = verified.teacher_row()
    assert teacher is not None
    for row in (*verified.students, teacher):
        for name, figure in row.figures.items():
            assert figure.low is not None, name
            assert figure.low <= figure.mean <= (figure.high or 0), name
        assert sum(images for _, _, images in row.confusion) == TEST_IMAGES * max(len(row.seeds), 1)
    for row in verified.students:
        own = Path(row.weights).name
        stored = read_result(story.folder / "verify" / "runs" / own)
        assert stored is not None
        decided = stored.decisions()
        assert stored.measures["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, decided))
        assert (metrics.confusion_matrix(labels, decided) == np.asarray(stored.confusion)).all()
    one = ad.verify(story.folder, seeds=1, progress=False).students[0]  # recalls of a single run
    stored = read_result(story.folder / one.weights)
    assert stored is not None
    assert one.recalls == pytest.approx(metrics.recall_score(labels, stored.decisions(), average=None))
    ad.verify(story.folder, seeds=2, progress=False)


def test_the_kept_student_is_the_first_seed_and_gives_its_figure_again(story: Story, verified: Verified) -> None:
    row = verified.front[0]
    assert row.trial is not None
    model, facts = load_verified(story.folder, row.trial), verified_facts(story.folder, row.trial)
    data = ad.Study.open(story.folder).config.data
    test = datasets.load_test(data, story.root / "cache")
    mean, std = facts["mean"][0], facts["std"][0]
    with torch.inference_mode():
        logits = model((torch.from_numpy(test.images).float() / 255 - mean) / std)
    right = float((logits.argmax(1).numpy() == test.labels).mean())
    stored = results(story.folder)[Path(row.weights).name]
    assert stored["accuracy"] == pytest.approx(right)
    kept = {Path(one.weights).name for one in verified.students}
    assert set(trained(story.folder)) == kept  # the other seeds' weights are gone


def test_the_weights_that_are_exported_are_those_that_were_verified(
    story: Story, verified: Verified, tmp_path: Path
) -> None:
    row = next(row for row in verified.students if row.before)
    trial = next(one for one in ad.Study.open(story.folder).trials() if one.number == row.trial)
    kept, stored = load_verified(story.folder, trial.number), results(story.folder)[Path(row.weights).name]
    done = export(story.folder, trial, tmp_path / "verified", formats="safetensors", latency=False)
    assert (done.source.origin, done.source.seed) == ("verified", row.seeds[0])
    assert done.source.accuracy == stored["accuracy"]
    loaded = ad.load(tmp_path / "verified").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in kept.state_dict().items())
    card = (tmp_path / "verified" / "README.md").read_text()
    assert f"first of these 2 trainings (seed {row.seeds[0]})" in card
    assert f"classify {stored['accuracy']:.4f} of the test images correctly" in card
    origin = json.loads((tmp_path / "verified" / "provenance.json").read_text())
    assert origin["weights"] == {
        "from": "verified", "seed": row.seeds[0], "trained_on": "train", "test_accuracy": stored["accuracy"],
    }  # fmt: skip
    done = export(story.folder, trial, tmp_path / "search", formats="safetensors", weights="search", latency=False)
    assert (done.source.origin, done.source.seed) == ("search", trial.seed)
    loaded = ad.load(tmp_path / "search").state_dict()
    assert not all(torch.equal(value, loaded[name]) for name, value in kept.state_dict().items())
    assert "those of the search's own run" in (tmp_path / "search" / "README.md").read_text()


def test_nothing_is_trained_when_everything_is_finished(story: Story, verified: Verified) -> None:
    plan = plan_verification(story.folder, seeds=2)
    assert plan.waiting == ()
    assert len(plan.distinct) == verified.planned


def test_verify_shows_progress_by_default(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    ad.verify(story.folder, seeds=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("verify: ")
    ad.verify(story.folder, seeds=2, progress=False)
    assert capsys.readouterr() == ("", "")


def test_more_seeds_only_train_what_is_missing(story: Story, verified: Verified) -> None:
    plan = plan_verification(story.folder, seeds=3)
    assert len(plan.distinct) - len(plan.waiting) == verified.planned
    assert len(plan.waiting) * 2 == verified.planned


def test_training_on_validation_too_is_another_run_with_more_images(story: Story) -> None:
    plan = plan_verification(story.folder, seeds=1, refit="train+val")
    assert len(plan.waiting) == len(plan.distinct)
    assert len(plan.worker.data.train) == 320
    assert len(plan.worker.data.val) == 64


def test_a_changed_test_split_is_refused(story: Story) -> None:
    images = story.root / "images"
    before = (images / "t10k-images-idx3-ubyte").read_bytes()
    write_images(images, "t10k", TEST_IMAGES, 2)
    try:
        with pytest.raises(StoreError, match="the test images changed since"):
            ad.verify(story.folder, seeds=2)
    finally:
        (images / "t10k-images-idx3-ubyte").write_bytes(before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"refit": "val"}, "refit is 'val'; allowed: train or train"),
        ({"trials": [99]}, "trial 99 does not exist"),
        ({"baselines": ["resnet81"]}, "unknown timm network"),
        ({"top": 1, "trials": [0]}, "top and trials are both given"),
        ({"budget": "3trials"}, "verify is limited by time"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_trained(
    story: Story, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ad.verify(story.folder, **settings)


def test_the_command_prints_the_table_and_what_it_means(story: Story, verified: Verified) -> None:
    done = CliRunner().invoke(app, ["verify", str(story.folder), "--seeds", "2"])
    assert done.exit_code == 0, done.output
    assert f"{verified.planned} runs of 2 epochs, {verified.planned} of them finished already" in done.stderr
    assert "test accuracy" in done.stdout
    assert "The search had flattered its front by" in done.stderr
    as_json = CliRunner().invoke(app, ["verify", str(story.folder), "--seeds", "2", "--json"])
    assert Verified.from_json(json.loads(as_json.stdout)).finished == verified.planned


def test_a_dry_run_opens_no_test_file_and_writes_nothing(story: Story) -> None:
    before = {path: path.stat().st_mtime for path in story.folder.rglob("*.json")}
    done = CliRunner().invoke(app, ["verify", str(story.folder), "--seeds", "4", "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "the test split was not opened" in done.stderr
    assert {path: path.stat().st_mtime for path in story.folder.rglob("*.json")} == before


def test_a_search_may_verify_at_its_end(story: Story, tmp_path: Path) -> None:
    """The same students, so that only what is missing of the default three seeds is trained."""
    done = CliRunner().invoke(app, ["search", str(story.folder), "--budget", "2trials", "--verify", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["verified"]["seeds"] == 3
    assert found["verified"]["finished"] == found["verified"]["planned"]
