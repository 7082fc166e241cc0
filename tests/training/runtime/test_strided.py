"""Strided 1 x 1 convolutions as a slice and a convolution: the same function, in a way that other code does not see."""

import copy
import pickle

import pytest
import torch
from timm.layers import Conv2dSame, StdConv2d, StdConv2dSame
from torch import nn
from torch.nn.utils import parametrizations

from autodistill.training.costs.counts import known_costs
from autodistill.training.deployed.form import deploy
from autodistill.training.deployed.pruning import prune_channels
from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Feed, Trainer
from autodistill.training.runtime import strided
from autodistill.training.students import build as students

STUDENT = {"family": "mobileone", "width": 8, "depth": 1}  # strided 1 x 1 branches of three channels
SHAPE = {"image_size": 32, "channels": 3}
LAYERS = {
    "plain": lambda: nn.Conv2d(4, 6, 1, stride=2),
    "other strides and groups": lambda: nn.Conv2d(4, 6, 1, stride=(2, 3), groups=2, bias=False),
    "padding valid": lambda: nn.Conv2d(4, 6, 1, stride=2, padding="valid"),
    "padded": lambda: nn.Conv2d(4, 6, 1, stride=2, padding=1),
    "standardised": lambda: StdConv2d(4, 6, 1, stride=2),
    "as in TensorFlow": lambda: Conv2dSame(4, 6, 1, stride=2),
    "both": lambda: StdConv2dSame(4, 6, 1, stride=2),
    "parametrised": lambda: parametrizations.weight_norm(nn.Conv2d(4, 6, 1, stride=2)),
}


def student():
    return students.build_student(STUDENT, **SHAPE, num_classes=5)


def results(layer, images):
    """Outputs, and gradients of the input and of every parameter; contiguous tensors, where oneDNN is right."""
    images = images.clone().requires_grad_()
    layer.zero_grad()
    out = layer(images)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return [out.detach(), images.grad, *(one.grad.clone() for one in layer.parameters())]


@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_and_gradients_are_those_of_the_layer_itself(kind):
    torch.manual_seed(0)
    layer, images = LAYERS[kind](), torch.randn(3, 4, 17, 16)
    protected = strided.protect(copy.deepcopy(layer))
    assert "forward" in vars(protected)
    torch.testing.assert_close(results(protected, images), results(layer, images), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(protected(images), layer(images))


def test_the_convolution_that_is_trained_has_no_stride(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.nn.functional, "conv2d", torch.conv2d)
    with torch.profiler.profile(record_shapes=True) as profile:
        strided.protect(nn.Conv2d(4, 6, 1, stride=2))(torch.randn(3, 4, 8, 8))
    seen = [event.input_shapes[0] for event in profile.events() if event.name == "aten::conv2d"]
    assert seen == [[3, 4, 4, 4]]


def test_wide_layers_other_kernels_and_other_strides_are_left_alone():
    with torch.profiler.profile(record_shapes=True) as profile:
        strided.protect(nn.Conv2d(16, 6, 1, stride=2))(torch.randn(3, 16, 8, 8))
    assert [one.input_shapes[0] for one in profile.events() if one.name == "aten::conv2d"] == [[3, 16, 8, 8]]
    for layer in (nn.Conv2d(4, 6, 3, stride=2), nn.Conv2d(4, 6, 1), nn.MaxPool2d(1, 2), nn.Linear(2, 2)):
        assert "forward" not in vars(strided.protect(layer))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_is_protected_by_itself_and_released_for_good(copied):
    network = copied(strided.protect(nn.Sequential(nn.Conv2d(4, 6, 1, stride=2))))
    assert vars(network[0])["forward"].args == (network[0],)
    assert vars(strided.release(network)[0]).get("forward") is None


def test_what_is_stored_counted_pruned_and_deployed_is_that_of_the_network_itself():
    plain, protected = student(), strided.protect(student())
    assert any("forward" in vars(layer) for layer in protected.modules())
    assert [*plain.state_dict()] == [*protected.state_dict()]
    assert repr(plain) == repr(protected)
    assert known_costs(plain, **SHAPE) == known_costs(protected, **SHAPE)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(deploy(plain, **SHAPE)(images), deploy(protected, **SHAPE)(images))
        assert torch.equal(plain.eval()(images), protected.eval()(images))


def test_channels_are_pruned_as_of_the_network_itself():
    residual = {"family": "resnet", "width": 8, "depth": 1}
    plain, protected = (students.build_student(residual, **SHAPE, num_classes=5) for _ in range(2))
    strided.protect(protected)
    shapes = [
        [tuple(one.shape) for one in prune_channels(network, 0.3, **SHAPE).parameters()]
        for network in (plain, protected)
    ]
    assert shapes[0] == shapes[1]


def test_an_exported_program_is_that_of_the_network_itself():
    programs = [
        torch.export.export(network.eval(), (torch.randn(2, 3, 32, 32),))
        for network in (student(), strided.protect(student()))
    ]
    first, second = ([str(node.target) for node in program.graph.nodes] for program in programs)
    assert first == second


def test_a_compiled_network_is_protected_too():
    network = strided.protect(nn.Sequential(nn.Conv2d(4, 6, 1, stride=2, bias=False)))
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    images = torch.randn(2, 4, 8, 8)
    out = torch.compile(network, backend=backend, fullgraph=True)(images)
    torch.testing.assert_close(out, network(images))
    calls = [node for node in graphs[0].graph.nodes if node.target is torch.conv2d]
    assert [tuple(node.args[0].meta["example_value"].shape) for node in calls] == [(2, 4, 4, 4)]


def test_a_trainer_protects_what_it_trains_and_gives_back_what_is_plain():
    feed = Feed(
        torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4), torch.arange(4), (0.5,) * 3, (0.2,) * 3, 5
    )
    trainer = Trainer(student(), feed, Distillation(LossMix()), Recipe(), epochs=1, seed=0)
    assert any("forward" in vars(layer) for layer in trainer.model.modules())
    assert not any("forward" in vars(layer) for layer in trainer.evaluation_model().modules())
