"""docs/reference/training_settings.md agrees with the code on every setting and policy."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from places import ROOT

from autodistill.training.augmentation.policy import Policy, policies
from autodistill.training.loop.recipe import Recipe, allowed

PAGE = ROOT / "docs" / "reference" / "training_settings.md"


def attributes(kind: type[Any]) -> dict[str, str]:
    """What the docstring of a value says of each of its attributes, on one line, as Markdown."""
    text = inspect.cleandoc(kind.__doc__ or "").split("Attributes:\n", 1)[1]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", said).replace("``", "`").rstrip(".") for name, said in found}


def plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def settings_table() -> str:
    said = attributes(Recipe)
    rows = [
        f"| `{one.name}` | {allowed(one.name)} | {plain(one.default)} | {said[one.name]} |"
        for one in dataclasses.fields(Recipe)
    ]
    return "\n".join(["| setting | allowed | default | meaning |", "| --- | --- | --- | --- |", *rows])


def policy_table() -> str:
    """Each policy by the fields in which it differs from doing nothing; a crop says how large it is."""
    rows = []
    for name in policies.names():
        policy, parts = policies.get(name), []
        for field in dataclasses.fields(Policy):
            value = getattr(policy, field.name)
            if value != field.default:
                parts.append(f"{field.name} {plain(value)}")
        if policy.crop == "pad":
            parts.insert(1, f"padding {policy.padding:g}")
        if policy.crop == "resized":
            parts.insert(1, f"min_area {policy.min_area:g}")
        rows.append(f"| `{name}` | {', '.join(parts) or 'plain images'} |")
    return "\n".join(["| policy | what it is made of |", "| --- | --- |", *rows])


def field_list() -> list[str]:
    return [f"- `{name}`: {said}" for name, said in attributes(Policy).items() if not name.startswith("mix")]


def test_every_training_setting_is_on_the_page_with_its_range_default_and_meaning() -> None:
    assert settings_table() in PAGE.read_text(encoding="utf-8"), f"the page should hold:\n{settings_table()}"


def test_every_augmentation_policy_and_what_it_is_made_of_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert policy_table() in text, f"the page should hold:\n{policy_table()}"
    for line in field_list():
        assert line in text
