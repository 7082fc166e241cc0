from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
import torch
from torch import nn

from autodistill.core.errors import InfeasibleError
from autodistill.delivery.figures.diagram import Stage, stages_of, stages_svg, student_stages


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + x  # type: ignore[no-any-return]


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),  # 36 weights, 4 biases
        nn.BatchNorm2d(4),  # 8
        nn.ReLU(),
        nn.Sequential(Block(4), Block(4), Block(4)),  # 144 each
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 10),  # 50
    )


def test_stages_are_layers_with_shapes_and_parameters_and_like_blocks_are_one() -> None:
    found = stages_of(network(), (1, 8, 8))
    assert [(s.kind, s.shape, s.params, s.repeats) for s in found] == [
        ("Conv2d", (4, 4, 4), 48, 1),  # with its normalization
        ("Block", (4, 4, 4), 432, 3),
        ("AdaptiveAvgPool2d", (4, 1, 1), 0, 1),
        ("Flatten", (4,), 0, 1),
        ("Linear", (10,), 50, 1),
    ]


def test_every_parameter_of_a_student_is_in_some_stage() -> None:
    facts = {
        "architecture": {"family": "resnet", "width": 8, "depth": 2},
        "image_size": 16,
        "channels": 1,
        "classes": "abc",
    }
    from autodistill.training.students import build as students

    model = students.build_student(facts["architecture"], image_size=16, channels=1, num_classes=3)  # type: ignore[arg-type]
    assert sum(s.params for s in student_stages(facts)) == sum(p.numel() for p in model.parameters())


def test_looking_at_a_network_leaves_no_hook_behind() -> None:
    model = network()
    stages_of(model, (1, 8, 8))
    assert not any(part._forward_hooks for part in model.modules())


def test_a_student_that_cannot_be_built_is_named() -> None:
    facts = {"architecture": {"family": "resnet", "width": 8}, "image_size": 1, "channels": 1, "classes": "ab"}
    with pytest.raises(InfeasibleError, match="resnet"):
        student_stages(facts)


def test_the_drawing_is_one_svg_with_a_title_and_escaped_names() -> None:
    stages = [Stage("<b>&", "Conv2d", (4, 8, 8), 30), Stage("head", "Linear", (10,), 10)]
    root = ElementTree.fromstring(stages_svg(stages, "Trial 3"))
    space = "{http://www.w3.org/2000/svg}"
    assert root.attrib["role"] == "img"
    title = root.find(f"{space}title")
    assert title is not None
    assert title.text == (
        "Trial 3: <b>& (Conv2d), output 4 by 8 by 8, 30 parameters, then head (Linear), output 10, 10 parameters"
    )
    boxes = [one for one in root.findall(f"{space}rect") if one.attrib["class"] == "stage"]
    shares = [float(one.attrib["width"]) for one in root.findall(f"{space}rect") if one.attrib["class"] == "share"]
    assert len(boxes) == 2
    assert shares[0] == pytest.approx(3 * shares[1], rel=0.01)


def test_a_long_network_is_cut_and_says_how_many_stages_are_left() -> None:
    model = nn.Sequential(*(nn.Conv2d(1 + i % 2, 1 + (i + 1) % 2, 1) for i in range(60)))
    found = stages_of(model, (1, 4, 4))
    assert len(found) == 40
    assert found[-1].name == "21 more"
    assert sum(s.params for s in found) == sum(p.numel() for p in model.parameters())
