"""Conditions across sections and groups: drawing, moving, counting, narrowing, and wrong ones."""

from __future__ import annotations

from collections import Counter

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodistill.core.errors import ConfigError
from autodistill.search.sampler.known_costs import KnownCosts
from autodistill.search.space import moves
from autodistill.search.space.conditions import in_words
from autodistill.search.space.encoding import Encoder
from autodistill.search.space.extremes import extreme_students
from autodistill.search.space.include import merge
from autodistill.search.space.space import Space

FORWARD = {
    "student": {
        "family": ["resnet", "lcnet", "tinynet"],
        "resnet": {"width": [8, 16]},
        "lcnet": {"variant": ["l1", "l2"]},
        "tinynet": {"variant": ["t1"]},
    },
    "train": {
        "init": {
            "values": ["pretrained", "random"],
            "when": {"student.variant": ["l1", "t1"]},
            "otherwise": "random",
        },
        "lr": {"low": 1e-3, "high": 1e-1, "log": True, "when": {"init": ["random"]}},
        "pretrained": {"lr": {"low": 1e-4, "high": 1e-2, "log": True}, "freeze": [0, 1]},
    },
}
"""Training parameters that depend on the student."""

REVERSE = {
    "student": {"width": [4, 8], "resolution": {"values": [16, 32], "when": {"train.long": [True]}, "otherwise": 8}},
    "train": {"long": [True, False], "epochs": {"low": 1, "high": 3, "when": {"student.width": [8]}}},
}
"""A student's parameter that depends on the training, and the other way round."""


def _consistent(candidate: dict[str, dict[str, object]]) -> None:
    student, train = candidate["student"], candidate["train"]
    has_weights = student.get("variant") in {"l1", "t1"}
    assert train["init"] in ({"pretrained", "random"} if has_weights else {"random"})
    low, high = (1e-4, 1e-2) if train["init"] == "pretrained" else (1e-3, 1e-1)
    assert low <= train["lr"] <= high
    assert ("freeze" in train) == (train["init"] == "pretrained")


def test_a_training_parameter_depends_on_the_student_in_every_draw() -> None:
    space, rng = Space.parse(FORWARD), np.random.default_rng(0)
    drawn = [space.nest(space.sample(rng)) for _ in range(300)]
    for candidate in drawn:
        _consistent(candidate)
    pretrained = [c["student"]["variant"] for c in drawn if c["train"]["init"] == "pretrained"]
    assert set(pretrained) == {"l1", "t1"}


def test_optuna_draws_the_same_candidates_through_its_own_interface() -> None:
    space = Space.parse(FORWARD)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    for _ in range(40):
        trial = study.ask()
        _consistent(space.suggest(trial))
        study.tell(trial, float(trial.number % 7))


@given(st.integers(0, 10_000))
def test_flatten_is_the_inverse_of_nest_across_sections(seed: int) -> None:
    for mapping in (FORWARD, REVERSE):
        space = Space.parse(mapping)
        values = space.sample(np.random.default_rng(seed))
        assert space.flatten(space.nest(values)) == values


@given(st.integers(0, 10_000))
def test_moves_and_mixtures_keep_every_condition(seed: int) -> None:
    space, rng = Space.parse(FORWARD), np.random.default_rng(seed)
    first, second = space.sample(rng), space.sample(rng)
    for values in [*moves.neighbours(space, first, rng), *moves.crossovers(space, [first, second], 5, rng)]:
        assert values.keys() == space.active(values).keys()
        _consistent(space.nest(values))


def test_a_parameter_that_others_depend_on_is_not_among_the_free_numbers() -> None:
    space = Space.parse(
        {"student": {"width": {"values": [4, 8], "when": {"train.epochs": [3]}, "otherwise": 2}},
         "train": {"epochs": {"low": 1, "high": 3}, "lr": {"low": 0.1, "high": 1.0}}}
    )  # fmt: skip
    assert set(moves.free_numbers(space)) == {"train.lr"}


def test_sizes_count_conditions_across_sections_exactly() -> None:
    # long (2 resolutions): width 4: 1, width 8: 3 numbers of epochs; not long (1 resolution): the same
    space = Space.parse(REVERSE)
    assert space.size() == 2 * (1 + 3) + (1 + 3)
    everything = space.enumerate()
    assert everything is not None
    assert len({str(space.nest(values)) for values in everything}) == len(everything) == 12
    # resnet: 2 widths, l2: init fixed; l1 and t1: random, or pretrained with 2 numbers of frozen epochs
    fixed = {**FORWARD, "train": {**FORWARD["train"], "lr": [0.1], "pretrained": {"freeze": [0, 1]}}}  # type: ignore[dict-item]
    assert Space.parse(fixed).size() == 2 + 1 + 2 * (1 + 2)


def test_inactive_parameters_make_no_difference_to_the_encoding() -> None:
    space = Space.parse(FORWARD)
    encoder = Encoder.of(space)
    plain = {"student.family": "resnet", "student.resnet.width": 8, "train.lr": 0.01}
    column = encoder.starts[encoder.names.index("train.pretrained.lr")]
    tuned = {"student.family": "tinynet", "student.tinynet.variant": "t1", "train.init": "pretrained",
             "train.pretrained.lr": 1e-2, "train.pretrained.freeze": 0}  # fmt: skip
    assert encoder.encode([plain, tuned])[:, column].tolist() == [0.5, 1.0]


def test_students_that_depend_on_the_training_are_drawn_and_recognised_alone() -> None:
    space = Space.parse(REVERSE)
    students = [student for pool in extreme_students(space, samples=30).values() for student in pool]
    assert {student["resolution"] for student in students} == {8, 16, 32}
    assert all(space.holds(student) for student in students)
    assert not space.holds({"width": 4, "resolution": 64})
    assert space.flatten_section("student", {"width": 4, "resolution": 16}) == {
        "student.width": 4,
        "student.resolution": 16,
    }


def test_a_surveyed_student_keeps_its_settings_when_the_rest_is_drawn() -> None:
    space, rng = Space.parse(REVERSE), np.random.default_rng(0)
    costs = KnownCosts(space, None, ())
    pool = [{"width": 8, "resolution": 16}, {"width": 4, "resolution": 8}]
    costs.set_pool([(student, {"params": 1.0}) for student in pool])
    drawn = [space.nest(costs.draw(rng)) for _ in range(100)]
    assert Counter(str(c["student"]) for c in drawn).keys() == {str(one) for one in pool}
    assert all(c["train"]["long"] == (c["student"]["resolution"] != 8) for c in drawn)


def test_a_restriction_reaches_conditions_of_other_sections() -> None:
    space = Space.parse(FORWARD)
    scratch = space.restrict({"student.family": ["resnet"]})
    assert {p.name for p in scratch.parameters} == {"student.family", "student.resnet.width", "train.lr"}
    assert scratch.nest(scratch.sample(np.random.default_rng(0)))["train"]["init"] == "random"
    tuned = space.restrict({"train.init": ["pretrained"], "student.family": ["tinynet", "resnet"]})
    drawn = [tuned.nest(tuned.sample(np.random.default_rng(seed))) for seed in range(20)]
    assert {(c["student"]["family"], c["train"]["init"]) for c in drawn} == {
        ("tinynet", "pretrained"),
        ("resnet", "random"),
    }


def test_a_condition_on_a_range_survives_a_restriction() -> None:
    space = Space.parse(
        {"student": {"depth": {"low": 1, "high": 4}, "width": [4, 8]},
         "train": {"lr": {"low": 0.1, "high": 1.0, "when": {"student.depth": [3, 4]}}}}
    )  # fmt: skip
    narrowed = space.restrict({"student.width": [4], "student.depth": {"high": 3}})
    assert narrowed.active({"student.depth": 3}).keys() >= {"train.lr"}
    assert "train.lr" not in {p.name for p in space.restrict({"student.depth": {"high": 2}}).parameters}


def test_a_space_laid_over_another_drops_what_can_no_longer_be() -> None:
    merged = merge(FORWARD, {"student": {"family": ["resnet"]}})
    assert merged["train"]["init"] == "random"
    assert "pretrained" not in merged["train"]
    Space.parse(merged)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"student.famly": ["a"]}, r"train\.lr: when names 'student\.famly'.*did you mean 'student\.family'"),
        ({"student.family": ["a", "c"]}, r"train\.lr: when asks for student\.family 'c', which it never is; .*a, b"),
        ({"family": ["a"]}, r"not a parameter beside it.*full name, e\.g\. student\.family"),
        ({"student.width": [3]}, r"student\.width 3, which it never is"),
    ],
)
def test_a_condition_that_names_nothing_is_refused(when: dict[str, object], message: str) -> None:
    student = {"family": ["a", "b"], "width": {"low": 4, "high": 8}}
    with pytest.raises(ConfigError, match=message):
        Space.parse({"student": student, "train": {"lr": {"low": 0.1, "high": 1.0, "when": when}}})


def test_a_circle_of_conditions_is_refused_with_its_members() -> None:
    with pytest.raises(ConfigError, match=r"depends on itself \(student\.a needs train\.b needs student\.a\)"):
        Space.parse(
            {"student": {"a": {"values": [1, 2], "when": {"train.b": [1]}}},
             "train": {"b": {"values": [1, 2], "when": {"student.a": [1]}}}}
        )  # fmt: skip


@pytest.mark.parametrize(
    ("lr", "message"),
    [
        ({"low": 0.1, "high": 1.0, "otherwise": 0.1}, "needs a when beside it"),
        ({"low": 0.1, "high": 1.0, "when": {"student.a": [1]}, "otherwise": [0.1]}, "otherwise must be a number"),
    ],
)
def test_an_otherwise_that_says_nothing_is_refused(lr: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Space.parse({"student": {"a": [1, 2]}, "train": {"lr": lr}})


def test_every_choice_can_be_reached() -> None:
    space, rng = Space.parse(FORWARD), np.random.default_rng(0)
    for parameter in space.parameters:
        for choice in getattr(parameter.distribution, "choices", ()):
            values = space.reach(parameter.name, choice, rng)
            assert values is not None, (parameter.name, choice)
            assert values[parameter.name] == choice
            _consistent(space.nest(values))


def test_conditions_are_told_in_words_without_what_the_name_says() -> None:
    found = {p.name: in_words(p.condition, p.name) for p in Space.parse(FORWARD).parameters}
    assert found["student.lcnet.variant"] == ""
    assert found["train.init"] == "student.variant is l1 or t1"
    assert found["train.pretrained.freeze"] == "student.variant is l1 or t1"
