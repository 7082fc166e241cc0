"""What a trial leaves in a storage: ranked by training, for a changed teacher makes another one of the same trial."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from autodistill.core.records import DataSpec, Task, TeacherSpec
from autodistill.training.runtime import durable_files as checkpoint
from autodistill.training.runtime.durable_files import Checkpoint
from autodistill.training.runtime.remote_storage import RemoteFolder
from autodistill.training.trials.remote_trials import RemoteCopy, send_inputs, workplace
from autodistill.training.trials.trial_files import save_student, student_key, trial_folder


def copy_in(folder: Path, storage: Path) -> RemoteCopy:
    return RemoteCopy(folder, RemoteFolder.at(str(storage)))


def save(folder: Path, key: str, step: int) -> Path:
    return checkpoint.save(folder, Checkpoint(step, key, {"w": torch.full((2,), float(step))}))


def trained(copy: RemoteCopy, key: str, steps: Sequence[int]) -> None:
    for step in steps:
        copy.keep(save(copy.folder, key, step))


def finished(copy: RemoteCopy, key: str) -> None:
    copy.keep(save_student(copy.folder, {"w": torch.zeros(2)}, {"key": key}))


def step_of(folder: Path, key: str) -> int | None:
    found = checkpoint.load(folder, key=key)
    return None if found is None else found.step


def test_every_training_keeps_its_own_two_newest_checkpoints_however_far_another_has_come(tmp_path: Path) -> None:
    copy = copy_in(tmp_path / "trial", tmp_path / "storage")
    trained(copy, "old", (700, 800, 900))
    trained(copy, "new", (100, 200, 300))
    assert checkpoint.ranked(copy.remote_folder.names()) == {
        "old": ["step-000000900-old", "step-000000800-old"],
        "new": ["step-000000300-new", "step-000000200-new"],
    }


def test_the_newest_checkpoint_of_every_training_is_brought(tmp_path: Path) -> None:
    trained(copy_in(tmp_path / "one", tmp_path / "storage"), "old", (800, 900))
    trained(copy_in(tmp_path / "two", tmp_path / "storage"), "new", (900,))
    there = copy_in(tmp_path / "there", tmp_path / "storage")
    there.fetch()
    assert sorted(checkpoint.names(there.folder)) == ["step-000000900-new", "step-000000900-old"]
    assert (step_of(there.folder, "old"), step_of(there.folder, "new")) == (900, 900)


def test_what_is_as_far_here_is_not_brought_and_another_training_that_is_farther_does_not_count(
    tmp_path: Path,
) -> None:
    trained(copy_in(tmp_path / "one", tmp_path / "storage"), "old", (500,))
    trained(copy_in(tmp_path / "one", tmp_path / "storage"), "new", (100,))
    here = copy_in(tmp_path / "here", tmp_path / "storage")
    save(here.folder, "old", 900)
    here.fetch()
    assert sorted(checkpoint.names(here.folder)) == ["step-000000100-new", "step-000000900-old"]


def test_a_damaged_checkpoint_is_passed_over_within_its_training(tmp_path: Path) -> None:
    one = copy_in(tmp_path / "one", tmp_path / "storage")
    trained(one, "old", (800,))
    trained(one, "new", (100, 200))
    path = tmp_path / "storage" / "step-000000200-new"
    path.write_bytes(path.read_bytes()[:-1])
    there = copy_in(tmp_path / "there", tmp_path / "storage")
    with pytest.warns(UserWarning, match=r"step-000000200-new .*is damaged.*The checkpoint before it is used"):
        there.fetch()
    assert (step_of(there.folder, "new"), step_of(there.folder, "old")) == (100, 800)


def test_what_a_training_saves_after_it_went_back_is_what_is_kept(tmp_path: Path) -> None:
    copy = copy_in(tmp_path / "trial", tmp_path / "storage")
    trained(copy, "key", (800, 900))
    copy.keep(save(copy.folder, "key", 100))
    assert copy.remote_folder.names() == ["step-000000100-key", "step-000000900-key"]


def test_a_finished_student_takes_the_place_of_every_checkpoint_and_of_an_earlier_student(tmp_path: Path) -> None:
    copy = copy_in(tmp_path / "trial", tmp_path / "storage")
    trained(copy, "old", (100,))
    finished(copy, "old")
    assert copy.remote_folder.names() == ["student-old"]
    trained(copy, "new", (50, 100))  # an earlier student does not keep a new training from being kept
    assert copy.remote_folder.names() == ["step-000000050-new", "step-000000100-new", "student-old"]
    there = copy_in(tmp_path / "there", tmp_path / "storage")
    there.fetch()
    assert (student_key(there.folder), step_of(there.folder, "new")) == ("old", 100)
    finished(copy, "new")
    assert copy.remote_folder.names() == ["student-new"]


def test_a_student_of_another_training_is_replaced_only_by_one_that_is_known_to_be_later(tmp_path: Path) -> None:
    finished(copy_in(tmp_path / "there", tmp_path / "storage"), "new")
    here = copy_in(tmp_path / "here", tmp_path / "storage")
    save_student(here.folder, {}, {"key": "old"})
    here.fetch()
    assert student_key(here.folder) == "old"
    here.fetch(replace=True)
    assert student_key(here.folder) == "new"


def test_before_workers_begin_the_storage_is_made_to_agree_with_the_study_s_folder(tmp_path: Path) -> None:
    finished(copy_in(tmp_path / "there", tmp_path / "storage"), "old")
    here = copy_in(tmp_path / "here", tmp_path / "storage")
    for key, steps in (("one", (1, 2)), ("two", (3,))):
        for step in steps:
            save(here.folder, key, step)
    here.send(here.remote_folder.names())
    assert here.remote_folder.names() == ["step-000000002-one", "step-000000003-two", "student-old"]
    save_student(here.folder, {}, {"key": "new"})
    here.send(here.remote_folder.names())  # the student there is not the one that stands here any more
    assert here.remote_folder.names() == ["step-000000002-one", "step-000000003-two"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        here.fetch(replace=True)
    assert student_key(here.folder) == "new"


def test_weights_of_a_space_reach_a_worker_that_cannot_read_this_machine(tmp_path: Path) -> None:
    save_file({"w": torch.full((2,), 7.0)}, tmp_path / "own.safetensors")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "config.json").write_text("{}")
    save_student(trial_folder(tmp_path / "study", 4), {"w": torch.zeros(2)}, {"key": "k"})
    texts = {
        "lcnet_050": str(tmp_path / "own.safetensors"),
        "lcnet_075": f"local-dir:{tmp_path / 'made'}",
        "lcnet_100": f"{tmp_path / 'study'}#4",
        "tinynet_e": "tinynet_e.in1k",
    }
    task = Task(DataSpec("digits"), TeacherSpec("auto"), str(tmp_path / "study"), (1,), ("accuracy",), weights=texts)
    storage = tmp_path / "storage"
    send_inputs(task, RemoteFolder(storage.as_uri()))
    for name in ("own.safetensors", "made", "study"):
        (tmp_path / name).rename(tmp_path / f"gone-{name}")

    class Owner:
        pass

    owner = Owner()
    there = workplace(task, storage.as_uri(), owner).task.weights
    assert load_file(there["lcnet_050"])["w"].tolist() == [7.0, 7.0]
    assert (Path(there["lcnet_075"].removeprefix("local-dir:")) / "config.json").is_file()
    assert (Path(there["lcnet_100"]) / "student.json").is_file()
    assert there["tinynet_e"] == "tinynet_e.in1k"
