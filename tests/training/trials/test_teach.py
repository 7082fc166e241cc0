import json
import re

import pytest
import timm
import torch
from hub_cache import lay_hub_cache
from safetensors.torch import save_file

from autodistill.core.errors import InterruptedTrialError, TeacherError, UnknownNameError, UsageError
from autodistill.core.records import DataSpec, TeacherSpec
from autodistill.engines.monitor.teaching import TeachingProgress
from autodistill.training.data import datasets
from autodistill.training.runtime.durable_files import read_folder
from autodistill.training.teachers import load as teachers
from autodistill.training.teachers.load import TEACHER_WEIGHTS
from autodistill.training.trials.teach import default_architecture, default_epochs, teach

NETWORK = {"family": "resnetv2", "width": 4, "stages": 2}


@pytest.fixture(scope="module")
def data():
    return datasets.load_images(DataSpec("synthetic", options={"classes": 4, "count": 160, "size": 8}))


def weights(folder):
    return read_folder(folder)[0][TEACHER_WEIGHTS]


def test_a_teacher_stopped_and_resumed_has_the_same_bits(data, tmp_path):
    torch.set_num_threads(1)
    teach(data, NETWORK, directory=tmp_path / "whole", epochs=3)
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) == 7

    with pytest.raises(InterruptedTrialError, match=r"teaching stopped after 1\.\d epochs"):
        teach(data, NETWORK, directory=tmp_path / "parts", epochs=3, should_stop=should_stop)
    assert not (tmp_path / "parts").exists()
    teach(data, NETWORK, directory=tmp_path / "parts", epochs=3)
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "whole"]


def test_a_finished_teacher_is_kept_and_replaced_only_where_that_is_asked_for(data, tmp_path):
    spec = teach(data, NETWORK, directory=tmp_path / "teacher", epochs=1)
    before = weights(tmp_path / "teacher")
    told = []
    again = teach(data, NETWORK, directory=tmp_path / "teacher", epochs=1, progress=lambda *args: told.append(args))
    assert (again, told) == (spec, [])
    with pytest.raises(UsageError, match=r"another finished teacher \(it differs in: epochs\).*--replace"):
        teach(data, NETWORK, directory=tmp_path / "teacher", epochs=2)
    with pytest.raises(UsageError, match="training settings, training images or seed"):
        teach(data, NETWORK, directory=tmp_path / "teacher", epochs=1, seed=1)
    assert weights(tmp_path / "teacher") == before
    teach(data, NETWORK, directory=tmp_path / "teacher", epochs=1, seed=1, replace=True)
    assert weights(tmp_path / "teacher") != before


def test_options_of_an_automatic_teacher_are_its_settings(data, tmp_path):
    spec = TeacherSpec("auto", options={"epochs": 1, "model": "test_resnet", "lr": 1e-3})
    told = []
    made = teach(data, spec, directory=tmp_path / "teacher", progress=lambda *args: told.append(args))
    assert told[-1][:2] == (1, 1)
    assert 0 <= told[-1][2]["accuracy"] <= 1
    assert teachers.load_teacher(made, data).image_size == 8


def test_wrong_settings_are_refused_before_anything_is_written(data, tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'weight_decay'"):
        teach(data, NETWORK, directory=tmp_path / "teacher", epochs=1, recipe={"weightdecay": 1})
    with pytest.raises(UsageError, match="epochs is -1"):
        teach(data, NETWORK, directory=tmp_path / "teacher", epochs=-1)
    with pytest.raises(UnknownNameError, match="resnet18"):
        teach(data, "resnet81", directory=tmp_path / "teacher", epochs=1)
    assert not list(tmp_path.iterdir())


def test_pretrained_weights_without_network_fail_within_seconds(data, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(TeacherError, match=r"resnet18 are not on this machine .* leave out --pretrained\.$"):
        teach(data, "resnet18", directory=tmp_path / "teacher", epochs=1, pretrained=True)
    with pytest.raises(TeacherError, match=r"no pretrained weights for seresnet18\. .*leave out --pretrained\.$"):
        teach(data, "seresnet18", directory=tmp_path / "teacher", epochs=1, pretrained=True)
    assert not list(tmp_path.iterdir())


def test_defaults_follow_the_images():
    assert default_epochs(1200) == 20
    assert default_epochs(51_000) == 6
    assert default_epochs(10**6) == 4
    sizes = [default_architecture(size)["width"] for size in (8, 28, 64)]
    assert sizes == sorted(sizes)


def test_length_follows_size_and_a_pretrained_network_takes_a_third():
    assert [default_epochs(3068, size) for size in (32, 64, 96, 224)] == [20, 20, 20, 8]
    assert default_epochs(30_000, 128) == 4
    assert [default_epochs(count, 96, pretrained=True) for count in (500, 10_000, 10**6)] == [6, 4, 3]


def colour(size):
    return datasets.load_images(DataSpec("synthetic", image_size=size, options={"classes": 2, "count": 24}))


def made_with(folder, data, **settings):
    """Facts of a teacher, and what was announced."""
    said = []
    teach(data, NETWORK, directory=folder, epochs=1, announce=said.append, **settings)
    return said


def test_photographs_get_crops_and_flips_and_the_plan_is_announced_once(tmp_path):
    assert made_with(tmp_path / "photo", colour(48)) == [
        "training resnetv2 w4 d1 stages 2 for 1 epoch of 20 images of 48 px "
        "(augment flip_resized_crop, lr 0.004, batch_size 32)"
    ]
    assert "augment crop," in made_with(tmp_path / "small", colour(40))[0]
    assert "augment none," in made_with(tmp_path / "own", colour(48), recipe={"augment": "none"})[0]
    assert made_with(tmp_path / "photo", colour(48)) == []  # it is finished


def test_a_pretrained_network_is_tuned_at_a_smaller_rate(tmp_path, monkeypatch):
    lay_hub_cache(monkeypatch, tmp_path / "hf", "test_resnet")
    said = []
    teach(colour(48), "test_resnet", directory=tmp_path / "t", epochs=1, pretrained=True, announce=said.append)
    assert re.match(r"weights test_resnet \(\d+\.\d MB, licence apache-2\.0\)$", said[0])
    assert said[1].startswith("fine-tuning pretrained test_resnet for 1 epoch of 20 images")
    assert "lr 0.001" in said[1]


def facts_of(folder):
    return json.loads((folder / "teacher.json").read_text())


def test_a_teacher_starts_from_any_weights_and_keeps_their_normalization_and_licence(tmp_path, monkeypatch):
    tensors = lay_hub_cache(monkeypatch, tmp_path / "hf", "test_resnet")
    config = timm.get_pretrained_cfg("test_resnet")
    teach(colour(48), weights="test_resnet", directory=tmp_path / "hub", epochs=1)
    made = facts_of(tmp_path / "hub")
    assert made["architecture"] == {"family": "timm", "model": "test_resnet"}
    assert (made["mean"], made["std"]) == (list(config.mean), list(config.std))
    assert made["weights"]["licence"] == "apache-2.0"
    save_file(tensors, tmp_path / "plain.safetensors")
    for text, model, licence in (
        (str(tmp_path / "plain.safetensors"), "test_resnet", "unknown"),
        (str(tmp_path / "hub"), None, "apache-2.0"),
    ):
        folder = tmp_path / f"from-{licence}"
        teach(colour(48), model, weights=text, directory=folder, epochs=1)
        assert facts_of(folder)["weights"]["licence"] == licence
        assert facts_of(folder)["mean"] == list(config.mean)
    with pytest.raises(UsageError, match=r"do not say which network they are of; give it: --model NAME"):
        teach(colour(48), weights=str(tmp_path / "plain.safetensors"), directory=tmp_path / "x", epochs=1)


def test_the_time_left_follows_the_speed_since_the_start_or_the_resume():
    clock = iter([100.0, 101.0, 160.0, 400.0])
    training = TeachingProgress(lambda: next(clock))
    assert training.words(2.0, 6.0, {}) == "epoch 2.0 of 6"
    assert training.words(2.01, 6.0, {}) == "epoch 2.0 of 6"  # too early to say
    assert training.words(3.0, 6.0, {}) == "epoch 3.0 of 6, about 3m left"  # an epoch a minute
    assert training.words(6.0, 6.0, {"accuracy": 0.5}) == "epoch 6.0 of 6, validation accuracy 0.500"


@pytest.mark.slow
def test_the_default_teacher_of_digits_is_good(tmp_path):
    data = datasets.load_images(DataSpec("digits"))
    metrics = {}
    teach(data, directory=tmp_path / "teacher", progress=lambda done, length, found: metrics.update(found))
    assert metrics["accuracy"] > 0.97
