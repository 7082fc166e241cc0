"""Priors of a search space: how often values are drawn, by whom, and how they fade in the ranking of candidates."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import optuna
import pytest
from scipy import stats

from autodistill.core.errors import ConfigError
from autodistill.core.records import Objective
from autodistill.search.sampler import by_name as samplers
from autodistill.search.sampler.front_sampler import FrontSampler
from autodistill.search.sampler.prior_weight import PriorWeight
from autodistill.search.space import moves as proposals
from autodistill.search.space.distributions import from_unit, to_unit
from autodistill.search.space.encoding import Encoder
from autodistill.search.space.priors import Centre, Weights, words
from autodistill.search.space.space import Space

SPACE: dict[str, Any] = {
    "student": {"width": [8, 16, 32]},
    "distillation": {"loss": ["none", "kd"]},
    "train": {
        "augment": {"values": ["none", "crop", "photo"], "weights": [1, 2, 5]},
        "lr": {"low": 1e-3, "high": 0.1, "log": True, "prior": 0.02, "spread": 0.3},
        "views": {"low": 1, "high": 9, "prior": 7},
        "mixup": {"values": [0.0, 0.2], "weights": [3, 1], "when": {"augment": ["crop", "photo"]}},
    },
}
SHARES = {"none": 1 / 8, "crop": 2 / 8, "photo": 5 / 8}
OBJECTIVES = (
    Objective("accuracy", "maximize", "fraction", "trained"),
    Objective("params", "minimize", "count", "known", log=True),
)
GOLDEN: list[dict[str, Any]] = [  # drawn by the version of 1 December 2026, which had no priors
    {
        "student.family": "vit",
        "student.vit.dim": 32,
        "distillation.loss": "kd",
        "distillation.temperature": 11.250069415907852,
        "train.lr": 0.010731270004412312,
    },
    {
        "student.family": "vit",
        "student.vit.dim": 32,
        "distillation.loss": "none",
        "train.lr": 0.0012819214212169577,
    },
]
GOLDEN_COMPLETED = {
    "student.family": "resnet",
    "student.resnet.width": 8,
    "student.resnet.depth": 1,
    "distillation.loss": "none",
    "train.lr": 0.09962130582791057,
}


def train(mapping: dict[str, Any]) -> Space:
    return Space.parse({"student": {"width": [8]}, "train": mapping})


def agree(drawn: list[Any], shares: dict[Any, float]) -> None:
    """Frequencies within four standard errors of a binomial variable."""
    for value, share in shares.items():
        error = math.sqrt(share * (1 - share) / len(drawn))
        assert abs(drawn.count(value) / len(drawn) - share) < 4 * error, (value, Counter(drawn))


def test_choices_are_drawn_by_their_weights_also_under_a_condition() -> None:
    rng = np.random.default_rng(0)
    space = Space.parse(SPACE)
    rows = [space.sample(rng) for _ in range(4000)]
    agree([row["train.augment"] for row in rows], SHARES)
    agree([row["train.mixup"] for row in rows if "train.mixup" in row], {0.0: 0.75, 0.2: 0.25})
    assert {row["train.augment"] for row in rows if "train.mixup" not in row} == {"none"}


def test_numbers_are_drawn_from_a_normal_distribution_that_is_cut_off_at_the_bounds() -> None:
    rng = np.random.default_rng(1)
    space = Space.parse(SPACE)
    drawn = np.log10([space.sample(rng)["train.lr"] for _ in range(4000)])
    centre, deviation = math.log10(0.02), 0.3 * 2  # the range has two decades
    ends = (-3 - centre) / deviation, (-1 - centre) / deviation
    assert stats.kstest(drawn, stats.truncnorm(*ends, loc=centre, scale=deviation).cdf).pvalue > 0.001


def test_the_likeliest_whole_number_is_the_prior() -> None:
    rng = np.random.default_rng(2)
    drawn = Counter(Space.parse(SPACE).sample(rng)["train.views"] for _ in range(2000))
    assert drawn.most_common(1)[0][0] == 7
    assert set(drawn) == set(range(1, 10))


@pytest.mark.parametrize("low", [1e-3, -4.0])
def test_a_prior_on_a_bound_draws_up_to_that_bound(low: float) -> None:
    space = train({"lr": {"low": low, "high": 5.0, "prior": low, "spread": 0.05}})
    drawn = [space.sample(np.random.default_rng(seed))["train.lr"] for seed in range(300)]
    assert low <= min(drawn) < low + 0.01 * (5.0 - low)
    assert max(drawn) < low + 0.25 * (5.0 - low)


def test_a_space_without_priors_draws_what_it_always_drew() -> None:
    mapping: dict[str, Any] = {
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
    space, rng = Space.parse(mapping), np.random.default_rng(5)
    assert [space.sample(rng) for _ in range(2)] == GOLDEN
    assert proposals.complete(space, {}, rng) == GOLDEN_COMPLETED


def test_what_completes_a_candidate_is_drawn_by_the_prior_too() -> None:
    rng, space = np.random.default_rng(3), Space.parse(SPACE)
    rows = [proposals.complete(space, {"student.width": 16}, rng) for _ in range(3000)]
    agree([row["train.augment"] for row in rows], SHARES)


def test_the_random_sampler_draws_by_priors_and_evenly_where_there_is_none() -> None:
    study = optuna.create_study(sampler=samplers.build_sampler("random", Space.parse(SPACE), seed=0, objectives=()))
    space = Space.parse(SPACE)
    drawn, losses = [], []
    for _ in range(600):
        sections = space.suggest(study.ask())
        drawn.append(sections["train"]["augment"])
        losses.append(sections["distillation"]["loss"])
    agree(drawn, SHARES)
    agree(losses, {"none": 0.5, "kd": 0.5})
    plain = Space.parse({"student": {"width": [8, 16, 32]}, "train": {"lr": {"low": 0.1, "high": 0.9}}})
    ours, again = (
        optuna.create_study(sampler=samplers.build_sampler("random", plain, seed=4, objectives=())) for _ in range(2)
    )
    found = [plain.suggest(ours.ask()) for _ in range(600)]
    agree([one["student"]["width"] for one in found], dict.fromkeys([8, 16, 32], 1 / 3))
    quarters = [int((one["train"]["lr"] - 0.1) / 0.2) for one in found]
    agree(quarters, dict.fromkeys(range(4), 0.25))
    assert [plain.suggest(again.ask()) for _ in range(5)] == found[:5]


def params(student: Any) -> dict[str, float]:
    return {"params": float(student["width"])}


def test_the_first_design_leaves_what_has_a_prior_to_the_draws() -> None:
    space = Space.parse(SPACE)
    drawn, losses = [], []
    for seed in range(25):
        sampler = FrontSampler(space, OBJECTIVES, costs=params, seed=seed, startup=9)
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        for _ in range(8):  # the ninth is the cheapest
            trial = study.ask()
            sections = space.suggest(trial)
            drawn.append(sections["train"]["augment"])
            losses.append(sections["distillation"]["loss"])
            study.tell(trial, [0.5, float(sections["student"]["width"])])
    agree(drawn, SHARES)
    assert abs(losses.count("kd") / len(losses) - 0.5) < 0.1  # spread evenly: no prior speaks of it


def test_the_factor_of_a_candidate_is_its_likelihood_to_a_falling_power() -> None:
    space = train(
        {
            "augment": {"values": ["a", "b"], "weights": [4, 1]},
            "lr": {"low": 0.0, "high": 1.0, "prior": 0.5, "spread": 0.25},
        }
    )
    prior_weight = PriorWeight(space, Encoder.of(space))
    best, rare = {"train.augment": "a", "train.lr": 0.5}, {"train.augment": "b", "train.lr": 0.5}
    far = {"train.augment": "a", "train.lr": 1.0}
    assert prior_weight.of([best, rare, far], 8) == pytest.approx([1.0, 0.25**0.5, math.exp(-0.5 * 4) ** 0.5])
    assert prior_weight.of([best, rare, far], 400) == pytest.approx([1.0, 0.25**0.01, math.exp(-0.5 * 4) ** 0.01])
    assert prior_weight.of([{}], 8) == pytest.approx([1.0])  # what is not active does not count


def test_the_factor_of_moved_numbers_is_that_of_the_candidate_they_make() -> None:
    space = Space.parse(SPACE)
    encoder = Encoder.of(space)
    prior_weight, rng = PriorWeight(space, encoder), np.random.default_rng(0)
    values = [space.sample(rng) for _ in range(20)]
    moved = [{**one, "train.lr": from_unit(space.parameters[3].distribution, rng.random())} for one in values]
    assert space.parameters[3].name == "train.lr"
    rows = np.arange(20)
    assert prior_weight.moved(values, encoder.encode(moved), rows, 5) == pytest.approx(prior_weight.of(moved, 5))


def test_a_prior_that_is_wrong_is_overcome() -> None:
    space = train({"lr": {"low": 1e-4, "high": 1.0, "log": True, "prior": 1e-3, "spread": 0.2}})
    sampler = FrontSampler(space, OBJECTIVES[:1], seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(30):
        trial = study.ask()
        found = space.suggest(trial)["train"]["lr"]
        study.tell(trial, 1 - (to_unit(space.parameters[1].distribution, found) - 0.9) ** 2)
    assert study.best_value > 0.999
    assert study.best_params["train.lr"] > 0.1


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"values": [1, 2], "weights": [1]}, r"one number for each of the 2 values, got \[1\]"),
        ({"values": [1, 2], "weights": 3}, "one number for each of the 2 values, got 3"),
        ({"values": [1, 2], "weights": [1, 0]}, "above 0, got 0; leave out a value that is never to be drawn"),
        ({"values": [1, 2], "weights": [1, True]}, "above 0, got True"),
        ({"values": [1, 2], "prior": 1}, "prior and spread apply to a range; for choices give weights"),
        ({"low": 0.0, "high": 1.0, "weights": [1]}, "weights apply to choices"),
        ({"low": 0.0, "high": 1.0, "prior": 2.0}, "prior is 2.0; it must be a number from 0 to 1"),
        ({"low": 0.0, "high": 1.0, "prior": "best"}, "prior is 'best'; it must be a number"),
        ({"low": 1, "high": 5, "prior": 2.5}, "one of the range's whole numbers"),
        ({"low": 0.0, "high": 1.0, "spread": 0.1}, "spread needs a prior"),
        ({"low": 0.0, "high": 1.0, "prior": 0.5, "spread": 0}, "spread is 0; it must be a number above 0"),
        ({"low": 0.0, "high": 1.0, "priro": 0.5}, "unknown key 'priro'; did you mean 'prior'"),
    ],
)
def test_a_prior_that_cannot_be_is_refused_with_what_to_write(parameter: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train({"x": parameter})


def test_a_restriction_keeps_the_weights_of_what_is_left_and_brings_the_prior_inside() -> None:
    space = Space.parse(SPACE).restrict({"train.augment": ["photo", "none"], "train.lr": {"high": 0.01}})
    known = {p.name: p for p in space.parameters}
    assert known["train.augment"].prior == Weights((5 / 6, 1 / 6))
    assert known["train.lr"].prior == Centre(1.0, 0.3)
    own = Space.parse(SPACE).restrict({"train.augment": {"values": ["none", "crop"], "weights": [1, 1]}})
    assert {p.name: p.prior for p in own.parameters}["train.augment"] == Weights((0.5, 0.5))
    assert Space.parse(space.to_dict()) == space


def test_a_prior_is_said_in_words() -> None:
    known = {p.name: words(p) for p in Space.parse(SPACE).parameters}
    assert known["train.augment"] == "drawn 12%, 25%, 62%"
    assert known["train.lr"] == "around 0.02"
    assert known["student.width"] == ""
