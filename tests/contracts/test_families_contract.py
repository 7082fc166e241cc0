"""What every registered family keeps, plugins included: a new family is tested by being registered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from autodistill.core.errors import InfeasibleError
from autodistill.training.costs.counts import deploy, known_costs
from autodistill.training.students import build as students
from autodistill.training.students.build import families

CLASSES = 5


def end(name: str, which: int) -> dict[str, Any]:
    """The smallest (0) or largest (1) student of a family; what the image size decides stays at its default."""
    entry = families.get(name)
    free = [one for one in entry.parameters if one.changes not in {"stem", "patch"}]
    return {"family": name, **{one.name: one.extremes()[which] for one in free}}


def channels_at(side: int) -> int:
    return 1 if side == 28 else 3


def cases() -> Iterator[Any]:
    for name in families.names():
        sides = families.get(name).resolutions()
        for side in sides:
            for which in (0, 1):
                quick = (which == 0 and side <= 64) or side == sides[0]
                marks = [] if quick else [pytest.mark.slow]
                yield pytest.param(name, side, which, marks=marks, id=f"{name}-{side}-{('smallest', 'largest')[which]}")


@pytest.mark.parametrize(("name", "side", "which"), [*cases()])
def test_it_is_built_and_trained_one_step(name: str, side: int, which: int) -> None:
    students.check_student(end(name, which), image_size=side, channels=channels_at(side), num_classes=CLASSES)


@pytest.mark.parametrize("name", families.names())
def test_every_weight_learns(name: str) -> None:
    side = families.get(name).smallest
    model = students.build_student(end(name, 0), image_size=side, channels=1, num_classes=CLASSES)
    images = torch.randn(4, 1, side, side, generator=torch.Generator().manual_seed(0))
    torch.nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 3])).backward()
    assert [key for key, one in model.named_parameters() if one.grad is None] == []


@pytest.mark.parametrize("name", families.names())
def test_its_deployed_form_gives_the_same_logits_and_is_no_larger(name: str) -> None:
    side = families.get(name).smallest
    model = students.build_student(end(name, 0), image_size=side, channels=1, num_classes=CLASSES)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():  # statistics of a trained network; fresh ones hide a wrong fold
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean = torch.rand(module.num_features, generator=generator) * 0.2
            module.running_var = torch.rand(module.num_features, generator=generator) * 0.4 + 0.8
    images = torch.rand(2, 1, side, side, generator=generator)
    deployed = deploy(model, image_size=side, channels=1)
    with torch.no_grad():
        torch.testing.assert_close(deployed(images), model.eval()(images), atol=1e-4, rtol=1e-3)
    params = known_costs(model, image_size=side, channels=1)["params"]
    assert params == sum(one.numel() for one in deployed.parameters())
    assert params <= sum(one.numel() for one in model.parameters())


@pytest.mark.parametrize("name", families.names())
def test_width_and_depth_make_it_larger(name: str) -> None:
    entry = families.get(name)
    side = entry.smallest

    def size(student: dict[str, Any]) -> int:
        model = students.build_student(student, image_size=side, channels=1, num_classes=CLASSES)
        return sum(one.numel() for one in model.parameters())

    small = end(name, 0)
    for one in entry.parameters:
        if one.changes in {"width", "depth"}:
            values = one.choices or range(one.low or 0, (one.high or 0) + 1)
            assert size({**small, one.name: values[1]}) > size(small), one.name


@pytest.mark.parametrize("name", families.names())
def test_its_variants_are_listed_from_small_to_large(name: str) -> None:
    variants = families.get(name).parameter("variant")
    if variants is None:
        pytest.skip("has free width and depth")
    import timm

    def size(model: Any) -> int:
        with torch.device("meta"):
            return sum(one.numel() for one in timm.create_model(model, num_classes=CLASSES).parameters())

    sizes = [size(choice) for choice in variants.choices]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("name", families.names())
def test_a_size_it_does_not_take_is_infeasible_and_says_which_it_takes(name: str) -> None:
    entry = families.get(name)
    with pytest.raises(InfeasibleError, match=f"{name} takes {entry.smallest} to {entry.largest} px"):
        students.build_student({"family": name}, image_size=entry.smallest - 1, channels=1, num_classes=CLASSES)


@pytest.mark.parametrize("name", families.names())
def test_a_reduction_that_leaves_nothing_is_infeasible(name: str) -> None:
    reduction = families.get(name).parameter("reduction")
    if reduction is None:
        pytest.skip("has no reduction")
    side = families.get(name).smallest
    for value in reduction.choices:
        student = {**end(name, 0), "reduction": value}
        if value == "auto" or value <= side:
            continue
        with pytest.raises(InfeasibleError, match=rf"reduction {value} (is more than|leaves nothing)"):
            students.check_student(student, image_size=side, channels=1, num_classes=CLASSES)
