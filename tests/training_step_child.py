"""Run as a child process: the gradients of one training step of many networks, against contiguous tensors.

Reads one case per line from stdin (JSON: ``threads``, ``side``, and ``student`` or the ``width`` of a narrow network),
and writes a line before and after each, so that whoever reads them knows which one ended or held up the process.
"""

from __future__ import annotations

import copy
import json
import sys
from typing import Any

import torch
from torch import Tensor, nn

from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Feed, Trainer
from autodistill.training.students import build as students

BATCH, CLASSES = 32, 5


def narrow(width: int) -> nn.Module:
    """A network whose only unusual layer is a strided 1 x 1 convolution of ``width`` channels."""
    layers = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.SiLU(), nn.Conv2d(width, 8, 1, stride=2), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))


def network(case: dict[str, Any]) -> nn.Module:
    """Of a case, with smooth activations and without dropout.

    A number that rounding moves over the kink of a ReLU changes gradients as a whole; masks follow the order in memory.
    """
    if "width" in case:
        torch.manual_seed(0)
        return narrow(case["width"])
    model = students.build_student(case["student"], image_size=case["side"], channels=3, num_classes=CLASSES)
    for layer in model.modules():
        if isinstance(layer, nn.Dropout) or type(layer).__name__ == "DropPath":
            layer.forward = nn.Identity()
        elif isinstance(layer, nn.ReLU):
            layer.forward = nn.functional.silu
    return model


def gradients(model: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Of the mean cross-entropy, without anything of the package."""
    nn.functional.cross_entropy(model(images), labels).backward()
    return [torch.zeros_like(one) if one.grad is None else one.grad for one in model.parameters()]


def error(model: nn.Module, side: int) -> float:
    """Largest difference of a parameter's gradient from that of contiguous tensors, relative to its length.

    Of gradients that are next to nothing (a bias before a BatchNorm has exactly none) to that of all of them together.
    Deep networks with small maps lose more than 1e-4 to rounding in either format. So a difference does not count where
    the gradient is as near to that of double precision as the contiguous one is, within a factor of four. One number a
    channel (a scale, a depthwise 1 x 1 filter) is a sum over all pixels that nearly cancels, and torch adds it up less
    exactly in channels_last: its difference counts a tenth.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (BATCH, 3, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.arange(BATCH) % CLASSES
    feed = Feed(images, labels, torch.arange(BATCH), (0.5,) * 3, (0.25,) * 3, CLASSES)
    pixels = (images.float() / 255 - 0.5) / 0.25
    wanted = gradients(copy.deepcopy(model).train(), pixels, labels)
    exact = gradients(copy.deepcopy(model).double().train(), pixels.double(), labels)
    recipe = Recipe.parse({"batch_size": BATCH, "augment": "none"})
    trainer = Trainer(model.train(), feed, Distillation(LossMix()), recipe, epochs=1, seed=0)
    trainer._gradients(trainer.batch(torch.arange(BATCH), 0))
    whole = torch.stack([one.norm() for one in wanted]).norm()
    largest = 0.0
    for parameter, want, true in zip(trainer.model.parameters(), wanted, exact, strict=True):
        got = torch.zeros_like(want) if parameter.grad is None else parameter.grad
        difference = float((got - want).norm() / (want.norm() if want.norm() > 1e-3 * whole else whole))
        difference *= 0.1 if want.numel() == len(want) else 1.0
        if (got - true).norm() > 4 * (want - true).norm():
            largest = max(largest, difference)
    return largest


def main() -> None:
    for line in sys.stdin:
        case = json.loads(line)
        print(json.dumps({"begins": case}), flush=True)
        torch.set_num_threads(case["threads"])
        print(json.dumps({"error": error(network(case), case["side"])}), flush=True)


if __name__ == "__main__":
    main()
