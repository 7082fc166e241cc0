"""Mixup and cutmix: which images are paired, and the algebra of mixed labels and logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from autodistill.training.augmentation.mixup import MixedPairs, mix, pair
from autodistill.training.augmentation.policy import Policy

MIXUP, CUTMIX = Policy(mix="mixup"), Policy(mix="cutmix")
IDS = torch.arange(40) * 7 + 3


def paired(policy: Policy, ids: Tensor = IDS, view: int = 2, size: int = 16) -> MixedPairs:
    pairing = pair(policy, ids, view, 9, size=size)
    assert pairing is not None
    return pairing


def test_a_policy_that_mixes_nothing_hands_the_views_back() -> None:
    views = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    mixed, pairing = mix(Policy(), views, torch.arange(4), 0, 0)
    assert mixed is views
    assert pairing is None


@pytest.mark.parametrize("policy", [MIXUP, CUTMIX])
def test_every_image_is_the_partner_of_exactly_one_other_image(policy) -> None:
    partner = paired(policy).partner
    assert sorted(partner.tolist()) == list(range(40))
    assert (partner != torch.arange(40)).all()


@pytest.mark.parametrize("policy", [MIXUP, CUTMIX])
def test_the_same_set_of_images_pairs_alike_in_any_order(policy) -> None:
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    first, second = paired(policy), paired(policy, IDS[order])
    assert torch.equal(IDS[order][second.partner], IDS[first.partner][order])
    assert torch.equal(second.share, first.share[order])


def test_another_view_pairs_otherwise() -> None:
    assert not torch.equal(paired(MIXUP).partner, paired(MIXUP, view=3).partner)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_the_share_has_the_mean_and_variance_of_its_beta_distribution(alpha) -> None:
    share = paired(Policy(mix="mixup", mix_alpha=alpha), torch.arange(20_000)).share
    assert share.min() >= 0
    assert share.max() <= 1
    assert share.mean().item() == pytest.approx(0.5, abs=0.01)
    assert share.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


@pytest.mark.parametrize("policy", [MIXUP, CUTMIX])
def test_images_and_labels_are_mixed_in_the_same_share(policy) -> None:
    """Images that are constant and equal to their class: the mean of a mixed image is its mixed label."""
    classes = torch.arange(40)
    views = (classes.float() / 40)[:, None, None, None].expand(40, 1, 16, 16)
    mixed, pairing = mix(policy, views, IDS, 2, 9)
    labels = pairing.labels(classes, 40)
    assert torch.allclose(labels.sum(1), torch.ones(40))
    assert ((labels > 0).sum(1) <= 2).all()
    expected = (labels * torch.arange(40) / 40).sum(1)
    assert torch.allclose(mixed.mean((1, 2, 3)), expected, atol=1e-6)


def test_a_pasted_box_has_whole_pixels_and_its_area_is_the_partner_s_share() -> None:
    pairing = paired(CUTMIX)
    own = pairing.images(torch.arange(40.0)[:, None, None, None].expand(40, 1, 16, 16))
    kept = (own == torch.arange(40.0)[:, None, None, None]).float().mean((1, 2, 3))
    assert torch.equal(kept, pairing.share)
    assert torch.equal(pairing.boxes * 16, (pairing.boxes * 16).round())


def test_the_teacher_s_larger_views_are_cut_at_the_same_place() -> None:
    pairing = paired(CUTMIX, size=16)
    small = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    large = F.interpolate(small, scale_factor=4, mode="nearest")
    assert torch.equal(F.interpolate(pairing.images(small), scale_factor=4, mode="nearest"), pairing.images(large))


def test_pairs_of_one_class_keep_their_label() -> None:
    labels = paired(MIXUP).labels(torch.zeros(40, dtype=torch.long), 3)
    assert torch.allclose(labels, torch.tensor([1.0, 0.0, 0.0]).expand(40, 3))


def test_labels_that_are_probabilities_already_are_blended() -> None:
    rows = torch.rand(40, 5, generator=torch.Generator().manual_seed(1)).softmax(1)
    pairing = paired(MIXUP)
    expected = pairing.share[:, None] * rows + (1 - pairing.share)[:, None] * rows[pairing.partner]
    assert torch.allclose(pairing.labels(rows, 5), expected)


def test_the_softmax_of_mixed_logits_is_the_mixture_of_the_softmaxes() -> None:
    logits = torch.randn(40, 6, generator=torch.Generator().manual_seed(1)) * 5
    pairing = paired(MIXUP)
    expected = pairing.blend(logits.softmax(1))
    assert torch.allclose(pairing.logits(logits).softmax(1), expected, atol=1e-6)


def test_mixed_logits_keep_the_level_of_their_rows_and_a_share_of_one_keeps_the_row() -> None:
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)) * 5 + 20
    pairing = MixedPairs(torch.tensor([1, 2, 3, 0]), torch.tensor([1.0, 0.0, 0.5, 0.25]), None)
    mixed = pairing.logits(logits)
    assert torch.allclose(mixed[0], logits[0], atol=1e-5)
    assert torch.allclose(mixed[1], logits[2], atol=1e-5)
    assert torch.allclose(mixed.logsumexp(1), pairing.blend(logits.logsumexp(1)), atol=1e-5)


def test_logits_of_ten_thousand_are_mixed_without_overflow() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]])
    mixed = MixedPairs(torch.tensor([1, 0]), torch.tensor([0.75, 1.0]), None).logits(logits)
    assert mixed.isfinite().all()
    assert mixed[0].softmax(0).tolist() == pytest.approx([0.75, 0.25, 0.0], abs=1e-3)


def test_a_batch_of_one_is_its_own_partner() -> None:
    views = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    mixed, _ = mix(MIXUP, views, torch.tensor([5]), 0, 0)
    assert torch.allclose(mixed, views)


def test_teacher_logits_of_labels_are_mixed_label_by_label() -> None:
    logits = torch.tensor([[4.0, -3.0, 0.0], [-2.0, 5.0, 100.0], [1.0, 1.0, -100.0]])
    mixed = MixedPairs(torch.tensor([1, 2, 0]), torch.tensor([0.3, 1.0, 0.0]), None).label_logits(logits)
    wanted = 0.3 * logits[0].double().sigmoid() + 0.7 * logits[1].double().sigmoid()
    assert torch.allclose(mixed[0].double().sigmoid(), wanted, atol=1e-6)
    assert torch.allclose(mixed[1], logits[1], atol=1e-4)  # a share of 1 is the image itself
    assert torch.allclose(mixed[2], logits[0], atol=1e-4)
    labels = MixedPairs(torch.tensor([1, 0]), torch.tensor([0.25, 0.75]), None).labels(
        torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), 3
    )
    assert torch.allclose(labels, torch.tensor([[0.25, 0.0, 1.0], [0.25, 0.0, 1.0]]))
