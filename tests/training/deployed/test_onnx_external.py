"""ONNX files with tensors in other files: read from their own folder, refused from anywhere else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from autodistill.core.errors import TeacherError, UsageError
from autodistill.core.records import DataSpec, TeacherSpec
from autodistill.training.data import datasets
from autodistill.training.deployed.onnx_external import read_model
from autodistill.training.deployed.runtimes import to_onnx
from autodistill.training.teachers import load as teachers

WEIGHT = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)


def write(path: Path, location: str | None, *, offset: int = 0, length: int | None = None) -> None:
    """A network that multiplies flat images with ``WEIGHT``, which it keeps at ``location``."""
    tensor = onnx.numpy_helper.from_array(WEIGHT, "w")
    if location is not None:
        onnx.external_data_helper.set_external_data(tensor, location, offset=offset, length=length or WEIGHT.nbytes)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Flatten", ["x"], ["f"]), onnx.helper.make_node("MatMul", ["f", "w"], ["y"])],
        "linear",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 10])],
        [tensor],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def load(path: Path) -> teachers.Teacher:
    return teachers.load_teacher(TeacherSpec(str(path)), datasets.load_images(DataSpec("digits")))


@pytest.mark.parametrize(("location", "offset"), [("own.data", 0), ("own.data", 4096), ("parts/own.data", 0)])
def test_external_data_in_the_folder_of_the_file_is_read(tmp_path: Path, location: str, offset: int) -> None:
    (tmp_path / location).parent.mkdir(exist_ok=True)
    (tmp_path / location).write_bytes(bytes(offset) + WEIGHT.tobytes() + b"more")
    write(tmp_path / "own.onnx", location, offset=offset)
    write(tmp_path / "whole.onnx", None)
    images = torch.rand(3, 1, 8, 8)
    one, whole = load(tmp_path / "own.onnx"), load(tmp_path / "whole.onnx")
    torch.testing.assert_close(one(images), images.flatten(1) @ torch.from_numpy(WEIGHT))
    before = one.fingerprint
    (tmp_path / location).write_bytes(bytes(offset) + (2 * WEIGHT).tobytes())
    assert load(tmp_path / "own.onnx").fingerprint != before
    assert read_model(tmp_path / "whole.onnx") == (tmp_path / "whole.onnx").read_bytes()
    assert whole.fingerprint != before


def test_a_file_that_onnx_saved_with_external_data_is_a_teacher(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    (tmp_path / "own.onnx").write_bytes(to_onnx(network, torch.rand(2, 1, 8, 8)))
    onnx.save_model(
        onnx.load(str(tmp_path / "own.onnx")), str(tmp_path / "own.onnx"), save_as_external_data=True,
        location="own.onnx.data", size_threshold=0,
    )  # fmt: skip
    assert (tmp_path / "own.onnx.data").stat().st_size >= 64 * 10 * 4
    images = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "own.onnx")(images), network(images))


@pytest.mark.parametrize(
    "location", ["../secret", "ABSOLUTE", "parts/../../secret", "..\\secret", "link", "C:\\secret"]
)
def test_external_data_elsewhere_is_refused_with_what_mends_it(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "teacher"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    write(folder / "own.onnx", str(tmp_path / "secret") if location == "ABSOLUTE" else location)
    said = r"outside its own folder.*Copy that file beside own\.onnx.*external_data=False.*save_as_external_data=False"
    with pytest.raises(TeacherError, match=said):
        load(folder / "own.onnx")


def test_tensors_of_attributes_and_subgraphs_are_looked_at_too(tmp_path: Path) -> None:
    tensor = onnx.numpy_helper.from_array(np.ones(4, np.float32), "value")
    onnx.external_data_helper.set_external_data(tensor, "../secret")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    inner = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["c"], value=tensor)], "inner", [], [])
    node = onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    graph = onnx.helper.make_graph([node], "outer", [], [])
    (tmp_path / "own.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(UsageError, match="outside its own folder"):
        read_model(tmp_path / "own.onnx")


def test_missing_and_short_files_and_pipes_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "own.onnx", "own.data")
    with pytest.raises(TeacherError, match=r"own\.data does not exist\. Copy that file beside"):
        load(tmp_path / "own.onnx")
    (tmp_path / "own.data").write_bytes(WEIGHT.tobytes()[:-8])
    with pytest.raises(TeacherError, match=r"needs bytes 0 to 2,560 of own\.data, which has 2,552: that file is cut"):
        load(tmp_path / "own.onnx")
    (tmp_path / "own.data").unlink()
    os.mkfifo(tmp_path / "own.data")
    with pytest.raises(TeacherError, match="not a regular file"):
        load(tmp_path / "own.onnx")
