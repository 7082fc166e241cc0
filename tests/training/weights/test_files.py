"""Files of weights as people have them: containers, prefixes, wrong pairs, broken files."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from places import ROOT
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from typer.testing import CliRunner

from autodistill import cli
from autodistill.core.errors import TeacherError
from autodistill.core.records import DataSpec, TeacherSpec
from autodistill.training.data import datasets
from autodistill.training.teachers import load as teachers
from autodistill.training.weights.files import fit, read_weights

NAME = "test_resnet"

CODE = """
import timm
from torch import nn

class Wrapped(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = timm.create_model("test_resnet", num_classes=classes)

    def forward(self, images):
        return self.body(images)

def wrapped(classes=4):
    return Wrapped(classes)
"""


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(NAME, num_classes=4)


@pytest.fixture(scope="module")
def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrapped_teachers.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)


def _four() -> int:
    return 4


def _prefixed(prefix: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: {prefix + name: value for name, value in state.items()}


def _compiled_inside(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("layer1.", "layer1._orig_mod."): value for name, value in state.items()}


SAVED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": dict,
    "module": _prefixed("module."),
    "model": _prefixed("model."),
    "compiled": _prefixed("_orig_mod."),
    "net": _prefixed("net."),
    "backbone": _prefixed("backbone."),
    "encoder": _prefixed("encoder."),
    "nested": _prefixed("model.module._orig_mod."),
    "compiled inside": _compiled_inside,
    "old BatchNorm": lambda state: {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
    "Lightning": lambda state: {
        "epoch": 3,
        "pytorch-lightning_version": "2.5",
        "state_dict": _prefixed("model.")(state),
        "optimizer_states": [{"state": {0: torch.zeros(2)}}],
    },
    "model key": lambda state: {"model": state, "epoch": 3},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}},
    "ema": lambda state: {"model": {name: value * 0 for name, value in state.items()}, "ema": state},
    "two deep": lambda state: {"model": {"state_dict": state, "step": 7}},
}


@pytest.mark.parametrize("prefix", ["", "model."])
def test_the_outermost_layer_of_a_name_says_how_many_channels_there_are(tmp_path: Path, prefix: str) -> None:
    """``layer1.0.conv1.weight`` of ResNet-18 comes after ``conv1.weight``, and in a sorted file after ``bn1``."""
    with torch.device("meta"):
        wanted = timm.create_model("resnet18", num_classes=4).state_dict()
    tensors = {f"{prefix}{name}": torch.zeros(wanted[name].shape) for name in sorted(wanted, reverse=True)}
    torch.save(tensors, tmp_path / "x.pth")
    teachers.check_teacher(TeacherSpec("resnet18", weights=str(tmp_path / "x.pth")), _four)


@pytest.mark.parametrize("kind", SAVED)
def test_what_trainings_save_fits_its_network(tmp_path: Path, network: nn.Module, state: Any, kind: str) -> None:
    torch.save(SAVED[kind](state), tmp_path / "x.ckpt")
    found = fit(read_weights(tmp_path / "x.ckpt"), network.state_dict(), "x")
    kept = {name for name in state if kind != "old BatchNorm" or not name.endswith("num_batches_tracked")}
    assert set(found) == kept
    assert all(torch.equal(found[name], state[name]) for name in kept)
    teachers.check_teacher(TeacherSpec(NAME, weights=str(tmp_path / "x.ckpt")), _four)


def test_an_average_of_weights_loses_its_counter(tmp_path: Path, network: nn.Module, state: Any) -> None:
    torch.save(AveragedModel(network).state_dict(), tmp_path / "swa.pth")
    assert "n_averaged" in torch.load(tmp_path / "swa.pth", weights_only=True)
    found = fit(read_weights(tmp_path / "swa.pth"), network.state_dict(), "x")
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.usefixtures("own_code")
def test_weights_of_what_a_factory_wraps_fit_too(tmp_path: Path, state: Any) -> None:
    save_file(state, tmp_path / "inner.safetensors")
    spec = TeacherSpec("wrapped_teachers:wrapped", weights=str(tmp_path / "inner.safetensors"))
    teachers.check_teacher(spec)
    data = datasets.load_images(DataSpec("synthetic", options={"count": 80, "size": 16, "classes": 4}))
    teacher = teachers.load_teacher(spec, data)
    loaded = teacher.network.network.body.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_a_name_that_two_tensors_would_share_is_not_guessed(network: nn.Module, state: Any) -> None:
    first = next(iter(state))
    both = {**state, f"model.{first}": state[first] + 1}
    with pytest.raises(TeacherError, match=rf"1 of its \d+ tensors are left over \(model\.{first}\)"):
        fit(both, network.state_dict(), "x")


def test_two_networks_in_one_file_name_the_prefix_of_the_one_that_fits(network: nn.Module, state: Any) -> None:
    both = {**_prefixed("student.")(state), **_prefixed("critic.")({"score.weight": torch.zeros(3, 3)})}
    said = (
        r"after removing the prefix 'student\.'.* left over \(critic\.score\.weight\).*\{k\.removeprefix\('student\.'\)"
    )
    with pytest.raises(TeacherError, match=said):
        fit(both, network.state_dict(), "x")


def test_a_wrong_pair_says_what_is_missing_and_what_is_left_over(tmp_path: Path, state: Any) -> None:
    torch.save({"state_dict": _prefixed("module.")(state)}, tmp_path / "x.pth")
    wanted = timm.create_model("test_vit", num_classes=4).state_dict()
    assert not set(wanted) & set(state)
    with pytest.raises(TeacherError) as found:
        teachers.check_teacher(TeacherSpec("test_vit", weights=str(tmp_path / "x.pth")), _four)
    said = str(found.value)
    assert f"{len(wanted)} of {len(wanted)} tensors of the network are missing in the file (" in said
    assert f"{len(state)} of {len(state)} in the file are left over (module.{next(iter(state))}" in said
    assert "--teacher module:factory" in said


def test_the_weights_of_another_size_are_compared_under_their_prefix(tmp_path: Path) -> None:
    small, large = (timm.create_model(name, num_classes=4).state_dict() for name in ("test_resnet", "resnet34"))
    torch.save(_prefixed("model.")(small), tmp_path / "x.pth")
    shared = {name for name in large if name in small and not name.endswith("num_batches_tracked")}
    needed = [name for name in large if not name.endswith("num_batches_tracked")]
    said = rf"{len(needed) - len(shared)} of {len(needed)} tensors .* after removing the prefix 'model\.'"
    with pytest.raises(TeacherError, match=said):
        teachers.check_teacher(TeacherSpec("resnet34", weights=str(tmp_path / "x.pth")), _four)


def test_a_part_that_is_missing_is_named_under_the_prefix(tmp_path: Path, state: Any) -> None:
    headless = {f"model.{name}": value for name, value in state.items() if not name.startswith("fc.")}
    save_file(headless, tmp_path / "x.safetensors")
    said = (
        r"2 of \d+ tensors .* missing in the file \(fc\.weight, fc\.bias\), none is left over "
        r"after removing the prefix 'model\.'"
    )
    with pytest.raises(TeacherError, match=said):
        teachers.check_teacher(TeacherSpec(NAME, weights=str(tmp_path / "x.safetensors")), _four)


def test_another_number_of_classes_is_called_that(tmp_path: Path) -> None:
    weights = timm.create_model(NAME, num_classes=1000).state_dict()
    save_file(dict(weights), tmp_path / "x.safetensors")
    said = r"are for 1000 classes \(fc\.weight, fc\.bias\), the images have 4\..*num_classes=1000.*class_map"
    with pytest.raises(TeacherError, match=said):
        teachers.check_teacher(TeacherSpec(NAME, weights=str(tmp_path / "x.safetensors")), _four)
    options = {"num_classes": 1000, "class_map": [1, 2, 3, 4]}
    teachers.check_teacher(TeacherSpec(NAME, weights=str(tmp_path / "x.safetensors"), options=options), _four)
    teachers.check_teacher(TeacherSpec(NAME, weights=str(tmp_path / "x.safetensors")))  # the images may have as many


def test_other_shapes_are_named(tmp_path: Path, state: Any) -> None:
    wide = {**state, "layer1.0.conv1.weight": torch.zeros(7, 7, 3, 3)}
    save_file(wide, tmp_path / "x.safetensors")
    with pytest.raises(
        TeacherError, match=r"1 of \d+ shapes differ \(layer1\.0\.conv1\.weight \[7, 7, 3, 3\] in the file"
    ):
        teachers.check_teacher(TeacherSpec(NAME, weights=str(tmp_path / "x.safetensors")), _four)


@pytest.mark.parametrize("suffix", [".pth", ".th", ".bin", ".ckpt", ".pth.tar", ".unknown"])
def test_weights_alone_ask_for_their_architecture(tmp_path: Path, state: Any, suffix: str) -> None:
    torch.save(state, tmp_path / f"x{suffix}")
    with pytest.raises(TeacherError, match=rf"holds weights only.*--teacher NAME --teacher-weights .*x{suffix}"):
        teachers.check_teacher(TeacherSpec(str(tmp_path / f"x{suffix}")))


def test_a_file_of_another_kind_says_what_a_teacher_is(tmp_path: Path) -> None:
    (tmp_path / "x.md").write_text("a note")
    with pytest.raises(TeacherError, match=r"x\.md is a file of an unsupported kind\. A teacher is a folder"):
        teachers.check_teacher(TeacherSpec(str(tmp_path / "x.md")))


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 44815768\n"


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Tensor]) -> dict[str, Path]:
    """Files that people have in the place of weights."""
    folder = tmp_path_factory.mktemp("broken")
    save_file(state, folder / "whole.safetensors")
    torch.save(state, folder / "whole.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    (folder / "half.safetensors").write_bytes((folder / "whole.safetensors").read_bytes()[:-100])
    (folder / "header.safetensors").write_bytes((folder / "whole.safetensors").read_bytes()[:200])
    (folder / "half.pth").write_bytes((folder / "whole.pth").read_bytes()[:-100])
    (folder / "half_old.pth").write_bytes((folder / "old.pth").read_bytes()[:-100])
    (folder / "empty.pth").touch()
    (folder / "page.pth").write_text("\n<!DOCTYPE html><html><title>weights.pth at main</title></html>")
    (folder / "pointer.pth").write_text(LFS)
    (folder / "text.pth").write_text("no weights")
    (folder / "packed.pth").write_bytes(b"\x1f\x8b" + bytes(100))
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=0.1)}, folder / "objects.pth")
    torch.save({"step": 3, "loss": 0.5}, folder / "numbers.pth")
    np.savez(folder / "logits.npz", logits=np.zeros((2, 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch has deprecated it
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), folder / "script.pth")
    (folder / "folder").mkdir()
    (folder / "files").mkdir()
    save_file(state, folder / "files" / "x.safetensors")
    return {path.name: path for path in folder.iterdir()} | {"whole.pht": folder / "whole.pht"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("whole.pht", r"that file does not exist; did you mean '.*whole\.pth'"),
        ("folder", r"that is a folder; give a file"),
        ("files", r"that is a folder; give the file in it: .*x\.safetensors"),
        ("empty.pth", r"the file is empty \(0 bytes\); copy or download it again"),
        ("page.pth", r"this is a web page, not the file.*Download the file itself"),
        ("pointer.pth", r"this is a pointer of git-lfs \(\d+ bytes in place of 44,815,768\).*git lfs pull"),
        ("packed.pth", r"the file is compressed; unpack it"),
        ("text.pth", r"neither of safetensors nor of torch\.save.*save_file\(model\.state_dict\(\)"),
        ("half.safetensors", r"are cut off: [\d,]+ bytes of at least [\d,]+ are there"),
        ("header.safetensors", r"are cut off: 200 bytes of at least"),
        ("half.pth", r"are cut off: the directory at the end of the file is missing"),
        ("half_old.pth", r"are damaged"),
        ("objects.pth", r"hold Python objects .*\(argparse\.Namespace\).*not opened.*save_file\(model\.state_dict\(\)"),
        ("numbers.pth", r"hold no named tensors, but the keys step, loss"),
        ("logits.npz", r"is a complete teacher: give --teacher .*logits\.npz"),
        ("script.pth", r"an archive, but not one of torch\.save: a network of TorchScript"),
    ],
)
def test_what_is_no_file_of_weights_says_what_it_is(broken: dict[str, Path], name: str, message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        teachers.check_teacher(TeacherSpec(NAME, weights=str(broken[name])), _four)


def test_files_are_known_by_their_content_and_not_by_their_suffix(
    tmp_path: Path, network: nn.Module, state: Any
) -> None:
    save_file(state, tmp_path / "x.pth")
    torch.save(state, tmp_path / "x.safetensors")
    for name in ("x.pth", "x.safetensors"):
        assert set(read_weights(tmp_path / name)) == set(state)


@pytest.mark.parametrize("suffix", [".th", ".bin", ".ckpt", ".tar", ".safetensors", ".unknown"])
@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_run(tmp_path: Path, suffix: str, zipped: bool) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "owned"),)

    path = tmp_path / f"x{suffix}"
    torch.save({"state_dict": Evil()}, path, _use_new_zipfile_serialization=zipped)
    bare = tmp_path / f"bare{suffix}"
    bare.write_bytes(pickle.dumps(Evil()))
    for file in (path, bare):
        for spec in (TeacherSpec(NAME, weights=str(file)), TeacherSpec(str(file))):
            with pytest.raises(TeacherError):
                teachers.check_teacher(spec, _four)
    assert not (tmp_path / "owned").exists()


def _photos(root: Path) -> Path:
    for name in ("cat", "dog", "owl"):
        (root / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize("dry", [True, False])
def test_a_search_finds_weights_that_do_not_fit_before_it_decodes_an_image(
    tmp_path: Path, state: Any, dry: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = _photos(tmp_path / "photos")
    monkeypatch.setattr(Image, "open", lambda *args, **keys: pytest.fail("an image was opened"))
    save_file(state, tmp_path / "four.safetensors")
    flags = ["search", "--data", "image_folder", "--data-root", str(photos), "--image-size", "8", "--teacher", NAME]
    flags += ["--teacher-weights", str(tmp_path / "four.safetensors"), "--dir", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.app, [*flags, *(["--dry-run"] if dry else [])])
    assert result.exit_code == 2
    assert "weights are for 4 classes" in result.output.replace("\n", " ")
    assert "the images have 3" in result.output.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_the_recipe_of_the_documentation_converts_a_file_with_harmless_objects(tmp_path: Path, state: Any) -> None:
    """The lines of docs/how_to/own_teacher.md, as they stand there."""
    text = (ROOT / "docs" / "how_to" / "own_teacher.md").read_text()
    code = text.split("# convert.py\n", 1)[1].split("```", 1)[0]
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=0.1)}, tmp_path / "own.pth")
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        exec(compile(code, "convert.py", "exec"), {})
    finally:
        os.chdir(before)
    found = read_weights(tmp_path / "own.safetensors")
    assert set(found) == set(state)
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_bytes_of_a_file_are_what_decides(tmp_path: Path, state: Any) -> None:
    buffer = io.BytesIO()
    torch.save({"model": state}, buffer)
    (tmp_path / "model_best.pth.tar").write_bytes(buffer.getvalue())
    assert set(read_weights(tmp_path / "model_best.pth.tar")) == set(state)
