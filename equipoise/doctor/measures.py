"""Measurements of two networks at a moment of training: gradients, verdicts, units, steps, norms. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = [
    "Slopes",
    "Units",
    "misfit_of_norms",
    "slopes",
    "steps_of",
    "units",
    "update_ratio",
    "verdicts",
]

BATCH_NORM = nn.modules.batchnorm._BatchNorm
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Softplus, nn.Tanh, nn.Sigmoid)
FLAT = 0.01
"""Slope of G's loss over a logit, relative to the slope 1 of the losses that do not saturate, that counts as none."""


class Slopes(NamedTuple):
    """Gradients of G's loss at generated images.

    size: median over images of ‖dL_G/dG(z)‖, each image's loss by itself, ().
    flat: share of images at which the loss is flat over the logit, ().
    """

    size: Tensor
    flat: Tensor


def slopes(loss: Tensor, logits: Tensor, x: Tensor) -> Slopes:
    """Slopes of a mean loss () over logits (N, K) of the images x (N, ...), which require a gradient."""
    by_logit, by_image = torch.autograd.grad(loss, (logits, x), allow_unused=True)
    n = len(x)
    size = torch.zeros(n, device=x.device) if by_image is None else by_image.flatten(1).norm(dim=1) * n
    slope = torch.zeros(n, device=x.device) if by_logit is None else by_logit.flatten(1).abs().sum(1) * n
    return Slopes(size.median(), (slope < FLAT).float().mean())


def verdicts(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """The verdicts of D on real and generated images, from logits (N, K) each.

    right: P(D(x) > D(G(z))), ties count half: 0.5 for a D that cannot tell, 1 for a D that is always right.
    """
    a, b = real.detach().float().flatten(1).mean(1), fake.detach().float().flatten(1).mean(1)
    return {"right": (a[:, None] > b).float().mean() + 0.5 * (a[:, None] == b).float().mean()}


# ---- steps -----------------------------------------------------------------------------------------------


def steps_of(optimizer: torch.optim.Optimizer) -> Iterator[tuple[Tensor, Tensor]]:
    """Each weight of an optimiser that has moved, with the size () of its last step.

    Adam's step follows from its state. RMSprop keeps no gradient: its steps have the size lr √n on average. Weights of
    other optimisers are left out.
    """
    for group in optimizer.param_groups:
        lr, eps = float(group["lr"]), float(group.get("eps", 1e-8))
        for p in group["params"]:
            state = optimizer.state.get(p, {})
            if "exp_avg" in state:
                (b1, b2), t = group["betas"], float(state["step"])
                root = (state["exp_avg_sq"] / (1 - b2**t)).sqrt() + eps
                yield p, lr * (state["exp_avg"] / (1 - b1**t) / root).norm()
            elif "square_avg" in state:
                yield p, torch.as_tensor(lr * p.numel() ** 0.5, device=p.device)


def update_ratio(steps: Iterable[tuple[Tensor, Tensor]]) -> Tensor | None:
    """Median over layers of ‖step‖ / ‖weight‖; None without steps. Biases and gains are left out, which begin at 0."""
    ratios = [size / p.detach().norm().clamp_min(1e-12) for p, size in steps if p.ndim > 1]
    return torch.stack(ratios).median() if ratios else None


# ---- units -----------------------------------------------------------------------------------------------


class Units:
    """Lowest and highest output of each unit of the activations of a network, over the images it is shown."""

    def __init__(self) -> None:
        self.ranges: dict[str, tuple[Tensor, Tensor]] = {}

    def note(self, name: str, out: Tensor) -> None:
        """Account for an output (N, C, ...)."""
        flat = out.detach().flatten(2) if out.ndim > 2 else out.detach()[..., None]
        low, high = flat.amin((0, 2)), flat.amax((0, 2))
        if name in self.ranges and self.ranges[name][0].shape == low.shape:
            low, high = torch.minimum(low, self.ranges[name][0]), torch.maximum(high, self.ranges[name][1])
        self.ranges[name] = low, high

    def dead(self) -> Tensor | None:
        """Share of units with a constant output in the layer that has most of them; None without activations."""
        shares = [(high <= low).float().mean() for low, high in self.ranges.values()]
        return torch.stack(shares).amax() if shares else None


@contextmanager
def units(net: nn.Module) -> Iterator[Units]:
    """Watch the activations of `net` that are modules, while it is called."""
    seen = Units()

    def hook(name: str) -> torch.utils.hooks.RemovableHandle:
        module = net.get_submodule(name)
        return module.register_forward_hook(lambda _, __, out: seen.note(name, out))

    handles = [hook(name) for name, module in net.named_modules() if isinstance(module, ACTIVATIONS)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


# ---- norms -----------------------------------------------------------------------------------------------


@contextmanager
def misfit_of_norms(net: nn.Module) -> Iterator[Mapping[str, Tensor]]:
    """Compare the running statistics of batch norms with the batches that pass, while `net` is called in eval mode.

    The mapping is filled on the way: name of a layer -> median over channels of |m - m_run| / s_run + |log(s / s_run)|.
    """
    misfits: dict[str, Tensor] = {}

    def compare(name: str, layer: BATCH_NORM, x: Tensor) -> None:
        axes = [0, *range(2, x.ndim)]
        x = x.detach().float()
        m_run, v_run = layer.running_mean, layer.running_var
        assert m_run is not None
        assert v_run is not None
        s_run = (v_run + layer.eps).sqrt()
        shift = (x.mean(axes) - m_run).abs() / s_run
        scale = ((x.var(axes, unbiased=False) + layer.eps).sqrt() / s_run).log().abs()
        misfits[name] = (shift + scale).median()

    def hook(name: str, layer: BATCH_NORM) -> torch.utils.hooks.RemovableHandle:
        return layer.register_forward_hook(lambda _, inputs, __: compare(name, layer, inputs[0]))

    layers = [(n, m) for n, m in net.named_modules() if isinstance(m, BATCH_NORM) and m.running_var is not None]
    handles = [hook(name, layer) for name, layer in layers]
    try:
        yield misfits
    finally:
        for handle in handles:
            handle.remove()
