"""Compress: every variant is a file that was measured, made once, and compared with the study's own students."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import autodistill as ad
from autodistill.cli import app
from autodistill.commands.compress import _say_next, print_compressed
from autodistill.core.errors import (
    DivergedError,
    InfeasibleError,
    ResourceError,
    StoreError,
    UnknownNameError,
    UsageError,
)
from autodistill.delivery.export import compress as module
from autodistill.delivery.export.compress import Compressed, compress
from autodistill.delivery.export.compress_variants import (
    Variant,
    joint_front,
    read_compressed,
    split_name,
    variant_names,
)
from autodistill.delivery.export.weights import Source, take_weights
from autodistill.training.data import datasets
from autodistill.training.deployed.onnx_files import run_onnx


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> ad.Study:
    """One student of the real digits, trained for a few epochs."""
    study = ad.Study.create(
        data={"source": "digits", "train_size": 300},
        teacher={
            "source": "auto",
            "accept_weak": True,
            "options": {"epochs": 1, "model": {"family": "resnet", "width": 8, "depth": 1}},
        },
        space={
            "student": {"family": "resnet", "width": 8, "depth": 1},
            "distillation": {"loss": "kd", "temperature": 4, "alpha": {"low": 0.3, "high": 0.7}},
            "train": {"lr": 0.02},
        },
        objectives=["accuracy", "params"],
        epochs=5,
        rungs="off",
        survey="off",
        sampler="random",
        directory=tmp_path_factory.mktemp("studies") / "digits",
    )
    ad.search(study, budget="1trials", workers=1)
    return study


@pytest.fixture(scope="module")
def said(study):
    return []


@pytest.fixture(scope="module")
def done(study, said):
    front = study.front()
    return compress(
        study.directory,
        front.trials[0],
        front=front.trials,
        ratios=[0.5],
        epochs=2,
        latency=False,
        progress=said.append,
    )


def by_name(found):
    return {one.name: one for one in found.variants}


def test_every_method_gives_a_file_with_figures(done, study):
    found = by_name(done)
    assert list(found) == ["fp32", "int8-static", "int8-dynamic", "fp16", "weights-0.5", "channels-0.5"]
    for one in found.values():
        assert one.state == "ok", one.remark
        assert (study.directory / one.file).stat().st_size == one.bytes
    assert found["fp32"].accuracy == study.front().trials[0].values["accuracy"]
    assert found["fp32"].drop == 0
    assert max(found[name].bytes for name in ("int8-static", "int8-dynamic", "fp16")) < found["fp32"].bytes


def test_accuracy_is_that_of_the_file_on_validation(done, study):
    from autodistill.delivery.export.write import normalized
    from autodistill.training.trials.trial_files import student_facts

    val = datasets.load_images(study.config.data, study.directory / "cache").val
    images = normalized(val.images, student_facts(study.directory, done.trial))
    for one in done.variants:
        decided = run_onnx(study.directory / one.file, images).argmax(1)
        assert one.accuracy == pytest.approx(float((decided == val.labels).mean()))


def test_pruned_weights_stay_zero_through_the_fine_tuning_and_show_when_zipped(done):
    found = by_name(done)
    pruned, whole = found["weights-0.5"], found["fp32"]
    assert pruned.params == whole.params
    assert pruned.nonzero / whole.params == pytest.approx(0.5, abs=0.02)
    assert pruned.bytes == pytest.approx(whole.bytes, rel=0.01)
    assert pruned.zipped < 0.75 * whole.zipped


def test_pruned_channels_make_the_network_itself_smaller(done):
    found = by_name(done)
    assert found["channels-0.5"].params < 0.35 * found["fp32"].params
    assert found["channels-0.5"].macs < 0.4 * found["fp32"].macs
    assert found["channels-0.5"].bytes < 0.5 * found["fp32"].bytes


def test_the_same_call_again_makes_nothing_and_a_lost_file_is_made_again(done, study, said):
    assert [text for text in said if text.startswith("making")] == [f"making {one.name}" for one in done.variants]
    front = study.front()

    def again() -> list[str]:
        told: list[str] = []
        found = compress(
            study.directory, front.trials[0], front=front.trials, ratios=[0.5], epochs=2, latency=False,
            progress=told.append,
        )  # fmt: skip
        assert [one.key for one in found.variants] == [one.key for one in done.variants]
        return [text for text in told if text.startswith("making")]

    assert again() == []
    (study.directory / by_name(done)["fp16"].file).unlink()
    assert again() == ["making fp16"]


@pytest.mark.parametrize(
    ("error", "states"),
    [
        (ResourceError("cannot write fp16.onnx: No space left on device."), ["failed", "ok", "ok"]),
        (DivergedError("the loss is not finite"), ["failed", "failed", "failed"]),  # it would be so again
    ],
)
def test_what_failed_for_lack_of_a_resource_is_tried_again(done, study, tmp_path, monkeypatch, error, states):
    folder = shutil.copytree(study.directory, tmp_path / "copy")
    (folder / by_name(done)["fp16"].file).unlink()

    def refuse(*_arguments, **_keywords):
        raise error

    def state() -> str:
        return by_name(compress(folder, study.front().trials[0], methods=["fp16"], latency=False))["fp16"].state

    with monkeypatch.context() as patched:
        patched.setattr("autodistill.training.deployed.quantize.to_fp16", refuse)
        found = [state()]
    kept = {one.name: one.remark for one in read_compressed(folder, done.trial)}
    assert kept["fp16"] == str(error)
    assert [*found, state(), state()] == states


def test_what_cannot_be_made_has_a_reason_and_the_others_are_made(done, study, monkeypatch):
    def refuse(*_arguments, **_keywords):
        raise InfeasibleError("its channels cannot be removed: a knot")

    monkeypatch.setattr("autodistill.training.deployed.pruning.prune_channels", refuse)
    found = by_name(
        compress(study.directory, study.front().trials[0], methods=["channels", "fp16"], ratios=[0.25], latency=False)
    )
    assert (found["channels-0.25"].state, found["channels-0.25"].remark) == (
        "failed",
        "its channels cannot be removed: a knot",
    )
    assert found["fp16"].state == "ok"
    kept = {one.name for one in read_compressed(study.directory, done.trial)}
    assert {"channels-0.5", "channels-0.25", "int8-static"} <= kept  # earlier variants stay


def test_the_joint_front_holds_what_nothing_beats():
    points = {"a": (0.9, 100.0), "b": (0.9, 50.0), "c": (0.8, 20.0), "d": (0.7, 30.0)}
    assert joint_front(points) == {"b", "c"}
    assert joint_front({}) == set()


def test_a_variant_that_loses_too_much_joins_no_front(done, study):
    work = module._Work(study.directory, study.front().trials[0], None)
    small = replace(done.variants[-1], name="channels-0.5", drop=0.4)  # near chance, and by far the smallest
    whole = replace(done.variants[0], drop=0.0)
    for limit, joins in ((0.01, False), (0.5, True)):
        found = module._compared(work, [whole, small], (), False, lambda _: None, limit)
        assert [one.front for one in found.variants] == [True, joins]


def test_what_joined_is_named_with_the_command_that_gives_it(capsys, tmp_path):
    def made(*joined):
        names = ("fp32", "int8-static", "fp16", "channels-0.5")
        variants = tuple(
            Variant(n, state="ok", file=f"{n}.onnx", accuracy=0.9, drop=0.0, front=n in joined) for n in names
        )
        return Compressed(3, variants, (), (), ("accuracy", "bytes"))

    _say_next(made("fp32", "int8-static", "channels-0.5"), tmp_path)
    said = capsys.readouterr().err
    assert f"channels-0.5: {tmp_path / 'channels-0.5.onnx'}" in said
    assert "--trial 3 --formats onnx,onnx-int8 -o student" in said
    _say_next(made("fp32"), tmp_path)
    assert capsys.readouterr().err == ""
    dull = replace(made("fp32"), variants=(Variant("channels-0.5", state="ok", accuracy=0.13, drop=0.85, bytes=9),))
    print_compressed(dull)
    said = capsys.readouterr()
    assert "loses more than 0.01" in said.out
    assert "no variant joined" in said.err


def test_the_weights_that_export_ships_are_those_that_are_compressed(study, tmp_path, monkeypatch):
    """As after ``verify``: another network than the search's goes out."""
    folder = tmp_path / "study"
    shutil.copytree(study.directory, folder)
    trial = study.front().trials[0]
    before = compress(folder, trial, methods=["fp16"], latency=False)
    assert before.source == Source("search", trial.seed)
    assert {one.weights for one in before.variants} == {"search"}

    def take(root, record, source):
        model, facts = take_weights(root, record, Source("search", record.seed))
        if source.origin == "verified":
            model.load_state_dict({name: torch.zeros_like(value) for name, value in model.state_dict().items()})
            facts = {**facts, "key": "verified"}
        return model, facts

    def source_of(_root, record, wanted):
        return Source("search", record.seed) if wanted == "search" else Source("verified", 5, 0.1)

    monkeypatch.setattr(module, "take_weights", take)
    monkeypatch.setattr(module, "source_of", source_of)
    told = []
    other = replace(trial, number=trial.number + 1)
    shutil.copytree(
        folder / "checkpoints" / f"trial-{trial.number:05d}", folder / "checkpoints" / f"trial-{other.number:05d}"
    )
    after = compress(folder, trial, front=[trial, other], methods=["fp16"], latency=False, progress=told.append)
    assert told[:2] == ["weights: of verify's first seed, 5, not selected by any result", "making fp32"]
    labels = datasets.load_images(study.config.data, folder / "cache").val.labels
    chance = float((labels == 0).mean())  # of a network that answers 0 to everything
    assert [one.accuracy for one in after.variants] == [chance, chance]
    assert [accuracy for _, accuracy, _, _ in after.members] == [chance]  # compared with such weights too
    kept = {one.name: one.weights for one in read_compressed(folder, trial.number)}
    assert (kept["fp32"], kept["fp16"]) == ("verified", "verified")
    assert after.to_json()["weights"]["from"] == "verified"
    again = compress(folder, trial, methods=["fp16"], weights="search", latency=False)
    assert [one.accuracy for one in again.variants] == [one.accuracy for one in before.variants]


def test_the_command_that_comes_next_takes_the_same_weights(capsys, tmp_path):
    fast = Variant("fp16", state="ok", file="fp16.onnx", accuracy=0.9, drop=0.0, front=True)
    _say_next(Compressed(3, (fast,), (), (), ("accuracy",), wanted="search"), tmp_path)
    assert "--formats onnx,onnx-fp16 --weights search -o student" in capsys.readouterr().err


def test_variants_have_names_for_each_method_and_ratio():
    assert variant_names(["channels", "fp16"], [0.3, 0.5]) == ["fp32", "channels-0.3", "channels-0.5", "fp16"]
    assert (split_name("channels-0.3"), split_name("int8-static")) == (("channels", 0.3), ("int8-static", 0.0))
    with pytest.raises(UnknownNameError, match="did you mean 'int8-static'"):
        variant_names(["int8-statc"], [0.5])
    with pytest.raises(UsageError, match="between 0 and 1"):
        variant_names(["channels"], [50])


def test_a_damaged_file_of_figures_is_said(tmp_path):
    (tmp_path / "compress.json").write_text("{")
    with pytest.raises(StoreError, match=r"compress\.json cannot be read"):
        read_compressed(tmp_path, 0)


def test_the_command_prints_json_and_refuses_wrong_requests(done, study):
    arguments = ["compress", str(study.directory), "--knee", "--methods", "fp16", "--no-latency"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert [one["name"] for one in said["variants"]] == ["fp32", "fp16"]
    assert said["axes"] == ["accuracy", "bytes"]
    table = CliRunner().invoke(app, arguments)
    assert "fp16" in table.stdout
    for wrong in (["--ratios", "half"], ["--methods", "int9"], ["--trial", "7"]):
        found = CliRunner().invoke(
            app, ["compress", str(study.directory), *(["--knee"] if "--trial" not in wrong else []), *wrong]
        )
        assert found.exit_code == 2, found.stderr


def test_the_default_fine_tuning_is_a_fifth_of_the_trial(study):
    work = module._Work(study.directory, study.front().trials[0], None)
    assert work.epochs == 1
    with pytest.raises(UsageError, match="at least 1"):
        module._Work(study.directory, study.front().trials[0], 0)
    assert np.isfinite(work.validation.accuracy)
