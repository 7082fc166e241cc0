"""One training on several devices: DistributedDataParallel with the results of one device, up to rounding.

Every process prepares the same batch: views are computed from seeds, and teacher outputs come from the shared cache. A
process runs its own rows through the model and computes the loss of the *whole* batch, with the logits of the other
rows as constants. The sum of these gradients over the processes is the gradient of the whole batch, also for losses
that compare rows. BatchNorm uses the statistics of the whole batch, on GPUs and on CPUs (``SyncBatchNorm`` does not
work with gloo). Only dropout and stochastic depth differ from a run on one device, because every process draws its own
masks.
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
    """The group of processes of one training, seen from one of them.

    Attributes:
        rank: index of this process; process 0 measures, saves and reports.
        size: number of processes.
        device: device of this process.
    """

    rank: int
    size: int
    device: torch.device

    @classmethod
    def join(cls, file: str, rank: int, size: int, device: torch.device | str) -> Team:
        """Join the process group through a shared file; gloo listens on the loopback interface only.

        Args:
            file: a path that all processes can access; the file must not exist yet.
            rank: index of this process.
            size: number of processes.
            device: device of this process.
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
        """Leave the process group; the inverse of ``join``."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def wrap(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """Wrap the model to average gradients over processes; buffers are equal anyway and not synchronized."""
        ids = [self.device] if self.device.type == "cuda" else None
        named = inspect.signature(DistributedDataParallel.__init__).parameters
        off = (
            "forward_sync_buffers" if "forward_sync_buffers" in named else "broadcast_buffers"
        )  # renamed in torch 2.15
        options: dict[str, Any] = {"device_ids": ids, off: False}
        wrapped: Callable[[Tensor], Tensor] = DistributedDataParallel(model, **options)
        return wrapped

    def rows(self, count: int) -> slice:
        """Return this process's rows of a batch of ``count`` images.

        Raises:
            UsageError: There are fewer images than processes.
        """
        if count < self.size:
            raise UsageError(f"a batch of {count} images cannot be split over {self.size} devices; use fewer devices.")
        return slice(*(count * edge // self.size for edge in (self.rank, self.rank + 1)))

    def whole(self, part: Tensor, count: int) -> Tensor:
        """Gather the rows ``(count, …)`` of all processes; gradients flow into this process's rows only.

        Args:
            part: this process's rows.
            count: number of rows of all processes.
        """
        most = -(-count // self.size)
        padded = part.detach().new_zeros((most, *part.shape[1:]))
        padded[: len(part)] = part.detach()
        found = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(found, padded)
        edges = [count * rank // self.size for rank in range(self.size + 1)]
        rows = [piece[: edges[rank + 1] - edges[rank]] for rank, piece in enumerate(found)]
        return torch.cat([part if rank == self.rank else piece for rank, piece in enumerate(rows)])

    def length(self, part: float) -> float:
        """Return the Euclidean length of a vector whose parts are distributed over the processes.

        Args:
            part: length of this process's part.
        """
        squares = torch.tensor([part**2], dtype=torch.float64, device=self.device)
        dist.all_reduce(squares)
        return float(squares.sqrt())

    def backward(self, loss: Tensor, beside: Iterable[nn.Parameter]) -> None:
        """Compute the gradients of the whole batch's ``loss``.

        Args:
            loss: scalar, the same in every process.
            beside: parameters outside the model; every process computes their full gradient.
        """
        # DistributedDataParallel averages over processes, and the sum is needed: hence the factor ``size``.
        with warnings.catch_warnings():  # strides of a bucket and of 1 x 1 convolutions differ; this only affects speed
            warnings.filterwarnings("ignore", message="Grad strides do not match")
            (loss * self.size).backward()  # type: ignore[no-untyped-call]
        for parameter in beside:
            if parameter.grad is not None:
                parameter.grad /= self.size

    def agree(self, stop: bool) -> bool:
        """Return the value of ``stop`` in process 0, in every process."""
        value = torch.tensor([int(stop)], device=self.device)
        dist.broadcast(value, 0)
        return bool(value)

    @contextlib.contextmanager
    def statistics(self) -> Iterator[None]:
        """Make all BatchNorm layers use the statistics of the whole batch inside this context, whatever their class."""
        with _WholeBatchNorm():
            yield


@dataclass(frozen=True, eq=False)
class BatchShare:
    """The share of one process in a batch of a distributed training.

    Attributes:
        team: the processes.
        embedding: (rows, width), the embeddings of this process's rows, from which its logits were computed.
    """

    team: Team
    embedding: Tensor


class _WholeBatchNorm(TorchFunctionMode):
    """Function mode that replaces ``F.batch_norm``, which every BatchNorm layer calls, including timm's fused ones."""

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
    """Compute ``F.batch_norm`` over the rows of all processes."""
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
    """Differentiable sum over the processes.

    The gradient is summed too, because the rows of every process depend on the sum.
    """

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
