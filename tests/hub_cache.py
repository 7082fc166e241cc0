"""An offline cache of the Hugging Face hub with random weights, laid down as a download would have left it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

REVISION = "0" * 39 + "1"


def stand_in(tag: str, *, seed: int = 1) -> dict[str, Tensor]:
    """Random weights in the shapes of those that timm publishes, BatchNorm statistics too."""
    config = timm.get_pretrained_cfg(tag)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm.create_model(tag, num_classes=config.num_classes, in_chans=config.input_size[0])
        tensors = network.state_dict()
        for name, value in tensors.items():
            if value.dtype.is_floating_point:
                if name.endswith("running_var"):
                    tensors[name] = torch.rand_like(value) + 0.5
                elif value.ndim < 2:
                    tensors[name] = value + 0.1 * torch.randn_like(value)
                else:
                    tensors[name] = value + 0.02 * torch.randn_like(value)
    return {name: value.contiguous().clone() for name, value in tensors.items()}


def write_cache(home: Path, repository: str, tensors: dict[str, Tensor]) -> Path:
    """Write weights into the cache below ``home`` (``HF_HOME``); return the file."""
    root = home / "hub" / f"models--{repository.replace('/', '--')}"
    for folder in ("blobs", "refs", f"snapshots/{REVISION}"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    plain = root / "blobs" / "plain"
    save_file(tensors, plain, metadata={"format": "pt"})
    blob = plain.rename(plain.with_name(hashlib.sha256(plain.read_bytes()).hexdigest()))
    (root / "refs" / "main").write_text(REVISION)
    link = root / "snapshots" / REVISION / "model.safetensors"
    link.unlink(missing_ok=True)
    link.symlink_to(f"../../blobs/{blob.name}")
    return link


def lay_hub_cache(patch: pytest.MonkeyPatch, home: Path, *tags: str) -> dict[str, Tensor]:
    """Switch the hub off and lay down a cache with random weights of networks of timm; return those of the last one."""
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.setenv("HF_HOME", str(home))
    patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
    tensors: dict[str, Tensor] = {}
    for number, tag in enumerate(tags):
        tensors = stand_in(tag, seed=number + 1)
        write_cache(home, timm.get_pretrained_cfg(tag).hf_hub_id, tensors)
    return tensors
