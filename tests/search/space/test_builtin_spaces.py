"""The shipped search spaces: each is read, is made of things that exist, and holds what its header says."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from autodistill.config.study_file import default_space
from autodistill.core.errors import ConfigError, UnknownNameError, UsageError
from autodistill.engines.setup.check_names import space_problems
from autodistill.search.space import builtin as spaces
from autodistill.search.space.extremes import extreme_students
from autodistill.search.space.fitting.to_study import within_images
from autodistill.search.space.priors import Centre, Weights
from autodistill.search.space.space import Parameter, Space
from autodistill.training.distillation.distillation_losses import losses
from autodistill.training.students.build import TIMM, describe, families
from autodistill.training.survey.space_check import family_range

NAMES = spaces.space_names()


def space_of(name: str) -> Space:
    return Space.parse(spaces.load_space(name), name)


def number(text: str) -> float:
    """The number in a phrase such as ``1.1 million``."""
    digits, unit = re.findall(r"([\d.]+) (thousand|million)", text)[0]
    return float(digits) * {"thousand": 1e3, "million": 1e6}[unit]


def test_the_five_kinds_of_space_are_shipped() -> None:
    assert {"digits", "tiny", "mobile", "photos", "cpu", "vit", "everything"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_everything_in_it_exists(name: str) -> None:
    low, high = spaces.load_space(name)["image_sizes"]
    for side in (low, high):
        assert space_problems(space_of(name), image_size=side) == []


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_restricted_to_each_of_its_families_and_losses(name: str) -> None:
    space = space_of(name)
    choices = {p.name: p.distribution.choices for p in space.parameters if hasattr(p.distribution, "choices")}
    assert set(choices["distillation.loss"]) <= {"none", *losses.names()}
    for family in choices["student.family"]:
        assert family in (*families.names(), TIMM)
        branch = space.restrict({"student.family": [family]})
        assert all(
            p.name.split(".")[1] in {"family", "resolution", family} for p in branch.section("student").parameters
        )
    for loss in choices["distillation.loss"]:
        space.restrict({"distillation.loss": [loss]})


@pytest.mark.parametrize("name", NAMES)
def test_its_header_names_its_purpose_images_students_and_a_command(name: str) -> None:
    text = spaces.path_of(name).read_text(encoding="utf-8")
    assert text.startswith(f"# {name}: ")
    low, high = spaces.load_space(name)["image_sizes"]
    assert f"# Images    {low} to {high} px" in text
    assert "# Students  " in text
    assert re.search(rf"# Command   autodistill search .*--space {name}\b", text)
    assert spaces.load_space(name)["description"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in {"digits", "tiny"} else [pytest.mark.slow]) for name in NAMES]
)
def test_extremes_of_a_shipped_space_cost_what_its_header_says(name: str) -> None:
    text = spaces.path_of(name).read_text(encoding="utf-8")
    line = re.search(r"# Students  (.*)", text)
    assert line
    least, greatest = (number(part) for part in line[1].split(" to ")[:2])
    side = spaces.load_space(name)["image_sizes"][0]
    found = [
        family_range(family, pool, image_size=side, channels=3, num_classes=10)
        for family, pool in extreme_students(within_images(space_of(name), side), samples=0).items()
    ]
    assert [one.problems for one in found if one.problems] == []
    assert min(one.costs["params"][0] for one in found) == pytest.approx(least, rel=0.5)
    assert max(one.costs["params"][1] for one in found) == pytest.approx(greatest, rel=0.15)


@pytest.mark.parametrize("name", ["photos", "mobile", "cpu", "vit", "everything"])
def test_a_space_for_photographs_draws_their_policies_most_and_the_mild_settings_of_the_rest(name: str) -> None:
    known = {p.name: p for p in space_of(name).parameters}
    policies = drawn(known["train.augment"])
    assert policies["flip_crop"] == policies["flip_resized_crop"] == max(policies.values())
    assert {"none", "crop", "flip_crop", "photo", "rand_photo"} < set(policies)
    for setting in ("train.label_smoothing", "train.mixup", "train.cutmix"):
        shares = drawn(known[setting])
        assert shares[0.0] == max(shares.values())
        assert len(shares) > 1
    assert known["distillation.temperature"].distribution.low < 1  # where fronts of photographs lay on the bound
    assert isinstance(known["train.lr"].prior, Centre)


def drawn(parameter: Parameter) -> dict[Any, float]:
    """How often each choice is drawn."""
    assert isinstance(parameter.prior, Weights)
    return dict(zip(parameter.distribution.choices, parameter.prior.shares, strict=True))


def test_everything_holds_every_family() -> None:
    chosen = set(extreme_students(space_of("everything"), samples=0))
    assert chosen == {
        name for name in families.names() if families.get(name).build.__module__.startswith("autodistill")
    }


@pytest.mark.parametrize(
    ("pixels", "name"),
    [
        (8, "digits"),
        (16, "digits"),
        (28, "tiny"),
        (32, "tiny"),
        (64, "mobile"),
        (95, "mobile"),
        (96, "photos"),
        (224, "photos"),
    ],
)
def test_the_space_for_a_size_is_the_most_special_that_holds_it(pixels: int, name: str) -> None:
    assert default_space({"source": "mine", "image_size": pixels}) == name


def test_the_space_for_images_of_an_unknown_size_suits_small_and_large_ones() -> None:
    assert default_space({"source": "mine:images"}) == "mobile"
    assert default_space({"source": "image_folder"}) == "mobile"  # it scales to 64 px
    assert default_space({"source": "synthetic", "options": {"size": 128}}) == "photos"


def test_extremes_are_the_smallest_and_largest_students_and_samples_lie_between() -> None:
    found = extreme_students(space_of("digits"), samples=3, seed=1)["resnet"]
    assert [describe(one) for one in found[:2]] == ["resnet w2 d1 stages 2", "resnet w10 d2"]
    assert 2 < len(found) <= 5
    assert found == extreme_students(space_of("digits"), samples=3, seed=1)["resnet"]


def test_a_space_of_one_family_has_extremes() -> None:
    space = Space.parse({"student": {"family": "vit", "width": [64, 16, 32], "depth": {"low": 1, "high": 3}}})
    assert extreme_students(space, samples=0) == {
        "vit": [{"family": "vit", "width": 16, "depth": 1}, {"family": "vit", "width": 64, "depth": 3}]
    }


def test_students_of_photos_start_from_weights_where_there_are_some_with_a_recipe_of_their_own() -> None:
    space, rng = space_of("photos"), np.random.default_rng(0)
    drawn = [space.nest(space.sample(rng)) for _ in range(400)]
    scratch = {"resnet", "fasternet", "repvit", "fastvit"}
    for one in drawn:
        assert one["train"]["init"] == "random" or one["student"]["family"] not in scratch
        assert ("layer_decay" in one["train"]) == ("freeze" in one["train"]) == (one["train"]["init"] == "pretrained")
    shares = [one["train"]["init"] == "pretrained" for one in drawn if one["student"]["family"] not in scratch]
    assert 0.85 < sum(shares) / len(shares) < 1
    assert {one["student"]["resolution"] for one in drawn} == {96, 128, 160, 192, 224}


def test_students_that_cannot_be_built_are_named_and_the_others_are_counted() -> None:
    pool: list[dict[str, Any]] = [{"family": "vit"}, {"family": "vit", "patch": 16}]
    found = family_range("vit", pool, image_size=8, channels=1, num_classes=3)
    assert found.built == 1
    assert found.costs["params"][0] == found.costs["params"][1] > 0
    assert found.problems[0].startswith("vit w64 d4 patch 16: patch 16 does not divide 8 px")


def test_an_unknown_space_or_file_is_refused_with_the_known_ones(tmp_path) -> None:
    with pytest.raises(UnknownNameError, match=r"'tinny'.*tiny"):
        spaces.load_space("tinny")
    with pytest.raises(UsageError, match="there is no search space file"):
        spaces.load_space(str(tmp_path / "mine.yaml"))
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="expected the sections"):
        spaces.load_space(str(tmp_path / "list.yaml"))


def test_a_space_without_a_family_is_one_problem() -> None:
    said = space_problems(Space.parse({"student": {"famly": ["resnet"], "width": [4, 8]}}))
    assert len(said) == 1
    assert re.match(r"student: family is missing; student.famly is unknown; did you mean 'family'\? Give one", said[0])
