from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import autodistill as ad
from autodistill.core.errors import UsageError
from autodistill.core.records import State, TrialRecord
from autodistill.delivery.verify.judge import judge
from autodistill.delivery.verify.plan import by_number, choose_trials, members_of, near_misses, noise_of, seeds_of
from autodistill.delivery.verify.prepare import plan_verification
from autodistill.search.objectives.objectives import resolve
from autodistill.search.results.front import Front

OBJECTIVES = resolve(["accuracy", "params"])
KD = {"loss": "kd", "temperature": 2.0, "label_smoothing": 0.1}


def trial(number: int, accuracy: float, params: float, distillation: dict | None = None) -> TrialRecord:
    values = {"accuracy": accuracy, "params": params}
    return TrialRecord(
        number,
        State.COMPLETE,
        values,
        student={"family": "resnet", "width": number + 1},
        distillation=KD if distillation is None else distillation,
        train={"lr": 0.01, "init": "teacher"},
        seed=number,
        epochs=4,
        seconds=10.0 + number,
        rungs={0: {"params": params}, 1: {**values, "epochs": 4, "seconds": 10.0}},
    )


TRIALS = [
    trial(0, 0.80, 100),
    trial(1, 0.90, 1000),
    trial(2, 0.89, 1000),  # 0.01 below what costs the same
    trial(3, 0.79, 999),  # 0.01 below a student that costs a tenth
    trial(4, 0.60, 5000),  # far from everything
]
FRONT = Front.of("s", OBJECTIVES, TRIALS)


def test_neighbours_are_what_a_little_more_accuracy_would_put_on_the_front() -> None:
    assert [t.number for t in near_misses(FRONT, 0.0101)] == [2, 3]
    assert near_misses(FRONT, 0.0099) == []


def test_the_noise_is_twice_the_standard_error_of_an_accuracy() -> None:
    assert noise_of(0.9, 900) == pytest.approx(1.96 * 0.01)
    assert noise_of(1.0, 100) > 0


def test_the_front_comes_first_and_half_as_many_neighbours_after_it() -> None:
    chosen = [t.number for t in choose_trials(FRONT, noise=0.02)]
    assert set(chosen[:2]) == {0, 1}
    assert chosen[2:] == [2]
    assert len(choose_trials(FRONT, noise=0.02, top=1)) == 1


def test_an_empty_front_and_a_top_of_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="front is empty"):
        choose_trials(Front.of("s", OBJECTIVES, []), noise=0.1)
    with pytest.raises(UsageError, match="top is 0"):
        choose_trials(FRONT, noise=0.1, top=0)


def test_trials_chosen_by_hand_must_have_reached_the_top_rung() -> None:
    assert [t.number for t in by_number(TRIALS, [3, 0, 3])] == [3, 0]
    with pytest.raises(UsageError, match="trial 9 does not exist; only COMPLETE trials can be verified: 0, 1"):
        by_number(TRIALS, [9])
    stopped = TrialRecord(5, State.PRUNED, {}, {}, {}, {}, seed=0)
    with pytest.raises(UsageError, match="trial 5 is PRUNED"):
        by_number([*TRIALS, stopped], [5])


def test_front_then_its_twins_then_neighbours_then_baselines() -> None:
    members = members_of([TRIALS[0], TRIALS[1], TRIALS[2]], FRONT, baselines=["resnet18", "resnet18"])
    assert [(m.kind, m.trial) for m in members] == [
        ("student", 0),
        ("student", 1),
        ("twin", 0),
        ("twin", 1),
        ("student", 2),
        ("baseline", None),
        ("twin", 2),
    ]


def test_a_twin_has_the_same_student_and_recipe_and_no_teacher() -> None:
    student, twin = members_of([TRIALS[0]], FRONT)
    assert twin.student == student.student
    assert twin.train == student.train
    assert twin.distillation == {"loss": "none", "label_smoothing": 0.1}


def test_what_does_not_distil_has_no_twin_and_what_only_copies_embeddings_has_one() -> None:
    plain, embedding = trial(7, 0.9, 10, {"loss": "none"}), trial(8, 0.9, 10, {"loss": "none", "embedding": "cosine"})
    front = Front.of("s", OBJECTIVES, [plain, embedding])
    assert [m.trial for m in members_of([plain, embedding], front) if m.kind == "twin"] == [8]
    assert [m.kind for m in members_of(TRIALS[:2], FRONT, twins=False)] == ["student", "student"]


def test_a_baseline_has_the_recipe_of_the_most_accurate_student_and_random_weights() -> None:
    baseline = members_of(TRIALS[:2], FRONT, baselines=["resnet18"])[-1]
    assert baseline.student == {"family": "timm", "model": "resnet18"}
    assert baseline.distillation == {"loss": "none"}
    assert baseline.train == {"lr": 0.01, "init": "random"}


def test_seeds_are_a_prefix_of_one_sequence_that_the_trials_do_not_have() -> None:
    from autodistill.core.records import derive_seed

    assert seeds_of(0, 5)[:3] == seeds_of(0, 3)
    assert len(set(seeds_of(0, 50))) == 50
    assert not set(seeds_of(0, 50)) & {derive_seed(0, number, "trial") for number in range(1000)}
    with pytest.raises(UsageError, match="seeds is 0"):
        seeds_of(0, 0)


def with_int8(record: TrialRecord, accuracy: float, params: float) -> TrialRecord:
    """The trial with an int8 form of these figures."""
    values = {"accuracy": accuracy, "params": params}
    return replace(record, variants={"int8": {"values": values, "feasible": True}})


def test_a_student_is_on_the_front_though_the_int8_form_of_another_beats_it() -> None:
    small, large = trial(0, 0.80, 100), trial(1, 0.90, 1000)
    front = Front.of("s", OBJECTIVES, [small, with_int8(large, 0.89, 90)])
    assert [(t.number, t.variant) for t in front.trials] == [(1, "int8"), (1, "fp32")]
    rows = members_of(choose_trials(front, noise=0.0), front, twins=False)
    assert {row.trial: row.before for row in rows} == {0: True, 1: True}


def test_a_student_whose_form_alone_is_on_the_front_was_not_on_it_itself() -> None:
    front = Front.of("s", OBJECTIVES, [trial(0, 0.90, 1000), with_int8(trial(1, 0.89, 1000), 0.885, 500)])
    assert {(t.number, t.variant) for t in front.trials} == {(0, "fp32"), (1, "int8")}
    rows = members_of(choose_trials(front, noise=0.02), front, twins=False)
    assert {row.trial: row.before for row in rows} == {0: True, 1: False}


def test_the_plan_and_the_table_count_students_and_not_their_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from torch import nn\n\n\ndef linear():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    (tmp_path / "plain_teacher.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path / "cache"))
    study = ad.Study.create(
        data={"source": "digits", "train_size": 200},
        teacher={"source": "plain_teacher:linear", "accept_weak": True},
        space={"student": {"family": "resnet", "width": [4, 8]}, "distillation": {"loss": "none"}},
        objectives=["accuracy", "bytes"], epochs=1, rungs="off", survey="off", sampler="random",
        directory=tmp_path / "study",
    )  # fmt: skip

    def evaluate(candidate: ad.Candidate) -> Iterator[ad.Report]:
        size = 100.0 * candidate.student["width"]
        yield ad.Report(0, {"bytes": size})
        int8 = {"accuracy": 0.95, "bytes": size / 4}  # better than every student as it was trained
        yield ad.Report(1, {"accuracy": 0.5 + size / 2000}, epochs=1, variants={"int8": {"values": int8}})

    front = ad.search(study, evaluate=evaluate, budget="2trials", progress=False)
    assert {t.variant for t in front.trials} == {"int8"}
    plan = plan_verification(study, seeds=1, twins=False)
    assert [(m.trial is not None, m.before) for m in plan.members] == [(True, True)] * 2
    assert plan.noise == noise_of(0.9, len(plan.worker.data.val))
    assert judge(plan, {}, None).front_before == 2


def test_a_row_has_the_costs_that_the_front_shows() -> None:
    again = replace(TRIALS[0], rungs={0: {"params": 100, "latency_ms": 0.0972, "epochs": 0}, 1: {"latency_ms": 0.0878}})
    members = members_of([again], FRONT)
    assert [dict(one.costs) for one in members] == [{"params": 100, "latency_ms": 0.0878}] * 2  # its twin as well
