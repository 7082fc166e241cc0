"""Export of an int8 student of the front: the file that was measured goes out, and everything beside it says so."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import autodistill as ad
from autodistill.cli import app
from autodistill.commands.export import offered
from autodistill.core.errors import StoreError, UnknownNameError, UsageError
from autodistill.delivery.export.loading import load_trial
from autodistill.delivery.export.variant import folder_name, formats_for
from autodistill.delivery.export.write import export
from autodistill.delivery.verify.write import write_verified
from autodistill.search.results.front_member import FrontMember
from autodistill.search.results.verified import Figure, Verified, VerifiedRow
from autodistill.training.trials.trial_files import variant_file

TEACHER = "from torch import nn\n\n\ndef linear():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ad.Study]:
    """One student of the digits in both forms: int8 is smaller, fp32 the more accurate one or as good."""
    place = tmp_path_factory.mktemp("variants")
    (place / "variant_teacher.py").write_text(TEACHER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place)
        patch.setenv("AUTODISTILL_CACHE", str(place / "cache"))
        study = ad.Study.create(
            data={"source": "digits", "train_size": 300},
            teacher={"source": "variant_teacher:linear", "accept_weak": True},
            space={"student": {"family": "resnet", "width": 12, "depth": 1}, "train": {"lr": 0.02}},
            objectives=["accuracy", "bytes"], variants=["fp32", "int8"], epochs=2, rungs="off", survey="off",
            sampler="random", directory=place / "study",
        )  # fmt: skip
        ad.search(study, budget="1trials", workers=1, progress=False)
        yield study


@pytest.fixture
def picked(study: ad.Study) -> FrontMember:
    best = study.front().pick("bytes <= 250000")
    assert best.variant == "int8"
    return best


def test_the_measured_file_is_exported_and_all_companion_files_describe_it(study, picked, tmp_path) -> None:
    done = picked.export(tmp_path / "out")
    (file,) = done.checked
    shipped = (done.folder / "model-int8.onnx").read_bytes()
    assert shipped == variant_file(study.directory, picked.number, "int8").read_bytes()
    assert (file.format, file.state, file.bytes) == ("onnx-int8", "ok", picked.values["bytes"])
    assert file.accuracy == pytest.approx(picked.values["accuracy"], abs=1e-9)
    assert file.latency_ms is not None
    assert sorted(path.name for path in done.folder.glob("model*")) == ["model-int8.onnx"]
    origin = json.loads((done.folder / "provenance.json").read_text())
    assert (origin["variant"], origin["search_values"]) == ("int8", dict(picked.values))
    assert json.loads((done.folder / "MANIFEST.json").read_text())["facts"]["variant"] == "int8"
    assert (done.variant, done.to_json()["variant"]) == ("int8", "int8")
    card = (done.folder / "README.md").read_text()
    assert "int8, distilled for digits" in card
    assert f"Accuracy of this int8 form there, on {done.images:,} images: {picked.values['accuracy']:.4f}" in card
    assert "timm" not in card


def test_predict_runs_the_int8_file(picked, tmp_path) -> None:
    folder = picked.export(tmp_path / "out", latency=False).folder
    Image.new("L", (8, 8), 99).save(tmp_path / "image.png")
    line = [sys.executable, str(folder / "predict.py"), str(tmp_path / "image.png")]
    found = subprocess.run(line, capture_output=True, text=True, check=True)
    assert str(tmp_path / "image.png") in found.stdout


def test_formats_that_do_not_hold_the_form_are_refused(study, picked, tmp_path) -> None:
    (trial,) = study.trials()
    assert formats_for(trial, None) == ("safetensors", "onnx")
    assert formats_for(trial, "onnx,onnx-int8") == ("onnx", "onnx-int8")
    assert (
        formats_for(picked, None) == formats_for(picked, "all") == formats_for(picked, ["onnx-int8"]) == ("onnx-int8",)
    )
    with pytest.raises(UsageError, match=r"int8 form, .* format onnx-int8; got: safetensors, onnx\. Leave out the"):
        picked.export(tmp_path / "out", formats=["safetensors", "onnx"])
    with pytest.raises(UnknownNameError, match="did you mean 'onnx-int8'"):
        formats_for(picked, "onnx-int")
    with pytest.raises(UsageError, match=r"form 'int4', .* allowed: fp32, int8"):
        formats_for(replace(picked, variant="int4"), None)
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_network_and_says_where_the_network_is(study, picked, tmp_path) -> None:
    with pytest.raises(UsageError, match=r"ONNX file and no torch network; .* front\.trained\(\)"):
        picked.load()
    (plain,) = study.front().trained().members
    assert (plain.number, plain.variant, plain.load().training) == (picked.number, "fp32", False)
    assert load_trial(study.directory, picked.number).training is False
    folder = picked.export(tmp_path / "out", latency=False).folder
    with pytest.raises(UsageError, match=r"holds the int8 form of trial 0, .*--trial 0"):
        ad.load(folder)


def test_a_file_that_is_gone_or_another_one_is_refused_and_not_replaced(study, picked, tmp_path) -> None:
    path = variant_file(study.directory, picked.number, "int8")
    whole = path.read_bytes()
    try:
        path.write_bytes(whole + b"\0")
        with pytest.raises(
            StoreError, match=r"was replaced or is damaged.*quantize the student again: .*--formats onnx-int8"
        ):
            picked.export(tmp_path / "out")
        path.unlink()
        with pytest.raises(StoreError, match=r"int8 file of trial 0 is missing"):
            picked.export(tmp_path / "out")
    finally:
        path.write_bytes(whole)
    assert not (tmp_path / "out").exists()


def test_it_is_checked_against_what_was_measured_and_not_against_the_network(study, picked, tmp_path) -> None:
    facts = picked.variants["int8"]
    better = {**facts, "values": {**facts["values"], "accuracy": picked.values["accuracy"] + 0.02}}
    wrong = replace(picked, variants={"int8": better})
    (file,) = export(study.directory, wrong, tmp_path / "a", latency=False).checked
    assert (file.state, "the search measured an accuracy of" in file.remark) == ("refused", True)
    assert not (tmp_path / "a" / "model-int8.onnx").exists()
    (file,) = export(study.directory, wrong, tmp_path / "b", latency=False, max_drop=0.03).checked
    assert file.state == "ok"
    (file,) = picked.export(tmp_path / "c", latency=False, max_drop=0.0).checked  # the measured file has no drop
    assert file.state == "ok"


def test_verified_figures_and_weights_are_of_fp32_and_not_said_of_int8(study, picked, tmp_path) -> None:
    accuracy = Figure(0.1234, 0.01, 0.11, 0.13)
    row = VerifiedRow(
        "student", "w", trial=picked.number, seeds=(5,), planned=1, accuracy=accuracy, weights="verify/runs/kept"
    )
    files = write_verified(
        Verified(study.name, (("accuracy", "maximize"),), (row,), 1, finished=1, planned=1), study.directory
    )
    try:
        done = picked.export(tmp_path / "out", latency=False)
        card = (done.folder / "README.md").read_text()
        assert (done.source.origin, "0.1234" in card) == ("search", False)
        assert "it has no figures for this file" in card
        with pytest.raises(UsageError, match="verify trains and measures fp32 only; allowed: auto, search"):
            picked.export(tmp_path / "out", weights="verified")
    finally:
        for path in files.values():
            path.unlink()


def test_the_command_exports_each_form_of_the_front_into_a_folder_of_its_own(study, tmp_path) -> None:
    forms = [(t.number, t.variant) for t in study.front().trials]
    line = ["export", str(study.directory), "--no-latency"]
    result = CliRunner().invoke(app, [*line, "--front", "-o", str(tmp_path / "all"), "--json"])
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert [(one["trial"], one["variant"]) for one in said] == forms
    names = {variant: "trial-00000" + ("" if variant == "fp32" else "-int8") for _, variant in forms}
    assert {one["variant"]: Path(one["folder"]).name for one in said} == names
    result = CliRunner().invoke(app, [*line, "--pick", "bytes <= 250000", "-o", str(tmp_path / "small")])
    assert result.exit_code == 0, result.stderr
    assert "model-int8.onnx" in result.stdout
    assert "the file that the search measured" in " ".join(result.stdout.split())
    assert "trial 0 (int8)" in result.stderr


def test_the_forms_of_one_trial_lie_apart_and_the_dashboard_offers_the_files_of_both(study, picked, tmp_path) -> None:
    (trial,) = study.trials()
    assert (folder_name(trial), folder_name(picked)) == ("trial-00000", "trial-00000-int8")
    small = picked.export(tmp_path / "int8", latency=False)
    plain = export(study.directory, trial, tmp_path / "fp32", formats="onnx", latency=False)
    files = {path.name: path.parent.name for path in offered([small, plain])}
    assert (files["model.onnx"], files["model-int8.onnx"], files["README.md"]) == ("fp32", "int8", "fp32")
    assert len(files) == len(offered([plain])) + 1


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--formats", "safetensors,onnx"], "got: safetensors, onnx"),
        (["--weights", "verified"], "fp32 only"),
        (["--push-to-hub", "a/b"], "int8 students cannot be saved in it; use --trial 0"),
    ],
)
def test_wrong_requests_of_the_command_are_answered_before_any_work(study, tmp_path, arguments, match) -> None:
    line = ["export", str(study.directory), "--pick", "bytes <= 250000", "-o", str(tmp_path / "out"), *arguments]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 2
    assert match in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []
