"""Spaces fitted to a study: resolutions up to the side of the images, and timm networks by name."""

from __future__ import annotations

import pytest

from autodistill.config.study_file import StudyConfig
from autodistill.core.errors import ConfigError
from autodistill.engines.setup.check_names import space_problems
from autodistill.engines.setup.study_setup import config_space
from autodistill.search.space.builtin import space_names
from autodistill.search.space.fitting.to_study import fitted, with_networks, within_images
from autodistill.search.space.space import Space


def space(resolution: object) -> Space:
    return Space.parse(
        {
            "student": {"family": ["resnet"], "resolution": resolution},
            "train": {"ema": {"values": [0.5, 0.9], "when": {"student.resolution": [192]}}},
        }
    )


def test_choices_above_the_side_are_left_out_with_their_weights() -> None:
    found = within_images(space({"values": [96, 128, 192], "weights": [1, 2, 5]}), 160)
    known = {p.name: p for p in found.parameters}
    assert known["student.resolution"].distribution.choices == (96, 128)
    assert known["student.resolution"].prior.shares == pytest.approx((1 / 3, 2 / 3))
    assert "train.ema" not in known  # it needed a larger one


def test_a_range_ends_at_the_last_step_within_the_side() -> None:
    found = within_images(space({"low": 96, "high": 224, "step": 32}), 200)
    distribution = {p.name: p.distribution for p in found.parameters}["student.resolution"]
    assert (distribution.low, distribution.high, distribution.step) == (96, 192, 32)


def test_without_a_fitting_resolution_students_see_the_images_as_they_are() -> None:
    found = within_images(space([96, 192]), 64)
    assert [p.name for p in found.parameters] == ["student.family"]


def test_a_space_that_fits_stays_as_it_is() -> None:
    one = space([96, 192])
    assert within_images(one, 224) is one


@pytest.mark.parametrize("name", space_names())
def test_any_timm_network_is_reached_from_every_space_by_its_name(name: str) -> None:
    choices = {"student.family": ["timm"], "student.timm.model": ["resnet18.a1_in1k", "resnet34"]}
    config = StudyConfig.load({"data": {"source": "digits"}, "space": name, "set": choices})
    found = config_space(config)
    assert {p.name: p.distribution for p in found.parameters}["student.timm.model"].choices == (
        "resnet18.a1_in1k",
        "resnet34",
    )
    assert {values["student.family"] for values in _families(found)} == {"timm"}
    assert space_problems(found) == []


def _families(found: Space) -> list[dict[str, object]]:
    import numpy as np

    rng = np.random.default_rng(0)
    return [found.sample(rng) for _ in range(5)]


def test_timm_networks_join_the_families_where_the_family_is_left_open() -> None:
    found = with_networks(
        {"student": {"family": {"values": ["a", "b"], "weights": [1, 3]}}}, {"student.timm.model": "x"}
    )
    assert found["student"] == {
        "family": {"values": ["a", "b", "timm"], "weights": [1, 3, 2.0]},
        "timm": {"model": ["x"]},
    }
    assert with_networks({"student": {"family": "a"}}, {"student.timm.model": ["x"]})["student"]["family"] == [
        "a",
        "timm",
    ]


def test_a_misspelt_network_is_refused_with_the_nearest() -> None:
    choices = {"student.family": ["timm"], "student.timm.model": ["resnet81"]}
    config = StudyConfig.load({"data": {"source": "digits"}, "space": "tiny", "set": choices})
    assert "did you mean" in space_problems(config_space(config))[0]


def test_the_family_without_a_network_is_refused() -> None:
    config = StudyConfig.load({"data": {"source": "digits"}, "space": "tiny", "set": {"student.family": "timm"}})
    with pytest.raises(
        ConfigError, match=r"student\.family: timm needs the names .*--set student\.timm\.model=resnet18"
    ):
        config_space(config)


def test_a_study_of_small_images_has_no_resolutions_that_they_cannot_fill() -> None:
    data = {"source": "image_folder", "root": "photos", "image_size": 128}
    found = config_space(StudyConfig.load({"data": data, "space": "photos"}))
    assert {p.name: p.distribution for p in found.parameters}["student.resolution"].choices == (96, 128)
    with pytest.raises(ConfigError, match=r"student\.resolution: 224 is not in the space.*Allowed: 96, 128"):
        config_space(StudyConfig.load({"data": data, "space": "photos", "set": {"student.resolution": 224}}))


def test_a_fitted_space_names_its_file_in_messages() -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        fitted({"student": {"family": []}}, "mine.yaml", image_size=32)
