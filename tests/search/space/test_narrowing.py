"""A value is offered only where it can be had: no sampler sees it elsewhere, and nothing else changes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import optuna
import pytest

from autodistill.core.errors import ConfigError
from autodistill.core.records import Objective
from autodistill.search.sampler.by_name import build_sampler
from autodistill.search.space.encoding import Encoder
from autodistill.search.space.moves import neighbours
from autodistill.search.space.narrowing import offer_only
from autodistill.search.space.space import Space

SPACE: dict[str, Any] = {
    "student": {
        "family": ["lcnet", "resnet", "tinynet"],
        "lcnet": {"variant": ["lcnet_035", "lcnet_050"]},
        "tinynet": {"variant": ["tinynet_e", "tinynet_d"]},
        "resnet": {"width": [8, 16]},
    },
    "train": {
        "init": ["pretrained", "random"],
        "pretrained": {"lr": {"low": 1e-4, "high": 1e-3, "log": True}},
        "random": {"lr": {"low": 1e-3, "high": 1e-2, "log": True}},
    },
}
WHERE = [
    (("student.family", ("tinynet",)),),
    (("student.family", ("lcnet",)), ("student.lcnet.variant", ("lcnet_050",))),
]
ELSEWHERE = [
    (("student.family", ("resnet",)),),
    (("student.family", ("lcnet",)), ("student.lcnet.variant", ("lcnet_035",))),
]


def narrowed() -> Space:
    return offer_only(Space.parse(SPACE), "train.init", "pretrained", where=WHERE, elsewhere=ELSEWHERE)


def can(student: dict[str, Any]) -> bool:
    return student["family"] == "tinynet" or student.get("variant") == "lcnet_050"


def assert_right(candidate: dict[str, dict[str, Any]]) -> None:
    student, train = candidate["student"], candidate["train"]
    assert train["init"] == "random" or can(student)
    low, high = (1e-4, 1e-3) if train["init"] == "pretrained" else (1e-3, 1e-2)
    assert low <= train["lr"] <= high


def test_draws_have_the_value_only_where_they_can_and_their_own_settings() -> None:
    space, rng = narrowed(), np.random.default_rng(0)
    drawn = [space.nest(space.sample(rng)) for _ in range(400)]
    for one in drawn:
        assert_right(one)
    counts = Counter((can(one["student"]), one["train"]["init"]) for one in drawn)
    assert set(counts) == {(True, "pretrained"), (True, "random"), (False, "random")}
    assert 0.4 < counts[True, "pretrained"] / (counts[True, "pretrained"] + counts[True, "random"]) < 0.6


@pytest.mark.parametrize("name", ["front", "gp", "tpe", "nsga2", "nsga3", "random", "qmc"])
def test_no_sampler_proposes_what_was_taken_out(name: str) -> None:
    space = narrowed()
    objectives = (
        Objective("accuracy", "maximize", "fraction", "trained"),
        Objective("params", "minimize", "count", "known"),
    )
    sampler = build_sampler(name, space, seed=0, objectives=objectives)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for _ in range(25):
        trial = study.ask()
        candidate = space.suggest(trial)
        assert_right(candidate)
        study.tell(trial, [trial.number % 7 / 7, float(len(str(candidate)))])


def test_moves_crossings_and_the_inverse_keep_it() -> None:
    space, rng = narrowed(), np.random.default_rng(1)
    for _ in range(20):
        values = space.sample(rng)
        assert space.flatten(space.nest(values)) == values
        for moved in neighbours(space, values, rng):
            assert_right(space.nest(moved))
    assert Encoder.of(space).encode([space.sample(rng) for _ in range(5)]).shape == (5, Encoder.of(space).starts[-1])


def test_a_space_of_choices_counts_only_what_is_left() -> None:
    mapping = {**SPACE, "train": {"init": ["pretrained", "random"]}}
    space = offer_only(Space.parse(mapping), "train.init", "pretrained", where=WHERE, elsewhere=ELSEWHERE)
    assert Space.parse(mapping).size() == 12
    assert space.size() == 2 * (2 + 1) + (2 + 1)  # tinynet twice, lcnet_050; resnet twice, lcnet_035
    assert len(space.enumerate() or []) == 9


def test_a_student_that_depends_on_the_value_is_refused() -> None:
    mapping = {
        "student": {
            "family": ["a", "b"],
            "a": {"variant": {"values": ["x", "y"], "when": {"train.init": ["pretrained"]}, "otherwise": "x"}},
        },
        "train": {"init": ["pretrained", "random"]},
    }
    where = [(("student.family", ("a",)), ("student.a.variant", ("x",)))]
    with pytest.raises(ConfigError, match=r"depend on train\.init here"):
        offer_only(Space.parse(mapping), "train.init", "pretrained", where=where, elsewhere=[])
