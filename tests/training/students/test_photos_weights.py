"""The networks of the space ``photos`` that start from weights: timm has such weights, under permissive licences."""

import pytest
import timm

from autodistill.search.space.builtin import load_space

PERMISSIVE = {"apache-2.0", "mit", "bsd-3-clause"}


def starting_from_weights():
    space = load_space("photos")
    families = space["train"]["init"]["when"]["student.family"]
    for family in families:
        group = space["student"][family]
        yield from group.get("variant", group.get("model"))


@pytest.mark.parametrize("name", sorted(starting_from_weights()))
def test_it_has_weights_of_a_permissive_licence(name):
    found = timm.get_pretrained_cfg(name)
    assert found is not None
    assert found.has_weights
    assert str(found.license).lower() in PERMISSIVE
