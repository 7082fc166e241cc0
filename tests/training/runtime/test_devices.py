"""Teachers spread over several devices: the same outputs, with a part of the weights on each device."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

from autodistill.config.study_file import StudyConfig
from autodistill.core.errors import ConfigError, TeacherError, UnknownNameError, UsageError
from autodistill.core.records import DataSpec, TeacherSpec
from autodistill.training.data import datasets
from autodistill.training.runtime.devices import is_spread, parse_devices, spread_over
from autodistill.training.students import build as students
from autodistill.training.teachers import load as teachers

CPU = torch.device("cpu")
META = torch.device("meta")


@pytest.fixture(scope="module")
def data():
    return datasets.load_images(DataSpec("synthetic", options={"classes": 4, "count": 64, "size": 16}))


def made(name: str) -> nn.Module:
    torch.default_generator.manual_seed(0)
    return timm.create_model(name, num_classes=4, img_size=32) if "vit" in name else timm.create_model(name)


def held(network: nn.Module, device: torch.device) -> float:
    """Share of the parameters on ``device``."""
    sizes = [(p.numel(), p.device == device) for p in network.parameters()]
    return sum(size for size, there in sizes if there) / sum(size for size, _ in sizes)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_two_shares_on_one_device_give_the_bits_of_the_whole(name: str) -> None:
    whole, parts = made(name).eval(), made(name).eval()
    parts.load_state_dict(whole.state_dict())
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(spread_over(parts, [CPU, CPU])(images), whole(images))


@pytest.mark.parametrize("name", ["resnet18", "test_vit", "test_resnet"])
def test_activations_follow_the_weights_from_device_to_device(name: str) -> None:
    network = spread_over(made(name).eval(), [CPU, META])  # an operation on meta and real tensors raises an error
    with torch.no_grad():
        answer = network(torch.rand(2, 3, 32, 32))
    assert answer.device == META
    assert answer.shape[0] == 2
    assert 0.15 < held(network, CPU) < 0.85
    assert next(network.parameters()).device == CPU


def test_parts_are_consecutive_and_of_about_equal_bytes() -> None:
    network = nn.Sequential(*(nn.Linear(8, 8) for _ in range(9)))
    spread_over(network, [CPU, META, CPU])
    assert [layer.weight.device.type for layer in network] == ["cpu"] * 3 + ["meta"] * 3 + ["cpu"] * 3
    lopsided = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 2), nn.Linear(2, 2))
    spread_over(lopsided, [CPU, META, CPU])
    assert [layer.weight.device.type for layer in lopsided] == ["cpu", "meta", "cpu"]


def test_more_devices_than_blocks_are_refused() -> None:
    with pytest.raises(TeacherError, match=r"has 2 blocks .* names 3 devices\. Name fewer"):
        spread_over(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), [CPU, CPU, CPU])


def test_a_spread_teacher_answers_as_one_in_one_piece(data, tmp_path) -> None:
    model = students.build_student(
        {"family": "resnet", "width": 4, "depth": 1}, image_size=16, channels=3, num_classes=4
    )
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "spread_code.py").write_text(
        "from autodistill.training.students import build as students\n"
        "def net():\n"
        "    return students.build_student({'family': 'resnet', 'width': 4, 'depth': 1}, image_size=16, channels=3,"
        " num_classes=4)\n"
    )
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(tmp_path)
    weights = str(tmp_path / "weights.pt")
    whole = teachers.load_teacher(TeacherSpec("spread_code:net", weights=weights), data)
    parts = teachers.load_teacher(TeacherSpec("spread_code:net", weights=weights, device=["cpu", "cpu"]), data)
    patch.undo()
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    assert is_spread(parts.network)
    assert not is_spread(whole.network)
    assert parts.fingerprint == whole.fingerprint  # so both share one teacher cache
    assert torch.equal(parts(images), whole(images))
    for one, other in zip(parts.embedding(images), whole.embedding(images), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("name", "near"), [("cdua:0", "cpu"), ("gpu", "cpu"), ("cuda:99", "cpu")])
def test_unknown_and_absent_devices_are_named_with_those_that_exist(name: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=f"device of the teacher '{name}'.*{near}"):
        parse_devices(["cpu", name])


def test_an_empty_list_and_a_teacher_without_a_device_are_refused(data, tmp_path) -> None:
    with pytest.raises(UsageError, match=r"teacher\.device is an empty list"):
        parse_devices([])
    np.savez(tmp_path / "x.npz", ids=np.arange(2), logits=np.zeros((2, 3), np.float32))
    with pytest.raises(UsageError, match="a file of logits runs on the CPU"):
        teachers.load_teacher(TeacherSpec(str(tmp_path / "x.npz"), device=["cpu", "cpu"]), data)


def test_the_study_file_takes_one_device_or_a_list() -> None:
    config = StudyConfig.load({"teacher": {"source": "resnet18", "device": ["cuda:0", "cuda:1"]}})
    assert config.teacher.device == ["cuda:0", "cuda:1"]
    assert StudyConfig.load(config.resolved()).teacher == config.teacher
    assert StudyConfig.load({"teacher": {"source": "resnet18", "device": "cpu"}}).teacher.device == "cpu"
    with pytest.raises(ConfigError, match=r"teacher\.device"):
        StudyConfig.load({"teacher": {"source": "resnet18", "device": 3}})
