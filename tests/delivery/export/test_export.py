"""Export: what is written is what was trained, checked on real images, and runs without autodistill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from typer.testing import CliRunner

import autodistill as ad
from autodistill.cli import app
from autodistill.core.errors import ResourceError, StoreError, UnknownNameError, UsageError
from autodistill.delivery.export.checks import Validation, check_file
from autodistill.delivery.export.formats import formats, parse_formats
from autodistill.delivery.export.hub_push import plan_upload
from autodistill.delivery.export.write import export, normalized, refuse_foreign
from autodistill.delivery.verify.write import write_verified
from autodistill.search.results.verified import Figure, Verified, VerifiedRow
from autodistill.training.data import datasets

SPACE = {
    "student": {"family": ["resnet", "vit"], "resnet": {"width": 4, "depth": 1}, "vit": {"width": 16, "depth": 1}},
    "distillation": {"loss": "kd", "temperature": 4, "alpha": 0.5},
    "train": {"lr": 0.02},
}
ALL = ("safetensors", "onnx", "onnx-int8", "onnx-fp16", "torchscript", "torch-export")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> ad.Study:
    """Two students of the real digits, each trained for two epochs."""
    study = ad.Study.create(
        data={"source": "digits", "train_size": 300},
        teacher={
            "source": "auto",
            "accept_weak": True,
            "options": {"epochs": 1, "model": {"family": "resnet", "width": 8, "depth": 1}},
        },
        space=SPACE,
        objectives=["accuracy", "params"],
        epochs=2,
        rungs="off",
        survey="off",
        sampler="random",
        directory=tmp_path_factory.mktemp("studies") / "digits",
    )
    ad.search(study, budget="2trials", workers=1)
    return study


@pytest.fixture(scope="module")
def done(study, tmp_path_factory):
    """Every finished student in every format."""
    out = tmp_path_factory.mktemp("exports")
    records = [trial for trial in study.trials() if trial.values]
    return [export(study.directory, one, out / str(one.number), formats="all", latency=False) for one in records]


@pytest.fixture(scope="module")
def images(study):
    return datasets.load_images(study.config.data, study.directory / "cache").val.images


def facts_of(folder: Path) -> dict:
    return json.loads((folder / "preprocess.json").read_text())


def test_every_format_of_every_student_passes_its_check(done):
    assert {one.student["family"] for one in done} == {"resnet", "vit"}
    for one in done:
        assert [file.format for file in one.checked] == list(ALL)
        for file in one.checked:
            assert (file.state, file.bytes) == ("ok", (one.folder / file.file).stat().st_size), file.remark
            if formats.get(file.format).exact:
                assert file.max_diff <= 1e-4
                assert file.drop == 0


def test_timm_gives_the_network_back_bit_by_bit(done, study, images):
    for one in done:
        trained = next(member for member in members(study) if member.number == one.trial).load()
        x = torch.from_numpy(normalized(images[:64], facts_of(one.folder)))
        with torch.no_grad():
            assert torch.equal(timm.create_model(f"local-dir:{one.folder}", pretrained=True).eval()(x), trained(x))
            assert torch.equal(ad.load(one.folder)(x), trained(x))


def members(study):
    from autodistill.search.results.front_member import FrontMember

    return [FrontMember.of(trial, study.directory) for trial in study.trials() if trial.values]


def test_timm_alone_reads_a_plain_network_and_refuses_the_others_by_name(done):
    code = "import sys, timm; timm.create_model('local-dir:' + sys.argv[1], pretrained=True); "
    code += "print('autodistill' in sys.modules)"
    for one in done:
        found = subprocess.run([sys.executable, "-c", code, one.folder], capture_output=True, text=True, check=False)
        if one.student["family"] == "vit":
            assert (found.returncode, found.stdout.strip()) == (0, "False")
        else:
            assert "Unknown model (autodistill_student)" in found.stderr
            assert "import autodistill.training.deployed.timm_files" in (one.folder / "README.md").read_text()


def test_predict_classifies_png_files_with_onnxruntime_numpy_and_pillow_alone(done, images, tmp_path):
    names = []
    for index, image in enumerate(images[:20]):
        names.append(str(tmp_path / f"{index}.png"))
        Image.fromarray(image[0]).save(names[-1])
    one = done[0]
    block = "import sys, runpy; [sys.modules.__setitem__(m, None) for m in ('torch', 'timm', 'autodistill', 'onnx')]; "
    run = block + "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    for file in ("model.onnx", "model-int8.onnx"):
        script = [sys.executable, "-c", run, str(one.folder / "predict.py"), *names, "--json", "--top", "3"]
        found = subprocess.run([*script, "--model", file], capture_output=True, text=True, check=True, cwd=tmp_path)
        said = json.loads(found.stdout)
        assert [len(entry["classes"]) for entry in said] == [3] * 20
        if file == "model.onnx":
            x = torch.from_numpy(normalized(images[:20], facts_of(one.folder)))
            with torch.no_grad():
                shares = ad.load(one.folder)(x).softmax(1).numpy()
            assert [entry["classes"][0]["name"] for entry in said] == [str(row.argmax()) for row in shares]
            first = [entry["classes"][0]["probability"] for entry in said]
            np.testing.assert_allclose(first, shares.max(1), atol=1e-5)
    plain = subprocess.run(
        [sys.executable, one.folder / "predict.py", names[0]], capture_output=True, text=True, check=True
    )
    assert plain.stdout.split()[0] == names[0]
    wrong = subprocess.run(
        [sys.executable, one.folder / "predict.py", "no.png"], capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)


def test_predict_prints_a_question_mark_for_a_letter_that_the_terminal_has_not(done, images, tmp_path):
    folder = shutil.copytree(done[0].folder, tmp_path / "student")
    spec = json.loads((folder / "preprocess.json").read_text(encoding="utf-8"))
    spec["classes"] = ["日本"] * len(spec["classes"])
    (folder / "preprocess.json").write_text(json.dumps(spec), encoding="utf-8")
    Image.fromarray(images[0][0]).save(tmp_path / "a.png")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    script = [sys.executable, folder / "predict.py", "a.png"]
    found = subprocess.run(script, capture_output=True, check=True, cwd=tmp_path, env={**os.environ, **ascii_only})
    assert found.stdout.split()[::2] == [b"a.png", b"??"]


def test_predict_classifies_the_good_images_beside_a_missing_one(done, images, tmp_path):
    names = [str(tmp_path / "a.png"), "missing.png", str(tmp_path / "c.png")]
    for index in (0, 2):
        Image.fromarray(images[index][0]).save(names[index])
    script = [sys.executable, done[0].folder / "predict.py", *names]
    plain = subprocess.run(script, capture_output=True, text=True, check=False)
    assert [line.split()[0] for line in plain.stdout.splitlines()] == [names[0], names[2]]
    assert plain.stderr.startswith("predict.py: missing.png: ")
    assert plain.returncode == 1
    said = json.loads(subprocess.run([*script, "--json"], capture_output=True, text=True, check=False).stdout)
    assert ["classes" in entry for entry in said] == [True, False, True]
    assert "No such file" in said[1]["error"]


def test_provenance_names_data_teacher_trial_and_the_hash_of_each_file(done, study):
    for one in done:
        origin = json.loads((one.folder / "provenance.json").read_text())
        data = datasets.load_images(study.config.data, study.directory / "cache")
        assert origin["data"]["fingerprint"] == data.fingerprint
        assert len(origin["teacher"]["fingerprint"]) == 16
        assert (origin["trial"], origin["epochs"]) == (one.trial, 2)
        assert {*origin["files"], "provenance.json", "MANIFEST.json"} == {p.name for p in one.folder.iterdir()}
        for name, listed in origin["files"].items():
            assert sha256((one.folder / name).read_bytes()).hexdigest() == listed["sha256"]
        text = "".join(path.read_text() for path in one.folder.glob("*.json"))
        assert str(study.directory) not in text


def test_the_card_warns_that_the_search_flatters_while_nothing_is_verified(done):
    card = (done[0].folder / "README.md").read_text()
    assert "Not verified: figures are from the search's validation split" in card
    assert "`model-int8.onnx`" in card
    assert card.startswith("---\nlibrary_name: timm\n")
    assert {one.source.origin for one in done} == {"search"}


def test_a_damaged_file_is_not_loaded(done, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(done[0].folder, folder)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(StoreError, match="hash differs"):
        ad.load(folder)
    with pytest.raises(UsageError, match="not an exported student"):
        ad.load(tmp_path)


def test_a_file_that_loses_more_than_allowed_is_refused_and_one_that_differs_has_failed(done):
    path = done[0].folder / "model-int8.onnx"
    facts = facts_of(done[0].folder)
    x = np.random.default_rng(0).standard_normal((32, 1, 8, 8)).astype(np.float32)
    logits = formats.get("onnx").predict(done[0].folder / "model.onnx", 1)(x)
    labels = logits.argmax(1)
    good = Validation(x, labels, logits, x, logits)
    assert check_file("onnx", done[0].folder / "model.onnx", good, max_drop=0.0, threads=1).state == "ok"
    other = np.roll(logits, 1, axis=1)  # a network that always says the next class
    wrong = Validation(x, (labels + 1) % len(facts["classes"]), other, x, other)
    refused = check_file("onnx-int8", path, wrong, max_drop=0.5, threads=1)
    assert (refused.state, "loses" in refused.remark) == ("refused", True)
    failed = check_file("onnx", done[0].folder / "model.onnx", wrong, max_drop=1.0, threads=1)
    assert (failed.state, "logits differ" in failed.remark) == ("failed", True)


def test_an_export_replaces_its_own_folder_and_no_other(done, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"was not made by 'autodistill export'"):
        refuse_foreign(tmp_path / "mine")
    (done[0].folder / "notes.txt").write_text("")
    with pytest.raises(UsageError, match=r"not from an export: notes\.txt"):
        refuse_foreign(done[0].folder)
    (done[0].folder / "notes.txt").unlink()
    refuse_foreign(done[0].folder)
    refuse_foreign(tmp_path / "new")


def test_formats_are_named_once_and_wrong_names_get_the_nearest():
    assert parse_formats("onnx, safetensors,onnx") == ("onnx", "safetensors")
    assert parse_formats("all") == ALL
    with pytest.raises(UnknownNameError, match="did you mean 'onnx-int8'"):
        parse_formats("onnx-int")
    with pytest.raises(UsageError, match="no format is given"):
        parse_formats(",")


def test_a_picked_student_loads_and_exports_from_python(study, tmp_path):
    best = study.front().pick("params <= 1e7")
    assert best.load().training is False
    found = best.export(tmp_path / "out", formats=["onnx-fp16"], latency=False)
    assert sorted(path.suffix for path in found.folder.glob("model*")) == [".onnx"]
    assert "model-fp16.onnx" in (found.folder / "predict.py").read_text()
    assert "directory" not in best.to_json()
    with pytest.raises(UsageError, match=r"holds no model\.safetensors"):
        ad.load(tmp_path / "out")


def test_the_command_exports_the_front_and_prints_one_line_per_file(study, tmp_path):
    out = tmp_path / "students"
    arguments = ["export", str(study.directory), "--front", "-o", str(out), "--no-latency", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert [entry["trial"] for entry in said] == [trial.number for trial in study.front().trials]
    assert all(Path(entry["folder"], "model.onnx").is_file() for entry in said)
    offered = study.optuna._storage.get_study_system_attrs(study.optuna._study_id)
    names = [json.loads(facts)["filename"] for key, facts in offered.items() if key.startswith("dashboard:artifacts:")]
    assert names.count("model.onnx") == len(said)  # the dashboard offers them


def test_a_study_that_cannot_be_written_is_exported_all_the_same(study, tmp_path, monkeypatch):
    def refuse(_folder):
        raise ResourceError("cannot write into the study")

    monkeypatch.setattr("autodistill.search.storage.study_folder.folder_lock", refuse)
    line = ["export", str(study.directory), "--knee", "--formats", "safetensors", "--no-latency", "-o", str(tmp_path)]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    assert "the study cannot be written, so the dashboard does not list these files" in result.stderr
    assert (tmp_path / "model.safetensors").is_file()


def verified_as(study, verdicts):
    """A table in which ``verify`` came to these verdicts, as files in the study's folder."""
    known = {trial.number: trial for trial in study.trials()}
    rows = tuple(
        VerifiedRow(
            "student", "s", trial=number, student=known[number].student, distillation=known[number].distillation,
            train=known[number].train, accuracy=Figure(0.9), verdict=verdict,
        )
        for number, verdict in verdicts.items()
    )  # fmt: skip
    return write_verified(
        Verified(study.name, (("accuracy", "maximize"), ("params", "minimize")), rows, 3), study.directory
    )


@pytest.mark.parametrize("verdict", ["falls", None])
def test_the_front_is_exported_without_what_fell_off_and_with_what_was_not_verified(study, tmp_path, verdict):
    front = study.front()
    one_of, *rest = [trial.number for trial in front.trials]
    kept = dict.fromkeys(rest, "stays") or {front.others[0].number: "joins"}
    files = verified_as(study, {**kept, one_of: verdict} if verdict else kept)
    line = ["export", str(study.directory), "--formats", "safetensors", "--no-latency", "--json"]
    try:
        result = CliRunner().invoke(app, [*line, "--front", "-o", str(tmp_path / "all")])
        assert result.exit_code == 0, result.stderr
        shipped = [entry["trial"] for entry in json.loads(result.stdout)]
        assert (f"autodistill verify {study.directory}" in result.stderr) is (verdict is None)
        if verdict is None:
            assert one_of in shipped
            assert f"not verified: trial {one_of}" in result.stderr
            return
        assert shipped == list(kept)
        assert f"left out: trial {one_of} (fell off when verified)" in result.stderr
        assert "anyway: --trial N" in result.stderr
        one = CliRunner().invoke(app, [*line, "--trial", str(one_of), "-o", str(tmp_path / "one")])
        assert (one.exit_code, json.loads(one.stdout)[0]["trial"]) == (0, one_of)
    finally:
        for path in files.values():
            path.unlink()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--knee"], "-o OUT"),
        (["-o", "x"], "one of --trial N, --pick EXPR, --knee and --front"),
        (["-o", "x", "--knee", "--front"], "one of --trial N"),
        (["-o", "x", "--trial", "99"], "trial 99 does not exist; students of the front"),
        (["-o", "x", "--knee", "--formats", "onx"], "did you mean 'onnx'"),
        (["-o", "x", "--front", "--weights", "best"], "allowed: auto, search, verified"),
        (["-o", "x", "--front", "--weights", "verified"], "is not verified yet; run 'autodistill verify"),
        (["-o", "x", "--front", "--push-to-hub", "a/b"], "uploads one student"),
        (["-o", "x", "--knee", "--formats", "onnx", "--push-to-hub", "a/b"], "needs the format safetensors"),
    ],
)
def test_wrong_requests_are_answered_before_any_work(study, tmp_path, monkeypatch, arguments, match):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["export", str(study.directory), *arguments])
    assert result.exit_code == 2
    assert match in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_an_upload_is_checked_before_the_network_is_touched(done, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    upload = plan_upload(done[0].folder, "ada/digits", private=True)
    assert {"config.json", "model.safetensors", "README.md", "predict.py"} <= set(upload.files)
    assert upload.private
    assert "hf_secret" not in repr(upload)
    with pytest.raises(UsageError, match="give NAME/REPOSITORY"):
        plan_upload(done[0].folder, "digits")
    with pytest.raises(UsageError, match=r"has no config\.json"):
        plan_upload(tmp_path, "ada/digits")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(UsageError, match="no Hugging Face token was found"):
        plan_upload(done[0].folder, "ada/digits")


def test_a_card_calls_a_student_that_verify_did_not_finish_not_verified(study, tmp_path):
    trial = study.front().trials[0]
    row = VerifiedRow(
        "student", "s", trial=trial.number, student=trial.student, distillation=trial.distillation, train=trial.train,
        planned=3, before=True,
    )  # fmt: skip
    done = VerifiedRow("student", "s", trial=99, seeds=(1,), accuracy=Figure(0.9), verdict="stays")
    files = write_verified(
        Verified(study.name, (("accuracy", "maximize"),), (done, row), 3, finished=1, planned=6), study.directory
    )
    try:
        card = export(study.directory, trial, tmp_path / "x", formats="safetensors", latency=False).folder / "README.md"
        assert "**Not verified: figures are from the search's validation split.**" in card.read_text()
        assert "0 seeds" not in card.read_text()
        assert "Verified: trained again" not in card.read_text()
    finally:
        for path in files.values():
            path.unlink()
