"""Licences of pretrained weights, compared with timm's table."""

from __future__ import annotations

import pytest
import timm

from autodistill.core.errors import InfeasibleError, UnknownNameError
from autodistill.training.loop.recipe import Recipe
from autodistill.training.students import build as students
from autodistill.training.students import licences

SHAPE = {"image_size": 32, "channels": 3, "num_classes": 2}


def test_licences_are_those_of_timms_table() -> None:
    tags = timm.list_pretrained()
    stated = {tag: timm.get_pretrained_cfg(tag).license for tag in tags}
    assert {tag: licences.weights_licence(tag) for tag in tags} == {
        tag: (licence or "unknown").lower() for tag, licence in stated.items()
    }
    assert {"apache-2.0", "mit", "cc-by-nc-4.0", "unknown"} <= set(licences.known())


def test_a_name_without_a_tag_means_the_weights_that_timm_loads() -> None:
    assert licences.weights_licence("regnety_004") == licences.weights_licence("regnety_004.tv2_in1k") == "bsd-3-clause"
    assert licences.weights_licence("no_such_network") == "unknown"


@pytest.mark.parametrize("tag", ["convnextv2_atto.fcmae_ft_in1k", "mobileone_s0.apple_in1k"])
def test_weights_of_another_licence_are_refused_with_what_is_accepted(tag: str) -> None:
    with pytest.raises(InfeasibleError, match=r"have the licence .*; accepted: apache-2.0, mit"):
        licences.check_licence(tag, ("apache-2.0", "mit"))
    licences.check_licence(tag, ("any",))
    licences.check_licence(tag, (licences.weights_licence(tag),))


def test_other_weights_of_the_same_network_are_named() -> None:
    with pytest.raises(InfeasibleError, match=r"accepted: .*regnety_004\.pycls_in1k|accepted: mit\."):
        licences.check_licence("regnety_004", ("mit",))


def test_an_unknown_licence_is_refused_unless_it_is_accepted() -> None:
    tag = next(tag for tag in timm.list_pretrained() if not timm.get_pretrained_cfg(tag).license)
    with pytest.raises(InfeasibleError, match="licence unknown"):
        licences.check_licence(tag, ("apache-2.0",))
    licences.check_licence(tag, ("apache-2.0", "unknown"))


def test_a_network_without_weights_is_not_silently_random() -> None:
    with pytest.raises(InfeasibleError, match="no pretrained weights for lcnet_035"):
        students.build_student({"family": "lcnet", "variant": "lcnet_035"}, **SHAPE, pretrained=True)


def test_building_a_student_checks_before_anything_is_downloaded() -> None:
    with pytest.raises(InfeasibleError, match=r"licence bsd-3-clause"):
        students.build_student(
            {"family": "regnet", "variant": "regnety_004"}, **SHAPE, pretrained=True, licence="apache-2.0"
        )
    with pytest.raises(InfeasibleError, match=r"licence cc-by-nc-4\.0"):
        students.build_student(
            {"family": "timm", "model": "convnextv2_atto"}, **SHAPE, pretrained=True, licence=["mit"]
        )


def test_the_recipe_takes_a_list_or_a_text_and_names_the_nearest() -> None:
    assert Recipe.parse({"licence": ["Apache-2.0", "mit"]}).licence == "apache-2.0,mit"
    assert Recipe.parse({"licence": "mit"}).licence == "mit"
    assert Recipe.parse({}).licence == "any"
    with pytest.raises(UnknownNameError, match=r"unknown licence 'apache'; did you mean 'apache-2.0'"):
        Recipe.parse({"licence": ["apache"]})
