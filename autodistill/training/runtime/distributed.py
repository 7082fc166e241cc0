"""One training on several devices: DistributedDataParallel whose results are those of one device, up to rounding.

Every process prepares the same batch (views replay from seeds, the teacher's answers come from the shared cache), runs
its own rows through the model, and computes the loss of the *whole* batch, with the other rows' logits as constants.
The sum of these gradients over the processes is the whole batch's gradient, also for losses that compare rows.
BatchNorm uses the statistics of the whole batch, on GPUs and on CPUs (gloo has no ``SyncBatchNorm``). Only dropout and
stochastic depth differ: every process draws masks of its own.
"""

from __future__ import annotations

import contextlib
import datetime
import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from autodistill.core.errors import UsageError

_TIMEOUT = datetime.timedelta(minutes=10)


@dataclass(frozen=True)
class Team:
    """The processes of one training, as one of them sees it.

    Attributes:
        rank: this process; 0 measures, saves and reports.
        size: number of processes.
        device: of this process.
    """

    rank: int
    size: int
    device: torch.device

    @classmethod
    def join(cls, file: str, rank: int, size: int, device: torch.device | str) -> Team:
        """Meet the others over a file that does not exist yet; nothing listens beyond this machine.

        Args:
            file: a path that all processes see.
            rank: of this process.
            size: number of processes.
            device: of this process.
        """
        device = torch.device(device)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "nccl" if device.type == "cuda" else "gloo"
        # As init_method="file://…", which reads the path as a URL and so fails for some.
        meeting = dist.FileStore(file, size)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=meeting, rank=rank, world_size=size, timeout=_TIMEOUT)
        return cls(rank, size, device)

    def leave(self) -> None:
        """The inverse of ``join``."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def wrap(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """The model with averaged gradients; statistics of normalization are not sent around, they are equal."""
        ids = [self.device] if self.device.type == "cuda" else None
        named = inspect.signature(DistributedDataParallel.__init__).parameters
        off = (
            "forward_sync_buffers" if "forward_sync_buffers" in named else "broadcast_buffers"
        )  # renamed in torch 2.15
        options: dict[str, Any] = {"device_ids": ids, off: False}
        wrapped: Callable[[Tensor], Tensor] = DistributedDataParallel(model, **options)
        return wrapped

    def rows(self, count: int) -> slice:
        """This process's rows of a batch of ``count``.

        Raises:
            UsageError: fewer images than processes.
        """
        if count < self.size:
            raise UsageError(f"a batch of {count} images cannot be split over {self.size} devices; use fewer devices.")
        return slice(*(count * edge // self.size for edge in (self.rank, self.rank + 1)))

    def whole(self, part: Tensor, count: int) -> Tensor:
        """Rows ``(count, …)`` of all processes; the gradient flows into this process's rows only."""
        most = -(-count // self.size)
        padded = part.detach().new_zeros((most, *part.shape[1:]))
        padded[: len(part)] = part.detach()
        found = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(found, padded)
        edges = [count * rank // self.size for rank in range(self.size + 1)]
        rows = [piece[: edges[rank + 1] - edges[rank]] for rank, piece in enumerate(found)]
        return torch.cat([part if rank == self.rank else piece for rank, piece in enumerate(rows)])

    def length(self, part: float) -> float:
        """Length of a vector of which every process has a part, and this one a part of length ``part``."""
        squares = torch.tensor([part**2], dtype=torch.float64, device=self.device)
        dist.all_reduce(squares)
        return float(squares.sqrt())

    def backward(self, loss: Tensor, beside: Iterable[nn.Parameter]) -> None:
        """Gradients of the whole batch's ``loss``.

        Args:
            loss: scalar, the same in every process.
            beside: parameters outside the model, whose gradient every process has in full.
        """
        with warnings.catch_warnings():  # layouts of a bucket and of 1 x 1 convolutions, a matter of speed
            warnings.filterwarnings("ignore", message="Grad strides do not match")
            (loss * self.size).backward()  # type: ignore[no-untyped-call]
        for parameter in beside:
            if parameter.grad is not None:
                parameter.grad /= self.size

    def agree(self, stop: bool) -> bool:
        """What rank 0 says, in every process."""
        word = torch.tensor([int(stop)], device=self.device)
        dist.broadcast(word, 0)
        return bool(word)

    @contextlib.contextmanager
    def statistics(self) -> Iterator[None]:
        """BatchNorm layers inside, of whatever class, take the statistics of the whole batch."""
        with _WholeBatchNorm():
            yield


@dataclass(frozen=True, eq=False)
class BatchShare:
    """What one process computed of a batch whose loss every process sees whole.

    Attributes:
        team: the processes.
        embedding: (rows, width), from which this process's rows of the logits were computed.
    """

    team: Team
    embedding: Tensor


class _WholeBatchNorm(TorchFunctionMode):
    """Replaces ``F.batch_norm``, which every BatchNorm layer ends in, timm's fused ones too."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``F.batch_norm`` over the rows of all processes."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    dims = [dim for dim in range(input.ndim) if dim != 1]
    shape = [1, -1, *[1] * (input.ndim - 2)]
    x = input.float()
    count = _Sum.apply(torch.tensor([float(x.numel() // x.shape[1])], device=x.device))
    mean = _Sum.apply(x.sum(dims)) / count
    centred = x - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(dims)) / count
    with torch.no_grad():
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * count / (count - 1)).to(running_var.dtype), momentum)
    out = centred * (variance + eps).rsqrt().view(shape)
    if weight is not None:
        out = out * weight.view(shape)
    if bias is not None:
        out = out + bias.view(shape)
    result: Tensor = out.to(input.dtype)
    return result


class _Sum(torch.autograd.Function):
    """Sum over the processes; so is its gradient, since every process's rows depend on the sum."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        del ctx
        total = value.detach().clone().contiguous()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        del ctx
        total = gradients[0].clone().contiguous()
        dist.all_reduce(total)
        return total
