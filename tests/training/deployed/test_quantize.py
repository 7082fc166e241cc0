"""Quantized files: smaller, runnable on the CPU, and close to the original."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from autodistill.core.errors import UnknownNameError, UsageError
from autodistill.training.deployed.onnx_files import export_onnx, run_onnx
from autodistill.training.deployed.quantize import quantize_int8, to_fp16
from autodistill.training.students import build as students


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((70, 1, 28, 28)).astype(np.float32)


@pytest.fixture(scope="module", params=["resnet", "vit"])
def source(request, tmp_path_factory, images):
    student = {"family": request.param, **({"width": 32, "depth": 1} if request.param == "vit" else {"width": 8})}
    model = students.build_student(student, image_size=28, channels=1, num_classes=10)
    with torch.no_grad():
        for _ in range(3):
            model(torch.from_numpy(images))
    path = tmp_path_factory.mktemp(request.param) / "m.onnx"
    return export_onnx(model, path, image_size=28, channels=1)


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b - b.mean(0)))


@pytest.mark.parametrize(("method", "most"), [("static", 0.3), ("dynamic", 0.2)])
def test_int8_is_smaller_runs_and_stays_close(source, images, tmp_path, method, most):
    path = quantize_int8(source.path, tmp_path / "q.onnx", calibration=images, method=method)
    assert path.stat().st_size < 0.75 * source.bytes
    kinds = {one.data_type for one in onnx.load(path).graph.initializer}
    assert kinds & {TensorProto.INT8, TensorProto.UINT8}
    assert relative_error(run_onnx(path, images), run_onnx(source.path, images)) < most


def test_half_precision_keeps_fp32_at_both_ends_and_three_digits(source, images, tmp_path):
    path = to_fp16(source.path, tmp_path / "h.onnx")
    graph = onnx.load(path).graph
    ends = {one.type.tensor_type.elem_type for one in (*graph.input, *graph.output)}
    assert ends == {TensorProto.FLOAT}
    assert path.stat().st_size < 0.75 * source.bytes
    assert relative_error(run_onnx(path, images), run_onnx(source.path, images)) < 0.01


def test_weights_have_one_scale_per_output_channel(tmp_path, images):
    model = students.build_student({"family": "resnet", "width": 8}, image_size=28, channels=1, num_classes=10).eval()
    file = export_onnx(model, tmp_path / "m.onnx", image_size=28, channels=1)
    graph = onnx.load(quantize_int8(file.path, tmp_path / "q.onnx", calibration=images)).graph
    sizes = {one.name: int(np.prod(one.dims)) for one in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type in ("QLinearConv", "Conv")]
    assert convolutions
    if convolutions[0].op_type == "QLinearConv":  # input 4 is the weights' scale
        assert {sizes[node.input[4]] for node in convolutions} == {8, 16, 32, 64}


@pytest.mark.parametrize("ranges", ["entropy", "percentile"])
def test_ranges_can_leave_outliers_out(tmp_path, images, ranges, capsys):
    model = students.build_student({"family": "resnet", "width": 4}, image_size=28, channels=1, num_classes=10).eval()
    file = export_onnx(model, tmp_path / "m.onnx", image_size=28, channels=1)
    path = quantize_int8(file.path, tmp_path / "q.onnx", calibration=images, ranges=ranges, reduce_range=True)
    assert relative_error(run_onnx(path, images), run_onnx(file.path, images)) < 0.5
    assert capsys.readouterr().out == ""


def test_the_tools_leave_the_programs_logging_alone(tmp_path, images):
    model = students.build_student({"family": "resnet", "width": 4}, image_size=28, channels=1, num_classes=10).eval()
    file = export_onnx(model, tmp_path / "m.onnx", image_size=28, channels=1)
    before = list(logging.getLogger().handlers), logging.getLogger().manager.disable
    quantize_int8(file.path, tmp_path / "q.onnx", calibration=images, method="dynamic")
    assert (list(logging.getLogger().handlers), logging.getLogger().manager.disable) == before


def test_wrong_requests_are_refused_before_anything_is_written(tmp_path, images, source):
    with pytest.raises(UnknownNameError, match="did you mean 'static'"):
        quantize_int8(source.path, tmp_path / "q.onnx", calibration=images, method="statics")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="entropy"):
        quantize_int8(source.path, tmp_path / "q.onnx", calibration=images, ranges="entrpy")
    with pytest.raises(UsageError, match="needs images to calibrate"):
        quantize_int8(source.path, tmp_path / "q.onnx", calibration=images[:0])
    with pytest.raises(UsageError, match="does not run on images"):
        quantize_int8(source.path, tmp_path / "q.onnx", calibration=images[:, :, :20])
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(UsageError, match="is not an ONNX file"):
        to_fp16(tmp_path / "bad.onnx", tmp_path / "h.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.onnx"]
