"""Losses and embedding terms under real bfloat16 autocast, which a CPU computes as a GPU does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.distillation_losses import losses
from autodistill.training.distillation.embedding_losses import embedding_losses, projector
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.distillation.loss_terms import LossTerms
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Batch, Feed, Trainer
from autodistill.training.students import build as students
from autodistill.training.students.embeddings import embedding_width

COUNT, SIDE, CLASSES = 16, 16, 5
TERMS = embedding_losses.names()


@pytest.fixture(autouse=True)
def _autocast(monkeypatch) -> None:
    monkeypatch.setattr(Trainer, "_autocast", lambda self: torch.autocast("cpu", dtype=torch.bfloat16))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def student() -> nn.Module:
    mapping = {"family": "resnet", "width": 8, "depth": 1}
    return students.build_student(mapping, image_size=SIDE, channels=3, num_classes=CLASSES)


def trained(mix: LossMix, width: int | None = None) -> Trainer:
    """Train one epoch of two steps on colour noise."""
    images = torch.randint(
        0, 256, (COUNT, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    ids = torch.arange(COUNT)
    feed = Feed(images, ids % CLASSES, ids, (0.5,) * 3, (0.25,) * 3, CLASSES)

    def outputs(batch: Batch) -> tuple[Tensor, Tensor | None]:
        return numbers(len(batch.ids), CLASSES), None if width is None else numbers(len(batch.ids), width, seed=1)

    network = student()
    criterion = Distillation(mix, outputs, student=network, teacher_width=width)
    trainer = Trainer(network, feed, criterion, Recipe.parse({"batch_size": COUNT // 2}), epochs=1, seed=0)
    trainer.run(1)
    return trainer


@pytest.mark.parametrize("loss", losses.names())
def test_every_loss_trains_a_step(loss) -> None:
    trainer = trained(LossMix.parse({"loss": loss}))
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


@pytest.mark.parametrize("calibrate", [True, False])
@pytest.mark.parametrize("same_width", [True, False])
@pytest.mark.parametrize("term", TERMS)
def test_every_embedding_term_trains_a_step_and_its_projector(term, same_width, calibrate) -> None:
    width = embedding_width(student()) if same_width else 12
    trainer = trained(LossMix.parse({"loss": "kd", "embedding": term, "calibrate": calibrate}), width)
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
    for parameter in trainer.criterion.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("term", TERMS)
def test_a_half_precision_embedding_gives_the_term_of_its_values_in_full_precision(term, inside) -> None:
    mix = LossMix.parse({"loss": "kd", "embedding": term, "calibrate": False})
    embedding, teacher, weight = numbers(8, 6).bfloat16(), numbers(8, 10, seed=1), numbers(6, CLASSES, seed=2)
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        leaf = embedding.detach().clone().to(dtype).requires_grad_()
        terms = LossTerms(mix, projector(term, 6, 10, seed=0))
        logits = leaf.float() @ weight
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside and dtype == torch.bfloat16):
            values = terms(logits, torch.arange(8) % CLASSES, numbers(8, CLASSES, seed=3), leaf, teacher)
        values.total.backward()
        found.append((values.embedding, leaf.grad.float()))
    assert torch.equal(found[0][0], found[1][0])
    largest = float(found[1][1].abs().max())  # the gradients of three terms are added in half precision
    torch.testing.assert_close(found[0][1], found[1][1], rtol=2**-7, atol=2**-7 * largest)
