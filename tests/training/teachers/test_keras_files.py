"""Networks of Keras and TensorFlow are refused with the way that makes them teachers."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from autodistill.core.errors import TeacherError
from autodistill.core.records import DataSpec, TeacherSpec
from autodistill.training.data import datasets
from autodistill.training.teachers import load as teachers
from autodistill.training.teachers.teacher import Preprocessing, Teacher


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own.keras", r"load_model\('.*own\.keras'\)\.export\('own\.onnx', format='onnx'\)"),
        ("own.h5", r"load_model\('.*own\.h5'\)\.export\('own\.onnx', format='onnx'\)"),
        ("own.tflite", r"python -m tf2onnx\.convert --tflite .*own\.tflite --output own\.onnx"),
        ("own.pb", r"python -m tf2onnx\.convert --graphdef .*own\.pb --inputs"),
        ("own", r"python -m tf2onnx\.convert --saved-model .*own --output own\.onnx"),
    ],
)
def test_what_keras_and_tensorflow_save_is_refused_with_its_conversion(tmp_path: Path, name: str, said: str) -> None:
    path = tmp_path / name
    if name == "own":
        path.mkdir()
        (path / "saved_model.pb").touch()
    else:
        path.touch()
    spec = TeacherSpec(str(path))
    data = datasets.load_images(DataSpec("digits"))
    for use in (teachers.check_teacher, lambda one: teachers.load_teacher(one, data)):
        with pytest.raises(TeacherError, match=said + r".*--teacher own\.onnx.*other_frameworks\.md"):
            use(spec)


def test_a_file_that_does_not_exist_is_no_name_of_timm() -> None:
    with pytest.raises(TeacherError, match=r"own\.keras: that file does not exist"):
        teachers.check_teacher(TeacherSpec("own.keras"))


def test_a_factory_that_returns_a_keras_network_and_a_result_of_tensorflow_name_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = type("Functional", (), {"__module__": "keras.src.models.functional", "__call__": lambda self, x: x})
    tensor = type("EagerTensor", (), {"__module__": "tensorflow.python.framework.ops"})
    module = ModuleType("own_keras")
    module.make = network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_keras", module)
    with pytest.raises(TeacherError, match=r"returned Functional\. It is of Keras or TensorFlow\. .*format='onnx'"):
        teachers.load_teacher(TeacherSpec("own_keras:make"), datasets.load_images(DataSpec("digits")))
    teacher = Teacher("own", "0", Preprocessing(8, 1), network=lambda images: tensor())
    with pytest.raises(TeacherError, match=r"gave EagerTensor for 2 images; expected a torch tensor .* format='onnx'"):
        teacher(torch.rand(2, 1, 8, 8))
