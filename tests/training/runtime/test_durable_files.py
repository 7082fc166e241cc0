import json
import os
import pickle

import pytest
import torch

from autodistill.core.errors import ResourceError, StoreError
from autodistill.training.runtime import durable_files as checkpoint
from autodistill.training.runtime.durable_files import Checkpoint


def at(step, value=0.0):
    return Checkpoint(step, "key", {"w": torch.full((3, 4), value), "n": torch.tensor(7)}, {"lr": 0.1})


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_what_is_saved_is_loaded(tmp_path):
    checkpoint.save(tmp_path, at(3, 1.5))
    found = checkpoint.load(tmp_path, key="key")
    assert (found.step, found.facts) == (3, {"lr": 0.1})
    assert torch.equal(found.tensors["w"], torch.full((3, 4), 1.5))
    assert found.tensors["n"].dtype == torch.int64


def test_the_two_newest_are_kept_and_the_newest_is_loaded(tmp_path):
    for step in (1, 20, 3):
        checkpoint.save(tmp_path, at(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000003-key", "step-000000020-key"]
    assert checkpoint.load(tmp_path, key="key").step == 20


def test_another_key_is_another_training(tmp_path):
    checkpoint.save(tmp_path, at(1))
    assert checkpoint.load(tmp_path, key="other") is None
    assert checkpoint.load(tmp_path / "nothing", key="key") is None


def test_what_was_just_saved_stays_whatever_another_training_left_there(tmp_path):
    for step in (800, 900):
        checkpoint.save(tmp_path, at(step))
    for step in (100, 200, 300):
        assert checkpoint.save(tmp_path, Checkpoint(step, "other", {"w": torch.full((2,), step)})).is_dir()
        assert checkpoint.load(tmp_path, key="other").step == step
    assert checkpoint.ranked(checkpoint.names(tmp_path)) == {
        "key": ["step-000000900-key", "step-000000800-key"],
        "other": ["step-000000300-other", "step-000000200-other"],
    }
    assert checkpoint.load(tmp_path, key="key").step == 900


def test_two_trainings_that_have_come_equally_far_do_not_replace_each_other(tmp_path):
    for key, value in (("key", 1.0), ("other", 2.0)):
        checkpoint.save(tmp_path, Checkpoint(100, key, {"w": torch.tensor(value)}))
    assert checkpoint.load(tmp_path, key="key").tensors["w"] == 1
    assert checkpoint.load(tmp_path, key="other").tensors["w"] == 2


def test_what_was_just_saved_stays_where_later_ones_of_its_own_are_damaged(tmp_path):
    for step in (800, 900):
        flip_bit(checkpoint.save(tmp_path, at(step)) / "tensors.safetensors")
    for step in (100, 200):
        checkpoint.save(tmp_path, at(step))
    with pytest.warns(UserWarning, match="step-000000900"):
        assert checkpoint.load(tmp_path, key="key").step == 200


@pytest.mark.parametrize("tidy", [lambda folder: checkpoint.save(folder, at(4)), checkpoint.clear])
def test_what_a_killed_writer_left_goes_with_the_next_save_or_clear(tmp_path, tidy):
    folder = tmp_path / "trial-00000"
    for name in (".step-000000003-ab12cd34", ".student-ef56gh78"):
        (folder / name).mkdir(parents=True)
        (folder / name / "tensors.safetensors").write_bytes(b"a part")
    checkpoint.write_folder(folder / "student", {"a": b"1"})
    (folder / ".note").write_text("a user's own")
    tidy(folder)
    assert {path.name for path in folder.iterdir()} - {"step-000000004-key"} == {"student", ".note"}


@pytest.mark.parametrize("damage", ["flip", "truncate", "zero_tail", "empty", "no_manifest", "no_file", "no_json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, damage):
    checkpoint.save(tmp_path, at(1, 1.0))
    newest = checkpoint.save(tmp_path, at(2, 2.0))
    tensors = newest / "tensors.safetensors"
    size = tensors.stat().st_size
    if damage == "flip":
        flip_bit(tensors)
    elif damage == "truncate":
        os.truncate(tensors, size // 2)
    elif damage == "zero_tail":
        tensors.write_bytes(tensors.read_bytes()[:-16] + bytes(16))
    elif damage == "empty":
        tensors.write_bytes(b"")
    elif damage == "no_json":
        (newest / checkpoint.MANIFEST).write_text("{")
    else:
        (newest / (checkpoint.MANIFEST if damage == "no_manifest" else "facts.json")).unlink()
    with pytest.warns(UserWarning, match="step-000000002"):
        found = checkpoint.load(tmp_path, key="key")
    assert found.step == 1
    assert torch.equal(found.tensors["w"], torch.full((3, 4), 1.0))


def test_a_write_that_fails_keeps_what_was_there_and_leaves_no_rubbish(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, at(1))
    calls = []

    def failing(descriptor):
        calls.append(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(ResourceError, match="No space left on device"):
        checkpoint.save(tmp_path, at(2))
    monkeypatch.undo()
    assert calls
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001-key"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    checkpoint.write_folder(tmp_path / "model", {"a": b"1", "b": b"2"}, facts={"x": 1})
    checkpoint.write_folder(tmp_path / "model", {"a": b"3"})
    assert checkpoint.read_folder(tmp_path / "model") == ({"a": b"3"}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_manifest_cannot_reach_outside_its_folder(tmp_path):
    checkpoint.write_folder(tmp_path / "model", {"a": b"1"})
    manifest = json.loads((tmp_path / "model" / checkpoint.MANIFEST).read_text())
    manifest["files"]["../secret"] = manifest["files"].pop("a")
    (tmp_path / "secret").write_bytes(b"1")
    (tmp_path / "model" / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="outside its folder"):
        checkpoint.read_folder(tmp_path / "model")


def test_a_pickle_in_place_of_tensors_is_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    path = checkpoint.save(tmp_path, at(1))
    payload = pickle.dumps(Evil())
    checkpoint.write_folder(
        path, {"tensors.safetensors": payload, "facts.json": b"{}"}, facts={"step": 1, "key": "key"}
    )
    with pytest.warns(UserWarning, match="not a safetensors file"):
        assert checkpoint.load(tmp_path, key="key") is None
    assert not (tmp_path / "owned").exists()


def test_views_of_one_storage_are_saved_as_tensors_of_their_own(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    loaded = checkpoint.tensors_from(checkpoint.tensor_bytes({"whole": whole, "column": whole[:, 1]}))
    assert loaded["column"].tolist() == [1.0, 4.0]
