import fcntl
import functools
import gc
import pickle
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autodistill.core.errors import InfeasibleError, InterruptedTrialError, StoreError, UnknownNameError
from autodistill.core.records import Candidate, DataSpec, Task, TeacherSpec, WorkerContext
from autodistill.training.data import datasets
from autodistill.training.distillation.initialise import initialise
from autodistill.training.loop.measures import measures
from autodistill.training.runtime import durable_files as checkpoint
from autodistill.training.runtime import measurement_lock
from autodistill.training.runtime.remote_storage import RemoteFolder
from autodistill.training.students import build as students
from autodistill.training.teachers import load as teachers
from autodistill.training.trials.evaluate import Trial, WorkerState, discard, evaluator, load_student
from autodistill.training.trials.remote_trials import send_inputs
from autodistill.training.trials.teach import teach
from autodistill.training.trials.trial_files import student_facts, trial_folder

DATA = DataSpec("own_parts:images")
STUDENT = {"family": "resnetv2", "width": 4, "stages": 2}
KD = {"loss": "kd", "temperature": 2.0, "alpha": 0.5}
TRAIN = {"lr": 0.02, "batch_size": 32, "ema": 0.9}

CODE = '''
import torch
from torch import nn

def images(part, n=200):
    """Brightness is the class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 4
    noise = torch.randint(-20, 20, (n, 1, 8, 8), generator=generator)
    return (noise + 32 + 63 * labels[:, None, None, None]).clamp(0, 255).to(torch.uint8).numpy(), labels.numpy()

class Answer(nn.Module):
    def head(self, x):
        return -(4 * x - torch.tensor([[0.5, 1.5, 2.5, 3.5]])).abs() * 3

class CNN(Answer):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 8)
        nn.init.constant_(self.conv.weight, 1 / 64); nn.init.zeros_(self.conv.bias)
    def forward(self, x):
        return self.head(self.conv(x).flatten(1))

class Faint(CNN):
    def __init__(self):
        super().__init__()
        nn.init.constant_(self.conv.weight, 1 / 80)

class Rows(Answer):
    """Reads rows one after the other."""
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 2, batch_first=True)
    def forward(self, x):
        self.lstm(x[:, 0])
        return self.head(x.mean((1, 2, 3))[:, None])

class Tokens(Answer):
    def __init__(self):
        super().__init__()
        self.attend = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    def forward(self, x):
        self.attend(x[:, 0])
        return self.head(x.mean((1, 2, 3))[:, None])
'''


@pytest.fixture(scope="module", autouse=True)
def own_code(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    (folder / "own_parts.py").write_text(CODE)
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(folder)
    patch.setenv("AUTODISTILL_CACHE", str(folder / "cache"))
    patch.setenv("AUTODISTILL_LEASE", str(folder / "lease"))
    yield
    patch.undo()


@pytest.fixture
def task(tmp_path):
    return Task(DATA, TeacherSpec("own_parts:CNN"), str(tmp_path), (1, 2, 4), ("accuracy", "params"))


def candidate(number=0, *, distillation=KD, start_rung=0, seed=1, student=STUDENT, **train):
    return Candidate(number, student, distillation, {**TRAIN, **train}, seed, start_rung)


def run(task, one, context=WorkerContext()):  # noqa: B008
    return list(evaluator(task, context)(one))


def outcome(reports):
    return [(report.rung, dict(report.values), report.epochs) for report in reports]


def test_known_costs_come_first_and_then_every_rung(task):
    reports = run(task, candidate())
    assert [(report.rung, report.epochs) for report in reports] == [(0, 0), (1, 1), (2, 2), (3, 4)]
    assert set(reports[0].values) == {"params"}
    assert set(reports[3].values) == {"accuracy", "loss", "agreement", "params", *measures.names()}
    assert reports[3].values["accuracy"] > 0.6
    seconds = [report.seconds for report in reports]
    assert seconds == sorted(seconds)


def test_reports_have_the_seconds_of_the_teacher_for_uncached_views(task):
    first, second = (run(task, candidate(number)) for number in (0, 1))
    assert first[0].seconds > 0
    assert first[0].teacher_seconds is None
    asked, again = ([report.teacher_seconds for report in reports[1:]] for reports in (first, second))
    assert 0 < asked[0] < asked[1] < asked[2] < first[-1].seconds
    assert again[2] < asked[2] / 2  # it found every view, and read the answers on validation
    untaught = run(task, candidate(2, distillation={"loss": "none"}))
    assert [report.teacher_seconds for report in untaught] == [None] * 4


def test_latency_is_measured_where_it_counts(task):
    report = run(replace(task, metrics=("accuracy", "params", "latency_ms")), candidate())[0]
    assert set(report.values) == {"params", "latency_ms"}
    assert 0 < report.values["latency_ms"] < 1000


def test_the_factory_can_be_sent_to_another_process(task):
    factory = functools.partial(evaluator, task)
    assert pickle.loads(pickle.dumps(factory))(WorkerContext()) is not None


def test_one_candidate_and_seed_give_equal_metrics_in_another_folder(task, tmp_path):
    first = outcome(run(task, candidate()))
    assert first == outcome(run(replace(task, directory=str(tmp_path / "other")), candidate()))
    assert first != outcome(run(task, candidate(1, seed=2)))


@pytest.mark.parametrize("distillation", [KD, {"loss": "dkd", "embedding": "embed_cosine"}, {"loss": "none"}])
def test_stopping_at_a_rung_and_going_on_equals_not_stopping(task, tmp_path, distillation):
    if "embedding" in distillation:
        folder = tmp_path / "teacher"
        data = datasets.load_images(DATA)
        spec = teach(data, {**STUDENT, "width": 8}, directory=folder, epochs=1)
        task = replace(task, teacher=spec)
    whole = outcome(run(replace(task, directory=str(tmp_path / "whole")), candidate(distillation=distillation)))
    one = candidate(distillation=distillation)
    reports = evaluator(task, WorkerContext())(one)
    begun = [next(reports), next(reports)]
    reports.close()
    rest = run(task, replace(one, start_rung=1))
    assert outcome(begun) + outcome(rest) == whole


def test_asked_to_stop_it_saves_inside_an_epoch_and_goes_on_the_same(task, tmp_path):
    whole = outcome(run(replace(task, directory=str(tmp_path / "whole")), candidate()))
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) == 8  # five steps make an epoch

    reports = evaluator(task, WorkerContext(should_stop=should_stop))(candidate())
    begun = [next(reports), next(reports)]
    with pytest.raises(InterruptedTrialError, match=r"trial 0 was stopped after 1\.\d of 4 epochs"):
        next(reports)
    rest = run(task, candidate(start_rung=1))
    assert outcome(begun) + outcome(rest) == whole


def test_reports_that_did_not_arrive_are_given_again_without_training(task):
    first = run(task, candidate())
    steps = []
    again = run(task, candidate(start_rung=1), WorkerContext(should_stop=lambda: bool(steps.append(1))))
    assert outcome(again) == outcome(first[2:])
    assert not steps


def test_a_damaged_checkpoint_costs_work_and_not_the_result(task, tmp_path):
    whole = outcome(run(replace(task, directory=str(tmp_path / "whole")), candidate()))
    reports = evaluator(task, WorkerContext())(candidate())
    begun = [next(reports) for _ in range(3)]
    reports.close()
    newest = sorted(trial_folder(task.directory, 0).glob("step-*"))[-1] / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-40])
    with pytest.warns(UserWarning, match="damaged"):
        rest = run(task, candidate(start_rung=2))
    assert outcome(begun) + outcome(rest) == whole


def test_without_any_checkpoint_it_starts_over_and_reports_only_what_is_new(task):
    whole = run(task, candidate())
    discard(task, 0)
    assert not trial_folder(task.directory, 0).exists()
    assert outcome(run(task, candidate(start_rung=2))) == outcome(whole[3:])


def test_the_finished_student_loads_with_its_accuracy(task):
    last = run(task, candidate(7))[-1]
    model, facts = load_student(task.directory, 7), student_facts(task.directory, 7)
    val = datasets.load_images(DATA).val
    mean, std = (torch.tensor(facts[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        decided = model((torch.from_numpy(val.images) / 255 - mean) / std).argmax(1).numpy()
    assert (decided == val.labels).mean() == pytest.approx(last.values["accuracy"], abs=1e-9)
    assert not model.training
    folder = trial_folder(task.directory, 7)
    assert [path.name for path in folder.iterdir()] == ["student"]  # checkpoints are gone


def test_a_trial_that_did_not_finish_has_no_student(task):
    with pytest.raises(StoreError, match="trial 3 has no finished student"):
        load_student(task.directory, 3)


def test_the_teacher_computes_each_view_once_whatever_the_number_of_trials(task):
    worker = WorkerState(task, WorkerContext())
    for number in range(3):
        list(worker.evaluate(candidate(number, seed=number)))
    asked = {name: cache.total_forwards() for name, cache in worker._caches.items()}
    validation, training = len(worker.data.val), len(worker.data.train)
    assert validation in asked.values()
    assert max(asked.values()) <= 4 * training  # four epochs, four views
    assert sum(asked.values()) == validation + max(asked.values())


def test_a_second_study_on_the_same_data_and_teacher_needs_no_forward_pass_of_the_teacher(task, tmp_path):
    shared = str(tmp_path / "shared")
    first = WorkerState(replace(task, directory=str(tmp_path / "a"), cache=shared), WorkerContext())
    reports = list(first.evaluate(candidate()))
    assert sum(cache.forwards for cache in first._caches.values()) > 0
    second = WorkerState(replace(task, directory=str(tmp_path / "b"), cache=shared), WorkerContext())
    assert outcome(second.evaluate(candidate(5))) == outcome(reports)
    assert [cache.forwards for cache in second._caches.values()] == [0, 0]
    assert not (tmp_path / "a" / "cache").exists()


def test_online_and_cached_answers_train_alike(task, tmp_path):
    cached = run(task, candidate())[-1].values["loss"]
    online = run(replace(task, directory=str(tmp_path / "o")), candidate(teacher_mode="online"))[-1].values["loss"]
    assert online == pytest.approx(cached, abs=0.02)  # the cache keeps half precision


def onnx_teacher(path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    made = onnx.helper.make_node
    bias = onnx.numpy_helper.from_array(np.array([[0.5, 1.5, 2.5, 3.5]], np.float32), "bias")
    four = onnx.numpy_helper.from_array(np.array(4.0, np.float32), "four")
    graph = onnx.helper.make_graph(
        [
            made("GlobalAveragePool", ["x"], ["m"]), made("Flatten", ["m"], ["f"]), made("Mul", ["f", "four"], ["s"]),
            made("Sub", ["s", "bias"], ["d"]), made("Abs", ["d"], ["a"]), made("Neg", ["a"], ["y"]),
        ],
        "bright",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])],
        [bias, four],
    )  # fmt: skip
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.mark.parametrize("kind", ["CNN", "Tokens", "Rows", "onnx", "npz"])
def test_five_kinds_of_teacher_distil_the_same_student(task, tmp_path, kind):
    source = f"own_parts:{kind}"
    data = datasets.load_images(DATA)
    if kind == "onnx":
        source = str(tmp_path / "teacher.onnx")
        onnx_teacher(source)
    elif kind == "npz":
        source = str(tmp_path / "logits.npz")
        network = teachers.load_teacher(TeacherSpec("own_parts:CNN"), data)
        logits = np.full((data.pool_size, 4), np.nan, np.float32)
        for split in (data.train, data.val):
            logits[split.ids] = network(torch.from_numpy(split.images) / 255).numpy()
        np.savez(source, logits=logits)
    only = {**KD, "alpha": 1.0}  # the labels do not count: what is learnt comes from the teacher
    report = run(replace(task, teacher=TeacherSpec(source)), candidate(distillation=only))[-1]
    assert report.values["agreement"] > 0.6
    assert report.values["accuracy"] > 0.6


def test_the_teacher_is_never_changed_by_training(task):
    worker = WorkerState(task, WorkerContext())
    before = {name: value.clone() for name, value in worker.teacher.network.state_dict().items()}
    list(worker.evaluate(candidate(teacher_mode="online")))
    assert all(torch.equal(before[name], value) for name, value in worker.teacher.network.state_dict().items())
    assert not any(module.training for module in worker.teacher.network.modules())


def test_a_student_of_the_teachers_architecture_starts_as_the_teacher(task, tmp_path):
    data = datasets.load_images(DATA)
    teacher = teachers.load_teacher(teach(data, STUDENT, directory=tmp_path / "teacher", epochs=1), data)
    model = students.build_student(STUDENT, image_size=8, channels=1, num_classes=4).eval()
    copied = initialise(model, teacher)
    assert str(copied) == f"{len(model.state_dict())} tensors copied, 0 sliced, 0 left random"
    images = torch.from_numpy(data.val.images) / 255
    with torch.no_grad():
        torch.testing.assert_close(model((images - data.mean[0]) / data.std[0]), teacher(images))


def test_a_narrower_student_takes_slices_of_its_teacher(task, tmp_path):
    data = datasets.load_images(DATA)
    spec = teach(data, {**STUDENT, "width": 32}, directory=tmp_path / "teacher", epochs=1)
    teacher = teachers.load_teacher(spec, data)
    model = students.build_student({**STUDENT, "width": 16}, image_size=8, channels=1, num_classes=4)
    copied = initialise(model, teacher)
    wide, narrow = teacher.network.network.state_dict(), model.state_dict()
    assert torch.equal(narrow["stem.conv.weight"], wide["stem.conv.weight"][:16])
    assert "stem.conv.weight" in copied.sliced
    assert "head.fc.weight" in copied.sliced
    assert not copied.left


def test_initialised_trials_run(task, tmp_path):
    spec = teach(datasets.load_images(DATA), STUDENT, directory=tmp_path / "teacher", epochs=3, recipe={"lr": 0.03})
    start = run(replace(task, teacher=spec), candidate(init="teacher", lr=1e-4))[1].values["accuracy"]
    assert start > run(replace(task, teacher=spec), candidate(1, lr=1e-4))[1].values["accuracy"]


def test_progress_names_epochs_and_top(task, monkeypatch):
    monkeypatch.setattr("autodistill.training.trials.evaluate._PROGRESS_SECONDS", 0.0)
    told = []
    run(task, candidate(), WorkerContext(progress=lambda *args: told.append(args)))
    assert told[0][:2] == (0.0, 4)
    assert told[-1][0] < 4
    assert "accuracy" in told[-1][2]


def test_an_impossible_student_is_infeasible_before_any_training(task):
    with pytest.raises(InfeasibleError):
        run(task, candidate(student={"family": "vit", "patch": 16}))


def test_misspelt_settings_are_refused_before_the_first_report(task):
    with pytest.raises(UnknownNameError, match="unknown training setting 'lrr'"):
        run(task, candidate(lrr=1))
    with pytest.raises(UnknownNameError):
        run(task, candidate(distillation={"loss": "kdd"}))


def test_checkpoints_hold_no_teacher(task):
    reports = evaluator(task, WorkerContext())(candidate())
    for _ in range(2):
        next(reports)
    (folder,) = trial_folder(task.directory, 0).glob("step-*")
    files, _ = checkpoint.read_folder(folder)
    names = checkpoint.tensors_from(files["tensors.safetensors"])
    assert {name.split(".")[0] for name in names} == {"model", "average", "optimizer"}


# -- workers that do not see the study's folder ------------------------------------------------------------------------


def elsewhere(task, tmp_path, name="storage"):
    """A worker's task and context when the study's folder is on another machine, with what the driver had sent."""
    mirror = RemoteFolder.at(str(tmp_path / name))
    send_inputs(task, mirror)
    return replace(task, directory="/nowhere/study"), WorkerContext(storage=mirror.url), mirror


def test_a_trial_goes_on_in_another_folder_from_the_checkpoint_in_the_storage(task, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"  # other processes make such folders in the machine's own
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    whole = outcome(run(task, candidate(3)))
    task, context, mirror = elsewhere(task, tmp_path)
    first = evaluator(task, context)
    reports = first(candidate(3))
    begun = [next(reports), next(reports)]
    assert [name.rpartition("/")[0] for name in mirror.names()] == ["checkpoints/trial-00003"]
    reports.close()
    (home,) = temporary.glob("autodistill-work-*")
    assert not (home / "checkpoints" / "trial-00003").exists()  # what is in the storage does not fill the disk too
    second = WorkerState(task, context)
    trial = second.trial(replace(candidate(3), start_rung=1))
    rest, key = outcome(trial.reports()), trial.key
    assert outcome(begun) + rest == whole
    assert mirror.names() == [f"checkpoints/trial-00003/student-{key}"]
    again = outcome(run(task, candidate(3), context))
    assert again == whole  # given again from the finished student
    del first, reports, second, trial
    gc.collect()
    assert list(temporary.iterdir()) == []
    assert not Path("/nowhere").exists()


def test_a_trial_with_a_changed_teacher_goes_on_from_its_own_checkpoint_in_the_storage(task, tmp_path, monkeypatch):
    changed = replace(task, teacher=TeacherSpec("own_parts:Faint"), directory=str(tmp_path / "changed"))
    wholes = [outcome(run(one, candidate(3))) for one in (task, changed)]
    pairs = [elsewhere(one, tmp_path)[:2] for one in (task, changed)]
    begun = []
    for (one, context), rungs in zip(pairs, (2, 1), strict=True):  # the old teacher's training has come farther
        reports = evaluator(one, context)(candidate(3))
        begun.append([next(reports) for _ in range(rungs + 1)])
        reports.close()
    found, real = [], Trial._resume
    monkeypatch.setattr(Trial, "_resume", lambda trial, trainer: found.append((real(trial, trainer), trainer.epoch)))
    rests = [
        outcome(run(one, replace(candidate(3), start_rung=rung), context))
        for (one, context), rung in reversed(list(zip(pairs, (2, 1), strict=True)))
    ]
    assert [epoch for _, epoch in found] == [1, 0]  # its own; what it finished took the place of all checkpoints
    assert outcome(begun[1]) + rests[0] == wholes[1]
    assert outcome(begun[0]) + rests[1] == wholes[0]


def test_a_damaged_object_is_passed_over_and_the_checkpoint_before_it_is_used(task, tmp_path):
    whole = outcome(run(task, candidate(3)))
    task, context, mirror = elsewhere(task, tmp_path)
    reports = evaluator(task, context)(candidate(3))
    begun = [next(reports), next(reports), next(reports)]
    reports.close()
    older, newer = mirror.names()
    assert older < newer
    path = tmp_path / "storage" / newer
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"is damaged: its hash differs.*The checkpoint before it is used"):
        rest = outcome(run(task, replace(candidate(3), start_rung=2), context))
    assert outcome(begun) + rest == whole


def test_a_storage_that_cannot_be_written_costs_a_checkpoint_and_not_the_training(task, tmp_path):
    whole = outcome(run(task, candidate(3)))
    task, context, _ = elsewhere(task, tmp_path)
    reports = evaluator(task, context)(candidate(3))
    found = [next(reports)]
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "checkpoints").write_text("a file where a folder should be")
    with pytest.warns(UserWarning, match="cannot write step-.*The training continues"):
        found += [next(reports), next(reports)]
    (tmp_path / "storage" / "checkpoints").unlink()
    assert outcome([*found, *reports]) == whole


def test_the_teacher_reaches_a_worker_that_does_not_see_its_folder(task, tmp_path):
    folder = tmp_path / "teacher"
    spec = teach(datasets.load_images(DATA), {**STUDENT, "width": 8}, directory=folder, epochs=1)
    task = replace(task, teacher=spec)
    whole = outcome(run(task, candidate()))
    task, context, mirror = elsewhere(task, tmp_path)
    folder.rename(tmp_path / "gone")
    assert [name.split("/")[0] for name in mirror.names()] == ["inputs"]
    assert outcome(run(task, candidate(1), context)) == whole


def test_a_wait_for_a_measurement_is_no_time_of_the_trial_and_is_reported_to_its_engine(task, monkeypatch):
    waits = []

    def breathe(devices, *, waiting):
        assert devices == ("cpu",)
        waiting.on_wait("waiting for a latency measurement of process 4711", 1000.0)

    whole = run(replace(task, directory=f"{task.directory}/alone"), candidate())
    monkeypatch.setattr(measurement_lock, "yield_to_measurement", breathe)
    told = WorkerContext(waits=lambda what, seconds: waits.append((what, seconds)))
    reports = run(task, candidate(), told)
    steps = len(waits)
    assert steps == 20  # five in each of four epochs
    assert set(waits) == {("waiting for a latency measurement of process 4711", 1000.0)}
    assert reports[-1].seconds == pytest.approx(whole[-1].seconds - 1000.0 * steps, abs=100.0)


def test_a_trial_that_waits_for_its_turn_to_measure_ends_when_it_is_asked_to_stop(task, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTODISTILL_LEASE", str(tmp_path / "lease"))
    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path / "cache"))  # no latency is remembered
    stop = []
    with (measurement_lock.folder() / "intent").open("w") as another:  # another process that measures
        fcntl.flock(another, fcntl.LOCK_EX)
        context = WorkerContext(should_stop=lambda: bool(stop), waits=lambda what, seconds: stop.append(what))
        monkeypatch.setattr(measurement_lock, "NOTICE_SECONDS", 0.01)
        timed = replace(task, metrics=("accuracy", "latency_ms"))
        with pytest.raises(InterruptedTrialError, match="before the latency of its student was measured"):
            run(timed, candidate(), context)
    assert "waiting for a latency measurement of process" in stop[0]


def test_every_rung_reports_all_measures_and_those_of_the_study_s_own(task, tmp_path, monkeypatch):
    (tmp_path / "own_measures.py").write_text(
        "def right(logits, labels):\n    return (logits.argmax(1) == labels).mean()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    shown = []
    context = WorkerContext(progress=lambda epoch, epochs, metrics: shown.append(set(metrics)))
    monkeypatch.setattr("autodistill.training.trials.evaluate._PROGRESS_SECONDS", 0.0)
    own = replace(task, measures={"right": "own_measures:right"}, metrics=("balanced_accuracy", "params"))
    reports = run(own, candidate(class_weights="balanced", sampler="balanced"), context)
    for report in reports[1:]:
        assert report.values["right"] == report.values["accuracy"]
        assert set(measures.names()) < report.values.keys()
    assert shown[-1] == {"accuracy", "loss", "agreement", "balanced_accuracy"}  # progress lines stay short
