from pathlib import Path

import pytest

import autodistill as ad
from autodistill.errors import AutodistillError


def test_a_latency_command_that_fails_is_found_before_a_teacher_is_taught(tmp_path: Path) -> None:
    study = ad.Study.create(data="digits", latency={"command": "false {onnx}"}, survey=4, directory=tmp_path / "study")
    with pytest.raises(AutodistillError, match="ended with exit code 1") as caught:
        ad.search(study, budget="2trials")
    assert caught.value.exit_code == 4
    assert not (tmp_path / "study" / "teacher").exists()
