"""Data parallelism: equal replicas, gradients averaged once per optimiser step. All of it also runs in one process.

`DistributedDataParallel` is not used. A GAN step runs D twice before one backward, trains one network through the
other and differentiates gradients. Each of these conflicts with its hooks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import accumulate, groupby
from typing import Any, TypeVar, cast
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from equipoise.core.types import RunError

from .devices import missing

__all__ = [
    "Reduction",
    "apply_gradients",
    "from_rank_0",
    "max_over_ranks",
    "mean_over_ranks",
    "owned",
    "processes",
    "rank",
    "reducing",
    "stack_ranks",
    "trainable",
    "world_size",
]

T = TypeVar("T")


@contextmanager
def processes(device: str = "auto") -> Iterator[torch.device]:
    """Join the process group that `torchrun` announces, if any, and yield this process's device.

    Messages in host memory (a signal to stop, a loaded checkpoint) go over gloo, so they never wait for a GPU.

    device: as in `Compute`.

    Raises:
        ValueError: if this machine lacks the device, or the environment announces an impossible group.
        RunError: if the other processes cannot be reached.
    """
    own_device = this_device(device)
    cuda = own_device.type == "cuda"
    if cuda:
        torch.cuda.set_device(own_device)
    joins = "RANK" in os.environ and not dist.is_initialized()
    if joins:
        require_launch()
        try:
            store, own, world = next(rendezvous("env://"))
        except dist.DistError as error:
            address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise RunError(f"cannot reach the other processes at {address}: {error}. Start all of them") from error
        store = fresh(store, own, world)
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=own, world_size=world)
    try:
        yield own_device
    finally:
        if joins:
            dist.destroy_process_group()


def this_device(name: str) -> torch.device:
    """The device of this process for a `name` as in `Compute`.

    Raises:
        ValueError: if torch does not see it here, or if several processes would share one GPU.
    """
    local, gpus = local_rank(), torch.cuda.device_count()
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    if device.type == "cuda":
        if device.index is not None and launched() and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
            raise ValueError(
                f"compute.device={name} is one GPU for all processes of this machine: give compute.device=cuda, which "
                "gives each its own, or start one process"
            )
        device = torch.device("cuda", local if device.index is None else device.index)
        there = torch.cuda.is_available() and device.index < gpus
    else:
        other = torch.accelerator.current_accelerator()
        there = device.type == "cpu" or (other is not None and device.type == other.type)
        if there and device.type == "mps" and launched() and int(os.environ["WORLD_SIZE"]) > 1:
            raise ValueError("compute.device=mps is for one process: gloo does not reach it. Start one, or give cpu")
    if not there:
        seen = ", ".join(["cpu", *(f"cuda:{i}" for i in range(gpus))])
        more = ", or start no more processes than GPUs" if gpus and launched() else ""
        raise ValueError(
            f"compute.device={name}: there is no {device} on this machine: {missing(device)}. Give one of {seen}{more}"
        )
    return device


def local_rank() -> int:
    """Index of this process on its machine. Raises ValueError if LOCAL_RANK is not a number."""
    text = os.environ.get("LOCAL_RANK", "0")
    if not text.isdecimal():
        raise ValueError(f"LOCAL_RANK={text!r} in the environment is not a process index: unset it, or use torchrun")
    return int(text)


def announced() -> dict[str, str]:
    """Environment variables in which `torchrun` announces the group; "" for unset ones."""
    return {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}


def launched() -> bool:
    """Whether the environment announces a valid group of processes."""
    rank, world, address, port = announced().values()
    numbers = all(text.isdecimal() for text in (rank, world, port))
    return numbers and int(rank) < int(world) and int(port) < 2**16 and address != ""


def require_launch() -> None:
    """Raise ValueError unless the environment announces a valid group."""
    if not launched():
        given = " ".join(f"{name}={value!r}" for name, value in announced().items())
        raise ValueError(
            f"{given} in the environment announce no group of processes: expected RANK below WORLD_SIZE, and the "
            "address and port to meet at. Start with torchrun, which sets all of them, or start one process: env -u "
            "RANK equipoise ..."
        )


def speaks() -> bool:
    """Whether this process prints for its group: rank 0, or the only process. Works before the group has met."""
    return not launched() or int(os.environ["RANK"]) == 0


def fresh(store: Any, own: int, world: int, patience: timedelta = timedelta(minutes=10)) -> Any:
    """A part of `store` that no earlier process wrote to, the same for all processes. Every process must call this.

    torchrun's store survives a restart, and a new process must not read the addresses of dead ones. torchrun's restart
    count does not help on several nodes: a node where no process died does not count the restart. So the processes
    meet. Each calls under a random name. Rank 0 answers every call with the name of the fresh part, until all others
    have taken the answer. Calls of dead processes are answered too, and nobody takes those answers.

    own: rank of this process.
    world: number of processes.
    patience: time to wait for the others.

    Raises:
        RunError: if they do not all meet within `patience`.
    """
    meeting, name = dist.PrefixStore("meeting", store), uuid4().hex  # type: ignore[attr-defined]
    end = time.monotonic() + patience.total_seconds()
    try:
        if own == 0:
            life = name
            while meeting.add(f"took {life}", 0) < world - 1:
                if time.monotonic() > end:
                    raise dist.DistStoreError
                for call in (f"call {other}" for other in range(1, world)):
                    if meeting.check([call]):
                        meeting.set(f"answer {meeting.get(call).decode()}", life)
                time.sleep(0.05)
        else:
            meeting.set(f"call {own}", name)
            meeting.wait([f"answer {name}"], patience)
            life = meeting.get(f"answer {name}").decode()
            meeting.add(f"took {life}", 1)
    except dist.DistStoreError:
        raise RunError(
            f"the {world} processes of this run did not meet within {patience}. Were all of them started? If torchrun "
            "was started again on one machine while it still ran on others, end it on all of them, set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 on all, and start it again."
        ) from None
    return dist.PrefixStore(life, store)  # type: ignore[attr-defined]


def rank() -> int:
    """Index of this process. Rank 0 writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def owned(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Parameters that `optimizer` steps."""
    return [p for group in optimizer.param_groups for p in group["params"]]


@contextmanager
def trainable(*optimizers: torch.optim.Optimizer) -> Iterator[None]:
    """Let the parameters of `optimizers` require gradients in the block; restore the flags after it."""
    before = [(p, p.requires_grad) for optimizer in optimizers for p in owned(optimizer)]
    for p, _ in before:
        p.requires_grad_(True)
    try:
        yield
    finally:
        for p, required in before:
            p.requires_grad_(required)


def apply_gradients(optimizer: torch.optim.Optimizer, reduction: Reduction | None = None) -> None:
    """Average gradients over processes, step, clear.

    A parameter without a gradient gets zeros, in one process too, so that every number of processes does the same.

    reduction: averages that `reducing` has begun, or None.
    """
    parameters = owned(optimizer)
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    if world_size() > 1:
        (reduction or Reduction(parameters)).finish()
    optimizer.step()
    optimizer.zero_grad()


BUCKET = 25 * 2**20
"""Bytes of gradients in one all-reduce."""


class Reduction:
    """Means of gradients over processes, in buckets. A bucket travels while the next ones are computed or copied.

    All processes begin buckets in the same order: the last parameters first, as a backward reaches them. So processes
    may differ in which parameters got a gradient.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]):
        ends = accumulate(p.nbytes for p in reversed(parameters))
        self.waiting = [
            [p for p, _ in bucket]
            for _, bucket in groupby(zip(reversed(parameters), ends, strict=True), lambda pair: (pair[1] - 1) // BUCKET)
        ]
        self.done: set[Tensor] = set()
        self.begun: list[tuple[list[nn.Parameter], Tensor, dist.Work]] = []

    def note(self, parameter: Tensor) -> None:
        """Record that the gradient of `parameter` is complete, and begin the buckets that are."""
        self.done.add(parameter)
        while self.waiting and all(p in self.done for p in self.waiting[0]):
            self.begin()

    def begin(self) -> None:
        bucket = self.waiting.pop(0)
        total = torch.cat([p.grad.flatten() for p in bucket if p.grad is not None])
        self.begun.append((bucket, total, dist.all_reduce(total, async_op=True)))

    def finish(self) -> None:
        """Begin the remaining buckets, wait for all, and replace gradients by means. Every gradient must exist."""
        while self.waiting:
            self.begin()
        for bucket, total, work in self.begun:
            work.wait()
            total /= world_size()
            for p, mean in zip(bucket, total.split([p.numel() for p in bucket]), strict=True):
                assert p.grad is not None
                p.grad.copy_(mean.view_as(p))


@contextmanager
def reducing(optimizer: torch.optim.Optimizer, last: bool = True) -> Iterator[Reduction | None]:
    """Begin averages over processes during the backward in the block. `apply_gradients` finishes them.

    last: whether this is the update's last backward. In earlier ones, and in one process, nothing begins.
    """
    if not last or world_size() == 1:
        yield None
        return
    reduction = Reduction(owned(optimizer))
    hooks = [p.register_post_accumulate_grad_hook(reduction.note) for p in owned(optimizer)]
    try:
        yield reduction
    finally:
        for hook in hooks:
            hook.remove()


def mean_over_ranks(value: Tensor) -> Tensor:
    """Mean of `value` over all processes; in one process, `value` itself."""
    if world_size() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / world_size()


def stack_ranks(value: Tensor) -> Tensor:
    """Stack `value` (...) of every process, (processes, ...), on all of them. Each must call it at the same point.

    The result is differentiable any number of times, by all processes together. Each gets the gradient of the sum of
    their losses. If each loss is the mean over the process's own images, `apply_gradients` averages these gradients to
    the gradient of the mean over all images, as in one process.
    """
    if world_size() == 1:
        return value[None]
    slots = [value if r == rank() else torch.zeros_like(value) for r in range(world_size())]
    stacked: Tensor = SumOverRanks.apply(torch.stack(slots))  # type: ignore[no-untyped-call]
    return stacked


class SumOverRanks(torch.autograd.Function):
    """Σ_r x_r, x_r the tensor of rank r. It is its own transpose: x_r is in the sum of every process."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def setup_context(_ctx: Any, _inputs: tuple[Tensor], _output: Tensor) -> None:
        """Save nothing: the function is linear."""

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total: Tensor = SumOverRanks.apply(gradient)  # type: ignore[no-untyped-call]
        return total


def max_over_ranks(number: int) -> int:
    """The largest `number` on any process."""
    if world_size() == 1:
        return number
    largest = torch.tensor(number)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def from_rank_0(function: Callable[[], T]) -> T:
    """Call `function` on rank 0 and return its result on every process. A ValueError or RunError is raised on all.

    So only rank 0 needs to see the disk, and no process waits for a failed one.
    """
    if world_size() == 1:
        return function()
    value: T | None = None
    error: ValueError | RunError | None = None
    if rank() == 0:
        try:
            value = function()
        except (ValueError, RunError) as raised:
            error = raised
    box = [(value, error)]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    value, error = box[0]
    if error is not None:
        raise error
    return cast("T", value)
