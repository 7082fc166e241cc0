"""ONNX files: the same outputs as the deployed student, at every batch size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autodistill.core.errors import InfeasibleError, ResourceError, UsageError
from autodistill.training.deployed.onnx_files import describe_onnx, export_onnx, run_onnx, write_onnx
from autodistill.training.students import build as students


@pytest.fixture(scope="module")
def student() -> nn.Module:
    model = students.build_student({"family": "mobileone", "width": 8}, image_size=28, channels=1, num_classes=10)
    with torch.no_grad():
        for seed in range(4):
            model(torch.randn(16, 1, 28, 28, generator=torch.Generator().manual_seed(seed)))
    return model.eval()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((70, 1, 28, 28)).astype(np.float32)


def test_a_file_gives_the_logits_of_the_network_it_was_written_from(student, images, tmp_path):
    file = export_onnx(student, tmp_path / "m.onnx", image_size=28, channels=1)
    with torch.no_grad():
        expected = student(torch.from_numpy(images)).numpy()
    assert file.bytes == (tmp_path / "m.onnx").stat().st_size
    assert file.opset == 18
    np.testing.assert_allclose(run_onnx(file.path, images), expected, atol=1e-5)
    assert np.array_equal(run_onnx(file.path, images, batch_size=70), run_onnx(file.path, images, batch_size=70))


def test_the_network_is_left_as_it_was(student, tmp_path):
    before = {name: value.clone() for name, value in student.state_dict().items()}
    export_onnx(student, tmp_path / "m.onnx", image_size=28, channels=1)
    assert before.keys() == student.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_the_operator_set_is_the_one_asked_for(student, tmp_path):
    assert export_onnx(student, tmp_path / "m.onnx", image_size=28, channels=1, opset=13).opset == 13


def test_a_fixed_batch_takes_one_image_at_a_time(student, images, tmp_path):
    file = export_onnx(student, tmp_path / "one.onnx", image_size=28, channels=1, dynamic_batch=False)
    free = export_onnx(student, tmp_path / "any.onnx", image_size=28, channels=1)
    np.testing.assert_allclose(run_onnx(file.path, images[:3]), run_onnx(free.path, images[:3]), atol=1e-5)


def test_the_folded_file_has_no_batch_normalization_and_no_branches(student, tmp_path):
    import onnx

    file = export_onnx(student, tmp_path / "m.onnx", image_size=28, channels=1)
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(file.path).graph.node}


def test_a_network_that_onnx_cannot_express_is_named(tmp_path):
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.linalg.matrix_exp(x[:, 0]).sum(1))

    with pytest.raises(InfeasibleError, match="Odd cannot be exported to ONNX"):
        export_onnx(Odd(), tmp_path / "m.onnx", image_size=4, channels=1)
    assert list(tmp_path.iterdir()) == []


def test_images_of_another_size_are_refused_in_words(student, images, tmp_path):
    file = export_onnx(student, tmp_path / "m.onnx", image_size=28, channels=1)
    with pytest.raises(UsageError, match=r"does not run on images \(5, 1, 20, 28\)"):
        run_onnx(file.path, images[:5, :, :20])
    with pytest.raises(UsageError, match="was given no images; at least one is needed"):
        run_onnx(file.path, images[:0])


def test_what_is_no_onnx_file_is_refused(images, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(UsageError, match="cannot load"):
        run_onnx(tmp_path / "m.onnx", images)
    with pytest.raises(UsageError, match="is not an ONNX file"):
        describe_onnx(tmp_path / "m.onnx")


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write"):
        write_onnx(b"", Path(tmp_path / "file" / "m.onnx"))
