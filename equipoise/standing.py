"""Standing statistics: the batch-norm statistics of a generator as it is now (Brock et al. 2019, sec. 4.1).

The running averages that training leaves belong to other weights: older ones of the network itself and, for an
averaged network, those of the one that it averages. Eval mode would use them all the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .config import TrainConfig
from .models.norms import SyncBatchNorm
from .randomness import Purpose, stream
from .types import ImageSpec

__all__ = ["averaged_generator", "standing_statistics"]

BATCH_NORMS = nn.modules.batchnorm._BatchNorm
Arguments = tuple[Tensor | None, ...]


@torch.no_grad()
def standing_statistics(net: nn.Module, draw: Callable[[int], Arguments], *, passes: int = 20) -> nn.Module:
    """Set every batch norm of `net` to the pooled mean and variance of its input over `passes` batches, in place.

    draw: pass -> what the generator is called with, such as (z, y). In these passes batch norm uses the statistics of
        the batch, as in training; all else stays in its mode. Sums are float64. No other process takes part.
    """
    sums: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].double().transpose(0, 1).flatten(1)  # (C, values)
        now = torch.stack([torch.full_like(x[:, 0], x.shape[1]), x.sum(1), x.square().sum(1)])  # (3, C)
        sums[module] = sums[module] + now if module in sums else now

    norms = [m for m in net.modules() if isinstance(m, BATCH_NORMS) and m.track_running_stats]
    modes = [m.training for m in norms]
    hooks = [m.train().register_forward_pre_hook(note) for m in norms]
    with_others = [m for m in norms if isinstance(m, SyncBatchNorm) and not m.alone]
    for synced in with_others:
        synced.alone = True  # rank 0 calls this while the others wait for it
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


def averaged_generator(average: nn.Module, cfg: TrainConfig, spec: ImageSpec) -> nn.Module:
    """A copy of the averaged generator of a run with standing statistics, which depend on the seed alone."""
    net = copy.deepcopy(average)
    device = next(net.parameters()).device
    images = min(cfg.batch_size, cfg.micro_batch or cfg.batch_size)  # as many as training knew the statistics of

    def draw(i: int) -> Arguments:
        source = stream(cfg.seed, Purpose.STANDING, i)
        z = cfg.generator.prior.draw(images, cfg.generator.z_dim, generator=source)
        y = torch.arange(images, device=device) % spec.num_classes if cfg.generator.conditional else None
        return z.to(device), y

    return standing_statistics(net, draw)
