"""The page of the training settings has every setting and every augmentation policy as the code has them."""

from __future__ import annotations

import dataclasses
import re

import pytest
from page_text import DOCS, load_generator

from autodistill.training.augmentation.policy import Policy, policies
from autodistill.training.loop.recipe import Recipe, allowed

generate = load_generator()
PAGE = generate.fill((DOCS / "reference" / "training_settings.md").read_text(encoding="utf-8"))


def row(name: str) -> list[str]:
    """The cells of the row that begins with a name."""
    (line,) = re.findall(rf"^\| `{name}` \| (.*) \|$", PAGE, re.MULTILINE)
    return re.split(r" \| ", line)


@pytest.mark.parametrize("setting", dataclasses.fields(Recipe), ids=lambda one: one.name)
def test_every_training_setting_is_on_the_page_with_its_range_default_and_meaning(setting: dataclasses.Field) -> None:
    kind, default, meaning = row(setting.name)
    assert kind == allowed(setting.name)
    assert default == (str(setting.default).lower() if isinstance(setting.default, bool) else str(setting.default))
    assert len(meaning) > 10


@pytest.mark.parametrize("name", policies.names())
def test_every_augmentation_policy_and_what_it_is_made_of_is_on_the_page(name: str) -> None:
    (made_of,) = row(name)
    parts = dict(part.split(" ", 1) for part in made_of.split(", ")) if made_of != "plain images" else {}
    policy = policies.get(name)
    for one in dataclasses.fields(Policy):
        value = getattr(policy, one.name)
        if value != one.default:
            assert parts.pop(one.name) == (str(value).lower() if isinstance(value, bool) else str(value))
    shown = {"pad": {"padding": f"{policy.padding:g}"}, "resized": {"min_area": f"{policy.min_area:g}"}}
    assert parts.items() <= shown.get(policy.crop, {}).items()


def test_every_field_of_a_policy_is_explained_except_the_mixing_of_pairs() -> None:
    explained = set(re.findall(r"^- `(\w+)`: ", PAGE, re.MULTILINE))
    together = {"contrast", "saturation"}  # explained with the brightness
    fields = {one.name for one in dataclasses.fields(Policy) if not one.name.startswith("mix")}
    assert fields - together <= explained
