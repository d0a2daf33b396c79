"""Standing statistics: batch-norm statistics for the current weights of a generator (Brock et al. 2019, sec. 4.1).

The running averages that training leaves belong to other weights: to older weights of the network and, for an averaged
network, to the network that it averages. Eval mode would use them all the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from equipoise.compute.devices import wide
from equipoise.config import TrainConfig
from equipoise.core.randomness import Purpose, stream
from equipoise.core.types import ImageSpec
from equipoise.models import GeneratorConfig
from equipoise.nn import SyncBatchNorm

__all__ = ["averaged_generator", "standing_statistics", "with_standing_statistics"]

BATCH_NORMS = nn.modules.batchnorm._BatchNorm
PASSES = 20
"""Default number of batches that the statistics are taken from."""
Arguments = tuple[Tensor | None, ...]


@torch.no_grad()
def standing_statistics(net: nn.Module, draw: Callable[[int], Arguments], *, passes: int = PASSES) -> nn.Module:
    """Set every batch norm of `net` to the pooled mean and variance of its input over `passes` batches, in place.

    draw: pass -> arguments of the generator, such as (z, y).

    In these passes batch norm uses the statistics of the batch, as in training. All other layers keep their mode. Sums
    are float64. No other process takes part.
    """
    sums: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = wide(args[0]).transpose(0, 1).flatten(1)  # (C, values)
        now = torch.stack([torch.full_like(x[:, 0], x.shape[1]), x.sum(1), x.square().sum(1)])  # (3, C)
        sums[module] = sums[module] + now if module in sums else now

    norms = [m for m in net.modules() if isinstance(m, BATCH_NORMS) and m.track_running_stats]
    modes = [m.training for m in norms]
    hooks = [m.train().register_forward_pre_hook(note) for m in norms]
    with_others = [m for m in norms if isinstance(m, SyncBatchNorm) and not m.alone]
    for synced in with_others:
        synced.alone = True  # rank 0 calls this while the other ranks wait
    for i in range(passes if norms else 0):
        net(*draw(i))
    for synced in with_others:
        synced.alone = False
    for module, mode, hook in zip(norms, modes, hooks, strict=True):
        hook.remove()
        module.train(mode)
        if module in sums:
            count, total, squares = sums[module]
            mean = total / count
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(mean)
            module.running_var.copy_((squares - count * mean.square()) / (count - 1))
    return net


def with_standing_statistics(
    net: nn.Module,
    config: GeneratorConfig,
    spec: ImageSpec,
    *,
    images: int,
    seed: int,
    passes: int = PASSES,
    threshold: float | None = None,
) -> nn.Module:
    """A copy of the generator `net` with standing statistics over z and all classes. They depend on `seed` alone.

    spec: the spec that `net` was built for, with the classes that `net` reads.
    images: batch size of a pass.
    passes: number of batches, raised to `num_classes / images` where fewer would leave a class out. 0 keeps the
        statistics of `net`.
    threshold: z is drawn given |z_i| <= threshold; None means untruncated.
    """
    device = next(net.parameters()).device
    num_classes = spec.num_classes

    def draw(i: int) -> Arguments:
        z = config.prior.draw(images, config.z_dim, generator=stream(seed, Purpose.STANDING, i))
        z = z if threshold is None else config.prior.truncate(z, threshold)
        return z.to(device), classes_of_pass(i, images, num_classes, seed).to(device) if num_classes else None

    passes = max(passes, -(-num_classes // images)) if passes else 0
    return standing_statistics(copy.deepcopy(net), draw, passes=passes)


def classes_of_pass(i: int, images: int, num_classes: int, seed: int) -> Tensor:
    """Classes (images,) of pass `i`: one random order of all classes, repeated through all passes.

    The counts of two classes over all passes differ by at most one. The order is random because neighbours in a list of
    classes look alike, such as breeds of dogs. In list order, a batch would hold only classes that look alike.
    """
    order = torch.randperm(num_classes, generator=stream(seed, Purpose.STANDING_CLASSES))
    return order[(i * images + torch.arange(images)) % num_classes]


def averaged_generator(average: nn.Module, cfg: TrainConfig, spec: ImageSpec, *, passes: int = PASSES) -> nn.Module:
    """A copy of the averaged generator of a run with standing statistics, which depend on the seed alone.

    spec: the spec of the run's data.
    passes: as in `with_standing_statistics`.
    """
    images = min(cfg.batch_size, cfg.compute.micro_batch or cfg.batch_size)  # batches of the size seen in training
    of_g = cfg.spec_of_g(spec)
    return with_standing_statistics(average, cfg.generator, of_g, images=images, seed=cfg.seed, passes=passes)
