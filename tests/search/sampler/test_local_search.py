"""Local search over the numbers of a recipe: on gains with a known maximum."""

from __future__ import annotations

import numpy as np
import pytest

from autodistill.search.model.model_input import CandidateBatch
from autodistill.search.sampler.local_search import BRIEF, FULL, LocalSearchEffort, search_locally
from autodistill.search.space.distributions import from_unit
from autodistill.search.space.encoding import Encoder
from autodistill.search.space.moves import free_numbers, key, neighbours
from autodistill.search.space.space import Space

SPACE = Space.parse(
    {
        "student": {"width": {"low": 4, "high": 64}},
        "distillation": {
            "loss": ["none", "kd"],
            "temperature": {"low": 1.0, "high": 16.0, "log": True, "when": {"loss": ["kd"]}},
        },
        "train": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "decay": {"low": 0.0, "high": 1.0}},
    }
)
ENCODER = Encoder.of(SPACE)
KD = {
    "student.width": 8,
    "distillation.loss": "kd",
    "distillation.temperature": 2.0,
    "train.lr": 1e-3,
    "train.decay": 0.9,
}
NONE = {"student.width": 30, "distillation.loss": "none", "train.lr": 5e-4, "train.decay": 0.1}
BEST = {
    "distillation.temperature": 4.0,
    "train.lr": 1e-2,
    "train.decay": 0.3,
}  # half, two thirds and 0.3 of their ranges


def column(name: str) -> int:
    return ENCODER.starts[ENCODER.names.index(name)]


def hill(params, rows):
    del rows
    at = {"distillation.temperature": 0.5, "train.lr": 2 / 3, "train.decay": 0.3}
    return np.exp(-sum((params[:, column(name)] - unit) ** 2 for name, unit in at.items()) / 0.1)


def run(values, gain, effort=FULL, seed=0):
    pool = CandidateBatch.of(values, [{} for _ in values], ENCODER)
    start = gain(pool.params, np.arange(len(values)))
    return search_locally(pool, start, SPACE, ENCODER, gain, np.random.default_rng(seed), effort)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("effort", "near"), [(FULL, 0.15), (BRIEF, 0.35)])
def test_all_numbers_move_together_towards_the_top_of_the_hill(
    effort: LocalSearchEffort, near: float, seed: int
) -> None:
    (found,) = run([KD], hill, effort, seed)
    at = ENCODER.encode([KD, found, {**KD, **BEST}])
    before, after = np.linalg.norm(at[:2] - at[2], axis=1)
    assert before > 0.7
    assert after < near


def test_the_student_and_the_choices_stay() -> None:
    for before, after in zip([KD, NONE], run([KD, NONE], hill), strict=True):
        assert {n: v for n, v in after.items() if n not in BEST} == {n: v for n, v in before.items() if n not in BEST}
        assert after.keys() == before.keys()
        assert SPACE.flatten(SPACE.nest(after)) == after
        assert key(after) == key(SPACE.flatten(SPACE.nest(after)))  # in the order of the space


def test_gains_are_asked_for_with_the_row_of_each_candidate() -> None:
    def second_likes_decay(params, rows):
        return np.where(rows == 1, params[:, column("train.decay")], -params[:, column("train.decay")])

    first, second = run([KD, NONE], second_likes_decay)
    assert first["train.decay"] < 0.2
    assert second["train.decay"] > 0.8


def test_what_cannot_be_bettered_is_not_given() -> None:
    assert run([KD, NONE], lambda params, rows: np.zeros(len(params))) == []


def test_without_numbers_of_training_there_is_nothing_to_do() -> None:
    space = Space.parse({"student": {"width": {"low": 4, "high": 64}}, "distillation": {"loss": ["none", "kd"]}})
    encoder = Encoder.of(space)
    values = [{"student.width": 8, "distillation.loss": "kd"}]
    pool = CandidateBatch.of(values, [{}], encoder)
    assert search_locally(pool, np.zeros(1), space, encoder, hill, np.random.default_rng(0), FULL) == []
    assert search_locally(pool.take([]), np.zeros(0), SPACE, ENCODER, hill, np.random.default_rng(0), FULL) == []
    assert free_numbers(space) == {}
    assert list(free_numbers(SPACE)) == list(BEST)


def test_a_number_on_a_bound_is_the_bound():
    best = {"distillation.temperature": 1.0, "train.lr": 1.0, "train.decay": 0.0}
    corner = lambda params, _: sum(  # noqa: E731
        params[:, column(name)] * (1 if unit else -1) for name, unit in best.items()
    )
    found = [values for seed in range(5) for values in run([KD], corner, seed=seed)]
    ends = [values for values in found if values["train.lr"] > 0.0999]
    assert ends  # moves end there
    assert {values["train.lr"] for values in ends} == {0.1}
    known = {p.name: p.distribution for p in SPACE.parameters}
    assert [from_unit(known["train.lr"], unit) for unit in (0.0, 1.0)] == [1e-4, 1e-1]
    assert from_unit(known["student.width"], 1.0) == 64
    moved = [v for seed in range(20) for v in neighbours(SPACE, {**KD, "train.lr": 0.09}, np.random.default_rng(seed))]
    rates = {values["train.lr"] for values in moved}
    assert 0.1 in rates
    assert not any(0.0999999 < rate < 0.1 for rate in rates)
