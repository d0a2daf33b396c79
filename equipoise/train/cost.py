"""Floating-point operations of an iteration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from equipoise.compute.distributed import owned
from equipoise.compute.settings import Compute
from equipoise.config import TrainConfig
from equipoise.core.randomness import Purpose
from equipoise.core.types import Batch, ImageSpec
from equipoise.losses.base import Term
from equipoise.rules import NoGrowth

from .gan import GAN
from .steps import d_step, g_step

__all__ = ["iteration_flops", "mean_costs"]


def iteration_flops(cfg: TrainConfig, spec: ImageSpec) -> int:
    """Floating-point operations of an iteration of `train`: updates of D on ``cfg.batch_size`` images, and G's.

    Two for each multiply-add of matrix products and convolutions: forward, backward, the gradients of gradients that
    penalties take, and the recomputation of checkpointed blocks. A lazy term counts with its share; networks that grow
    have their full size. Left out are elementwise operations, matrix-vector products (spectral norm's iterations), the
    optimisers and the average of G.

    The trainer's own steps run on the meta device, so real steps are counted, not a formula. `cfg.compute` affects
    speed only, and changes nothing here.

    Raises:
        ValueError: if D is updated until it converges: the number of updates is unknown.
    """
    if not isinstance(cfg.d_steps, int):
        raise ValueError(
            f"d_steps={cfg.d_steps!r} updates D until its loss converges, so the count is unknown: give a fixed "
            "number, such as d_steps=5"
        )
    with torch.random.fork_rng(devices=[]):  # `GAN.build` seeds the generator
        with torch.device("meta"):
            plain = replace(cfg, growth=NoGrowth(), compute=Compute(), game=replace(cfg.game, reuse=False, shown=None))
            gan = GAN.build(plain, spec, "meta")
            x = torch.zeros(cfg.batch_size, *spec.image)
            batch = Batch(x, torch.zeros(cfg.batch_size, dtype=torch.int64) if spec.num_classes else None)
        # Adam's fused kernel does not know the meta device.
        gan.d_optim, gan.g_optim = (torch.optim.SGD(owned(optim)) for optim in (gan.d_optim, gan.g_optim))
        d, g = mean_costs(gan, batch, operations)
        if cfg.game.reuse:  # g is counted without reuse, so it includes a forward of G
            (piece,) = gan.pieces(batch, Purpose.Z_FOR_G, 0)
            g -= operations(lambda _: gan.showing.to_d(piece), 0)
    return round(cfg.d_steps * d + g)


def mean_costs(gan: GAN, batch: Batch, cost: Callable[[Step, int], float]) -> tuple[float, float]:
    """Mean cost of an update of D, and of an update of G, on `batch`. cost: as in `mean_over_period`."""
    cfg, size = gan.cfg, gan.cfg.batch_size
    held_out = batch if cfg.augment.held_out else None
    of_g = size * (cfg.d_steps if isinstance(cfg.d_steps, int) else 1)
    of_d, of_g_terms = (player.terms for player in gan.players)
    return (
        mean_over_period(lambda update: d_step(gan, batch, update * size, held_out, batch), of_d, cost),
        mean_over_period(lambda update: g_step(gan, batch, update * of_g, batch), of_g_terms, cost),
    )


Step = Callable[[int], object]
"""Runs the update of the given number."""


def mean_over_period(step: Step, terms: Sequence[Term], cost: Callable[[Step, int], float]) -> float:
    """Mean cost of an update. `cost(step, n)` is the cost of update n; those with the same due terms cost the same."""
    period = math.lcm(*(term.every for term in terms))
    due = [tuple(update % term.every == 0 for term in terms) for update in range(period)]
    costs = {which: cost(step, due.index(which)) for which in set(due)}
    return sum(costs[which] for which in due) / period


def operations(step: Step, update: int) -> int:
    counter = Products()
    with counter:
        step(update)
    return counter.flops


class Products(TorchDispatchMode):
    """Count the operations of matrix products and convolutions, inside `torch.autograd.grad` too.

    `FlopCounterMode` does not work here: it hooks the gradients of modules, and autograd then refuses gradients of
    inputs.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out
