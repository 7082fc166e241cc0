"""Each registered loss either has a gradient for a task and a number of classes, or is refused there by name."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from autodistill.core.records import MULTICLASS, MULTILABEL, TaskKind
from autodistill.training.distillation.distillation_losses import losses
from autodistill.training.distillation.losses_of_task import losses_of, why_not
from autodistill.training.distillation.multilabel_losses import multilabel_losses

KINDS = (MULTICLASS, MULTILABEL)
EVERY = sorted({*losses.names(), *multilabel_losses.names()} - {"none"})


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EVERY)
def test_a_loss_has_a_gradient_or_is_refused(name: str, kind: TaskKind, classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    student = torch.randn(8, classes, generator=generator).requires_grad_()
    teacher = torch.randn(8, classes, generator=generator) * 3
    target = torch.arange(8) % classes
    if reason := why_not(name, kind, classes):
        assert repr(name) in reason
        assert kind in reason or str(classes) in reason
        if name not in losses_of(kind):
            return
        losses_of(kind).get(name)(student, teacher, target).backward()
        assert student.grad is not None
        assert student.grad.norm() < 1e-5  # refused because it teaches nothing
        return
    labels = target if kind == MULTICLASS else F.one_hot(target, classes).float()
    losses_of(kind).get(name)(student, teacher, labels).backward()
    assert student.grad is not None
    assert student.grad.norm() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_every_task_has_the_control_arm(kind: TaskKind) -> None:
    assert "none" in losses_of(kind)
    assert why_not("none", kind, 2) == ""


def test_a_loss_of_the_other_task_is_refused_by_name() -> None:
    assert "'dkd' cannot serve task: multilabel" in why_not("dkd", MULTILABEL)
    assert "kd" in why_not("dkd", MULTILABEL).split("allowed:")[1]
    assert why_not("dkd", MULTICLASS) == ""
    assert "2 classes" in why_not("logit_std", MULTICLASS, 2)
    assert why_not("logit_std", MULTICLASS, 3) == ""


@pytest.mark.parametrize("name", multilabel_losses.names())
class TestMultilabelLosses:
    """What every loss for several labels per image keeps, plugins included."""

    def batch(self, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        student, teacher = (torch.randn(6, 5, generator=generator) * scale for _ in range(2))
        return student, teacher, (torch.rand(6, 5, generator=generator) > 0.5).float()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize("temperature", [1.0, 20.0])
    def test_logits_of_ten_thousand_have_finite_gradients(self, name, dtype, temperature) -> None:
        student, teacher, target = self.batch(1.0)
        student = (student.sign() * 1e4).to(dtype).requires_grad_()
        teacher = (teacher.sign() * 1e4).to(dtype)
        loss = multilabel_losses.get(name)(student, teacher, target, temperature=temperature)
        loss.backward()
        assert loss.isfinite()
        assert loss.shape == ()
        assert student.grad is not None
        assert student.grad.isfinite().all()

    def test_the_teacher_gets_no_gradient(self, name) -> None:
        student, teacher, target = self.batch()
        teacher.requires_grad_()
        multilabel_losses.get(name)(student.requires_grad_(), teacher, target).backward()
        assert teacher.grad is None

    def test_the_mean_is_over_the_batch(self, name) -> None:
        if name == "dist":
            pytest.skip("correlates over the batch")
        student, teacher, target = self.batch()
        once = multilabel_losses.get(name)(student, teacher, target)
        twice = multilabel_losses.get(name)(student.repeat(2, 1), teacher.repeat(2, 1), target.repeat(2, 1))
        assert twice.item() == pytest.approx(once.item(), rel=1e-5)

    def test_labels_are_not_looked_at(self, name) -> None:
        student, teacher, target = self.batch()
        loss = multilabel_losses.get(name)
        assert torch.equal(loss(student, teacher, None), loss(student, teacher, target))
