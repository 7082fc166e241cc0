"""Licences of pretrained weights, compared with timm's table."""

from __future__ import annotations

import pytest
import timm

from autodistill.core.errors import InfeasibleError, UnknownNameError, WeightsError
from autodistill.training.loop.recipe import Recipe
from autodistill.training.students.starting_weights import source_of
from autodistill.training.weights import licences


def check(name: str, accepted: tuple[str, ...]) -> None:
    licences.check_licence(name, licences.weights_licence(name), accepted)


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
        check(tag, ("apache-2.0", "mit"))
    check(tag, ("any",))
    check(tag, (licences.weights_licence(tag),))


def test_other_weights_of_the_same_network_are_named() -> None:
    with pytest.raises(InfeasibleError, match=r"accepted: .*regnety_004\.pycls_in1k|accepted: mit\."):
        check("regnety_004", ("mit",))


def test_an_unknown_licence_is_refused_unless_it_is_accepted() -> None:
    tag = next(tag for tag in timm.list_pretrained() if not timm.get_pretrained_cfg(tag).license)
    with pytest.raises(InfeasibleError, match="licence unknown"):
        check(tag, ("apache-2.0",))
    check(tag, ("apache-2.0", "unknown"))


def test_a_network_without_weights_is_not_silently_random() -> None:
    with pytest.raises(WeightsError, match=r"no pretrained weights for lcnet_035\. .*lcnet_050"):
        source_of({"family": "lcnet", "variant": "lcnet_035"}, {})


def test_licences_are_checked_before_anything_is_downloaded() -> None:
    with pytest.raises(InfeasibleError, match=r"licence bsd-3-clause"):
        source_of({"family": "regnet", "variant": "regnety_004"}, {}, licence="apache-2.0")
    with pytest.raises(InfeasibleError, match=r"licence cc-by-nc-4\.0"):
        source_of({"family": "timm", "model": "convnextv2_atto"}, {}, licence=["mit"])


def test_weights_that_autodistill_trained_from_random_ones_are_always_accepted() -> None:
    licences.check_licence("runs/a#3", licences.OWN, ("mit",))
    with pytest.raises(InfeasibleError, match="licence unknown; accepted: mit"):
        licences.check_licence("some.safetensors", licences.UNKNOWN, ("mit",))


def test_the_recipe_takes_a_list_or_a_text_and_names_the_nearest() -> None:
    assert Recipe.parse({"licence": ["Apache-2.0", "mit"]}).licence == "apache-2.0,mit"
    assert Recipe.parse({"licence": "mit"}).licence == "mit"
    assert Recipe.parse({}).licence == "any"
    with pytest.raises(UnknownNameError, match=r"unknown licence 'apache'; did you mean 'apache-2.0'"):
        Recipe.parse({"licence": ["apache"]})
