"""Memory checks: refuse a run that cannot fit before its networks are built, and report a failed allocation."""

from __future__ import annotations

import errno
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from equipoise.compute.distributed import world_size
from equipoise.config import TrainConfig
from equipoise.core.types import ImageSpec, RunError
from equipoise.models.bounded import bounded, bytes_of, kept_for_backward, overflows
from equipoise.rules import Stages

__all__ = ["Memory", "fit_or_say_so", "host_memory", "require_fitting"]

FLOAT = 4  # bytes of a float32
FEW = 4
"""Images in the counted forward; counts are divided by it. Layers that compare images need four."""
MOST_EPOCHS = 100
"""Most times that a batch may hold each image of the data."""
CGROUPS, GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class Memory(NamedTuple):
    """A limit on memory. bytes: the most that this process may take.  name: of the source of the limit."""

    bytes: int
    name: str

    def __str__(self) -> str:
        return f"{gib(self.bytes)} of {self.name}"


def require_fitting(cfg: TrainConfig, spec: ImageSpec, images: int, device: torch.device) -> None:
    """Refuse a config whose networks or batches cannot fit: a lower bound exceeds the memory.

    The networks are built on the meta device, which allocates nothing, and building stops at the bound. Counted are the
    weights of both networks with their gradients, and the average of G. For an update, the images (real and generated)
    and z are counted, or the activations of the larger player. The optimisers' averages and penalties come on top.

    images: number of images in the data.

    Raises:
        ValueError: if networks or batches do not fit, a batch holds each image of the data over a hundred times, or the
            networks are not defined for the data.
    """
    size = max(Stages(cfg.growth, spec.resolution, cfg.batch_size).batch_sizes)
    if size > MOST_EPOCHS * images:
        raise ValueError(
            f"batch_size={size} is over {MOST_EPOCHS} times the {images} images of the data: give a smaller batch_size"
        )
    memory = device_memory(device)
    of_g = cfg.spec_of_g(spec)
    G, g_bytes = on_meta("generator", lambda: cfg.generator.build(of_g), memory.bytes // 3, memory)  # with the average
    free = memory.bytes - 3 * g_bytes
    D, d_bytes = on_meta("discriminator", lambda: cfg.head.build(cfg.discriminator.build, spec), free // 2, memory)
    update = max(batch_bytes(cfg, spec, size), activation_bytes(cfg, spec, size, G, D))  # D keeps the images
    if update > free - 2 * d_bytes:
        raise ValueError(
            f"batch_size={size}: an update of the {gib(3 * g_bytes + 2 * d_bytes)} of networks takes at least "
            f"{gib(update)} more, and there are {memory}. Give a smaller batch_size, or compute.micro_batch"
        )


def batch_bytes(cfg: TrainConfig, spec: ImageSpec, size: int) -> int:
    """Bytes of real images, generated images, and the z of all processes, for an update on `size` images."""
    images = size * cfg.g_batches // world_size()
    pixels = math.prod(spec.image)
    return FLOAT * ((images + piece(cfg, images)) * pixels + images * world_size() * cfg.generator.z_dim)


def piece(cfg: TrainConfig, images: int) -> int:
    """Number of images in one forward."""
    return min(images, cfg.compute.micro_batch or images)


def activation_bytes(cfg: TrainConfig, spec: ImageSpec, size: int, G: nn.Module | None, D: nn.Module | None) -> int:
    """Bytes that the forwards of an update store for the backward: D on real and generated images, or D(G(z))."""
    y = torch.zeros(FEW, dtype=torch.int64, device="meta") if spec.num_classes else None
    z = torch.zeros(FEW, cfg.generator.z_dim, device="meta")
    x = torch.zeros(FEW, *spec.image, device="meta")
    of_g, of_d = stored(G, z, y), stored(D, x, y)
    for_d, for_g = (piece(cfg, images // world_size()) for images in (size, size * cfg.g_batches))
    kept = max(2 * for_d * of_d, for_g * (of_g + of_d)) // FEW
    halves = cfg.compute.compile or cfg.compute.precision in ("bf16", "auto")  # a compiler recomputes some activations
    return kept // 2 if halves else kept


def stored(net: nn.Module | None, *inputs: Tensor | None) -> int:
    """Bytes that ``net(*inputs)`` stores for the backward; 0 for a network that the meta device cannot run."""
    if net is None:
        return 0
    try:
        with kept_for_backward(net) as kept, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net.train()(*inputs)
    except Exception:  # a network of the user's own may do anything
        return 0
    return bytes_of(kept)


def on_meta(name: str, build: Callable[[], nn.Module], most_bytes: int, memory: Memory) -> tuple[nn.Module | None, int]:
    """A network on the meta device, and the bytes of its weights.

    None and 0 for a network that cannot be built there, such as one that reads its weights from a file.

    Raises:
        ValueError: if the weights take more than `most_bytes`, or as `build` does.
    """
    reason = f"its weights and their gradients do not fit into {memory}"
    with bounded(name, most_bytes, reason) as built, torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # building the real networks will warn again
        try:
            return build(), built.bytes
        except (ValueError, OverflowError):
            raise
        except Exception as error:  # a network of the user's own may do anything
            if overflows(error):
                raise
            return None, 0


# ---- how much memory there is ----------------------------------------------------------------------------


def device_memory(device: torch.device) -> Memory:
    """The memory of a GPU; for the CPU, the host's memory."""
    if device.type != "cuda":
        return host_memory()
    return Memory(torch.cuda.get_device_properties(device).total_memory, torch.cuda.get_device_name(device))


def host_memory() -> Memory:
    """The smallest of the machine's memory, the limits of this process's control groups, and `ulimit -v`."""
    limits = [*physical_memory(), *address_space(), *(Memory(limit, "its control group") for limit in cgroup_limits())]
    return min(limits, default=Memory(2**63, "addresses"))


def physical_memory() -> Iterator[Memory]:
    try:
        yield Memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "memory")
    except (AttributeError, ValueError, OSError):  # not reported by this system
        return


def address_space() -> Iterator[Memory]:
    try:
        import resource
    except ImportError:  # Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        yield Memory(limit, "ulimit -v")


def cgroup_limits() -> Iterator[int]:
    """Limits in bytes, of both versions of control groups. A group is also limited by its parents."""
    try:
        groups = GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, file = CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, file = CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield from limit_in(folder / file)


def limit_in(file: Path) -> Iterator[int]:
    try:
        yield int(file.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return


# ---- when an allocation fails ----------------------------------------------------------------------------

SAID = ("can't allocate memory", "out of memory", "bad_alloc", "ALLOC_FAILED", "Cannot allocate memory")
"""Texts by which PyTorch, its libraries and the system report a failed allocation in other types of errors."""


def out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError | ImportError) and any(said in str(error) for said in SAID)


@contextmanager
def fit_or_say_so(advice: str = "smaller batch_size, or compute.micro_batch") -> Iterator[None]:
    """Turn the error of a failed allocation inside the block into one line.

    Raises:
        RunError: "out of memory: " and the advice.
    """
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise RunError(f"out of memory: {advice}") from error


def gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
