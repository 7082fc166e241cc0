"""Counted costs, compared with timm's parameters, torch's FLOP counter, published figures and files on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autodistill.core.errors import InfeasibleError, UnknownNameError
from autodistill.training.costs.counts import cost_metrics, deploy, known_costs
from autodistill.training.deployed import runtimes
from autodistill.training.deployed.runtimes import to_onnx

PLAIN = ["resnet18", "mobilenetv3_small_050", "lcnet_050", "convnext_atto", "vit_tiny_patch16_224", "pvt_v2_b0"]
MORE = ["mobilenetv2_050", "mobilenetv4_conv_small_050", "regnetx_002", "starnet_s050", "edgenext_xx_small",
        "ghostnet_050", "mambaout_femto", "fasternet_t0", "efficientnet_b0", "mnasnet_050", "tinynet_e", "resnetv2_18",
        "efficientvit_b0", "xcit_nano_12_p16_224", "densenet121", "regnety_002", "rexnet_100", "swiftformer_xs",
        "inception_next_atto", "resnet10t", "mobilenetv1_100", "hardcorenas_a", "efficientnet_lite0", "cs3darknet_s",
        "ese_vovnet19b_slim_dw", "semnasnet_075", "convnextv2_atto", "mobilevit_xs", "dla46_c", "hgnetv2_b0",
        "poolformer_s12", "deit_tiny_patch16_224", "gernet_s", "resnext26ts"]  # fmt: skip


def on_meta(name: str, classes: int = 100) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, num_classes=classes)


def torch_macs(model: nn.Module, side: int) -> float:
    model.eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops() / 2


def normalized_channels(model: nn.Module) -> int:
    return sum(one.num_features for one in model.modules() if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d))


@pytest.mark.parametrize("name", [*PLAIN, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_macs_equal_torchs_counter_and_params_lie_within_what_folding_can_save(name: str) -> None:
    model = on_meta(name)
    side = 224 if "224" in name else 64
    costs = known_costs(model, image_size=side, channels=3)
    assert costs["macs"] == torch_macs(model, side)
    raw = sum(one.numel() for one in model.parameters())
    # Folding removes the BatchNorm's scale, and turns its shift into the convolution's bias.
    assert raw - normalized_channels(model) * 2 <= costs["params"] <= raw


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_050", "regnetx_002"])
def test_every_batchnorm_of_a_plain_network_is_folded(name: str) -> None:
    model = on_meta(name)
    raw = sum(one.numel() for one in model.parameters())
    costs = known_costs(model, image_size=64, channels=3)
    assert costs["params"] == raw - normalized_channels(model)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("mobilenetv2_100", 299.6), ("resnet18", 1813.6), ("efficientnet_b0", 384.7), ("lcnet_100", 154.5)],
)
def test_macs_at_224_px_are_the_known_figures(name: str, millions: float) -> None:
    assert known_costs(on_meta(name), image_size=224, channels=3)["macs"] / 1e6 == pytest.approx(millions, abs=0.05)


def test_mobileone_is_counted_after_its_branches_are_fused() -> None:
    model = on_meta("mobileone_s0", classes=10)
    assert sum(one.numel() for one in model.parameters()) / 1e6 == pytest.approx(4.28, abs=0.005)
    costs = known_costs(model, image_size=64, channels=3)
    assert costs["params"] / 1e6 == pytest.approx(1.06, abs=0.005)
    assert costs["macs"] / 1e6 == pytest.approx(22.4, abs=0.05)


@pytest.mark.parametrize("name", ["mobileone_s0", "resnet18", "ghostnet_050"])
def test_the_deployed_form_says_the_same_and_leaves_the_model_alone(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10)
    for module in model.modules():  # fresh statistics are 0 and 1, which hides a wrong fold
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    deployed = deploy(model, image_size=32, channels=3)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert model.training
        torch.testing.assert_close(deployed(images), model.eval()(images), atol=1e-4, rtol=1e-3)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(one.requires_grad for one in deployed.parameters())


def test_a_batchnorm_behind_an_output_that_others_read_stays() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.norm(y) + y

    model = Shared()
    assert isinstance(deploy(model, image_size=8, channels=1).norm, nn.BatchNorm2d)


def test_costs_of_one_convolution_are_its_closed_forms() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    costs = known_costs(model, image_size=16, channels=3, metrics=cost_metrics.names())
    assert costs["params"] == 3 * 8 * 9
    assert costs["macs"] == 3 * 8 * 9 * 16 * 16
    assert costs["activations"] == 8 * 16 * 16
    # the weights, and what the convolution reads and writes
    assert costs["peak_memory_mb"] >= 4 * (3 * 8 * 9 + 8 * 16 * 16) / 1e6
    assert costs["peak_memory_mb"] <= 4 * (3 * 8 * 9 + (8 + 3) * 16 * 16 + 16) / 1e6


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_bytes_are_those_of_the_safetensors_file(name: str, tmp_path: Path) -> None:
    model = timm.create_model(name, num_classes=10)
    predicted = known_costs(model, image_size=32, channels=3, metrics=["bytes"])["bytes"]
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(deploy(model, image_size=32, channels=3).state_dict(), path)
    assert predicted == path.stat().st_size


def test_counts_are_the_same_each_time_and_for_each_image_channel() -> None:
    model = timm.create_model("lcnet_050", num_classes=10, in_chans=1)
    first, second = (known_costs(model, image_size=28, channels=1, metrics=cost_metrics.names()) for _ in range(2))
    assert first == second


def test_a_forward_pass_that_fails_is_infeasible_and_says_where() -> None:
    with pytest.raises(InfeasibleError, match="VisionTransformer fails on 3 x 32 x 32 px"):
        known_costs(on_meta("vit_tiny_patch16_224"), image_size=32, channels=3)


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="params"):
        known_costs(nn.Linear(1, 1), image_size=1, channels=1, metrics=["param"])


def test_onnx_bytes_are_those_of_the_file_and_nothing_is_exported_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = timm.create_model("lcnet_050", num_classes=10)
    untrained = known_costs(model, image_size=32, channels=3, metrics=["onnx_bytes"])["onnx_bytes"]
    with torch.no_grad():  # as training does: no two tensors stay equal
        for one in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
            one.add_(torch.rand_like(one))
    written = to_onnx(deploy(model, image_size=32, channels=3), torch.zeros(1, 3, 32, 32))
    shape = {"image_size": 32, "channels": 3}
    assert known_costs(model, **shape, metrics=["onnx_bytes"])["onnx_bytes"] == untrained == len(written)
    monkeypatch.setattr(runtimes, "to_onnx", lambda *arguments: pytest.fail("exported"))
    others = [name for name in cost_metrics.names() if name != "onnx_bytes"]
    assert set(known_costs(model, **shape, metrics=others)) == set(others)


def test_operations_are_the_calls_of_one_pass() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    assert known_costs(model, image_size=8, channels=1, metrics=["operations"]) == {"operations": 3.0}
