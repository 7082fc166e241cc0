from __future__ import annotations

import math
import re

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodistill.core.errors import ConfigError
from autodistill.search.space.space import Space

NESTED = {
    "student": {
        "family": ["resnet", "vit"],
        "resnet": {"width": [8, 16], "depth": {"low": 1, "high": 3}},
        "vit": {"dim": [32]},
    },
    "distillation": {
        "loss": ["none", "kd"],
        "temperature": {"low": 1, "high": 20.0, "log": True, "when": {"loss": ["kd"]}},
    },
    "train": {"lr": {"low": 1e-3, "high": 1e-1, "log": True}, "weight_decay": 0.05},
}


def test_names_are_dotted_paths_and_candidates_drop_the_group() -> None:
    space = Space.parse(NESTED)
    assert [p.name for p in space.parameters] == [
        "student.family",
        "student.resnet.width",
        "student.resnet.depth",
        "student.vit.dim",
        "distillation.loss",
        "distillation.temperature",
        "train.lr",
    ]
    values = {
        "student.family": "resnet",
        "student.resnet.width": 8,
        "student.resnet.depth": 2,
        "distillation.loss": "none",
    }
    nested = space.nest(values)
    assert nested["student"] == {"family": "resnet", "width": 8, "depth": 2}
    assert nested["distillation"] == {"loss": "none"}
    assert nested["train"] == {"weight_decay": 0.05}


def test_a_plain_table_keeps_its_names() -> None:
    space = Space.parse({"student": {"edge0": ["none", "skip"], "edge1": ["none", "skip"]}})
    assert [p.name for p in space.parameters] == ["student.edge0", "student.edge1"]
    assert space.size() == 4


def test_conditional_parameters_are_suggested_only_when_active() -> None:
    space = Space.parse(NESTED)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        trial = study.ask()
        nested = space.suggest(trial)
        assert ("temperature" in nested["distillation"]) == (nested["distillation"]["loss"] == "kd")
        assert ("dim" in nested["student"]) == (nested["student"]["family"] == "vit")
        assert set(trial.params) == set(space.active(trial.params))
        study.tell(trial, 0.0)


@given(st.integers(0, 2**32 - 1))
def test_flatten_is_the_inverse_of_nest(seed: int) -> None:
    space = Space.parse(NESTED)
    values = space.sample(np.random.default_rng(seed))
    assert space.flatten(space.nest(values)) == values


STEPPED = {"student": {"width": {"low": 8, "high": 64, "step": 8}, "rate": {"low": 0.1, "high": 0.7, "step": 0.2}}}


@pytest.mark.parametrize("width", [12, 8.5, 72, True, "8", float("nan"), None])
def test_a_candidate_off_the_steps_of_a_range_is_refused(width: object) -> None:
    space = Space.parse(STEPPED)
    wrong = re.escape(f"student.width: {width!r} is not in 8 to 64 step 8 (whole numbers)")
    with pytest.raises(ConfigError, match=wrong):
        space.flatten({"student": {"width": width, "rate": 0.1}})
    with pytest.raises(ConfigError, match=r"student\.width: .*Allowed: 8 to 64 step 8 \(whole numbers\)"):
        space.restrict({"student.width": width})
    with pytest.raises(ConfigError, match=r"student\.width: .* is not in the space"):
        space.restrict({"student.width": {"low": width}})


def test_numbers_of_other_libraries_and_whole_floats_are_taken_as_python_s_own() -> None:
    space = Space.parse(STEPPED)
    values = space.flatten({"student": {"width": 16.0, "rate": np.float64(0.1) + 0.2}})
    assert values == {"student.width": 16, "student.rate": pytest.approx(0.3)}
    assert [type(value) for value in values.values()] == [int, float]
    assert type(space.flatten({"student": {"width": np.int64(24), "rate": 0.5}})["student.width"]) is int
    assert space.restrict({"student.width": {"low": 16.0, "high": 32.0}}).size() == 3 * 4
    (chosen,) = space.restrict({"student.width": 16.0, "student.rate": 0.3}).enumerate() or []
    assert (chosen, type(chosen["student.width"])) == ({"student.width": 16, "student.rate": 0.3}, int)


def test_sizes_count_conditional_assignments_exactly() -> None:
    space = Space.parse({key: NESTED[key] for key in ("student",)})
    assert space.size() == 2 * 3 + 1
    assignments = space.enumerate()
    assert assignments is not None
    assert len({tuple(sorted(a.items())) for a in assignments}) == 7
    assert Space.parse(NESTED).size() is None
    assert Space.parse(NESTED).section("student").size() == 7


def test_log_integers_are_drawn_evenly_on_the_log_axis() -> None:
    space = Space.parse({"student": {"width": {"low": 1, "high": 100, "log": True}}})
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng)["student.width"] for _ in range(2000)]
    below_ten = sum(w < 10 for w in drawn) / len(drawn)
    expected = (math.log(9.5) - math.log(0.5)) / (math.log(100.5) - math.log(0.5))
    assert below_ten == pytest.approx(expected, abs=0.04)
    assert min(drawn) >= 1
    assert max(drawn) <= 100


def test_restriction_narrows_choices_ranges_and_drops_dead_groups() -> None:
    space = Space.parse(NESTED).restrict(
        {
            "student.family": ["resnet"],
            "student.resnet.depth": {"low": 2},
            "distillation.loss": "none",
            "train.lr": 0.01,
        }
    )
    assert space.size() == 2 * 2
    assert not any(p.name.startswith(("student.vit", "distillation.temperature")) for p in space.parameters)
    rng = np.random.default_rng(0)
    assert {space.nest(space.sample(rng))["train"]["lr"] for _ in range(5)} == {0.01}


def test_a_restriction_that_fits_nothing_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"(?s)student\.famly: not a parameter.*student\.family.*'resnot' is not in"):
        Space.parse(NESTED).restrict({"student.famly": ["a"], "student.family": ["resnot"]})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"width": {"low": 3, "high": 1}}, "wrong way round"),
        ({"width": []}, "offers no choice"),
        ({"width": [1, 1]}, "listed twice"),
        ({"width": {"low": 0, "high": 1, "log": True}}, "needs low above 0"),
        ({"width": {"low": 1}}, "needs the numbers low and high"),
        ({"width": {"low": 1, "high": 2, "stp": 1}}, "did you mean 'step'"),
        ({"family": ["resnet"], "resnt": {"width": [1]}}, "did you mean 'resnet'"),
        ({"a": [1], "b": {"values": [1, 2], "when": {"c": [1]}}}, "when names 'c'"),
        ({"width": [[1, 2]]}, "a choice must be a number, text"),
        ({"family": ["x"], "width": [1], "x": {"width": [2, 3]}}, "same last name"),
    ],
)
def test_a_wrong_space_is_refused_with_its_reason(section: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Space.parse({"student": section})


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(ConfigError, match="2 problems") as caught:
        Space.parse({"student": {"width": {"low": 3, "high": 1}}, "trian": {}})
    assert len(caught.value.problems) == 2


def test_a_space_survives_its_own_dictionary() -> None:
    space = Space.parse(NESTED)
    assert Space.parse(space.to_dict()) == space


@pytest.mark.parametrize(
    ("sections", "match"),
    [
        ({"student": {"widht": 4}}, "student.widht: not a setting of this space; nearest: width"),
        ({"students": {"width": 4}}, "students: not a section; allowed: student, distillation, train"),
        ({"student": 3}, "student: takes settings as NAME: VALUE, got 3"),
    ],
)
def test_a_misspelt_setting_of_an_enqueued_candidate_names_the_nearest(sections, match):
    space = Space.parse({"student": {"family": "resnet", "width": [4, 8]}, "train": {"lr": [0.1, 0.2]}})
    with pytest.raises(ConfigError, match=match):
        space.check_names(sections)
    space.check_names({"student": {"family": "resnet", "width": 4}, "train": {"lr": 0.1}})
