"""The picture of a GAN under way that the page draws, and its encoding in bytes."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.core.randomness import Purpose, stream
from equipoise.core.types import Batch
from equipoise.data import Distribution, Mixture
from equipoise.metrics import high_quality, kl_to_uniform, modes_covered
from equipoise.train import loss_on

from ..points.gan import PointGAN

__all__ = ["View", "encoded", "measured", "picture", "view_of"]

SHOWN = 500
"""Points on the page, real and generated."""
MEASURED = 1000
"""Points that are measured."""
HEAT = 40
"""D's values on each side of the view."""

View = tuple[float, float, float, float]
"""Left, right, bottom, top."""


def view_of(distribution: Distribution) -> View:
    """A square with room around the points of `distribution`.

    Raises:
        ValueError: if the points do not fit into float32.
    """
    points = distribution.sample(MEASURED, stream(0, Purpose.POINTS))
    if not points.isfinite().all():
        raise ValueError(f"{distribution!r} has points beyond the range of float32: give smaller numbers")
    low, high = points.aminmax(dim=0)
    (x, y), side = ((low + high) / 2).tolist(), max(0.65 * (high - low).max().item(), 1e-3)
    return x - side, x + side, y - side, y + side


def picture(gan: PointGAN, view: View) -> dict[str, Tensor]:
    """Generated points (N, 2), the push of G's loss on each (N, 2), and D's logits on the view (HEAT, HEAT).

    The push is -∂L_G/∂x of each point's own loss: the direction in which a step of G would move the point. Logits go
    row by row from the bottom. The state of training stays untouched.
    """
    points = gan.samples(SHOWN)
    x = points[:, :, None, None].clone().requires_grad_(True)
    real = gan.distribution.sample(SHOWN, stream(0, Purpose.POINTS))
    with evaluating(gan.gan.D), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # instance noise is the same in every picture
        loss = loss_on(gan.gan, gan.gan.players[1], Batch(real[:, :, None, None]), Batch(x), gan.nimg)
        (gradient,) = torch.autograd.grad(SHOWN * loss, x)
        with torch.no_grad():
            heat = gan.value(lattice(view)).view(HEAT, HEAT)
    return {"points": points, "pushes": -gradient.flatten(1), "heat": heat}


def lattice(view: View) -> Tensor:
    """The middles of HEAT x HEAT cells, (HEAT², 2), row by row from the bottom."""
    left, right, bottom, top = view
    t = (torch.arange(HEAT) + 0.5) / HEAT
    y, x = torch.meshgrid(bottom + (top - bottom) * t, left + (right - left) * t, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Put `net` in eval mode in the block: otherwise a forward would move spectral norm's singular vectors."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)


def measured(gan: PointGAN) -> dict[str, float]:
    """Measures of G if the data are a mixture: modes covered, number of modes, share of high quality, KL to uniform."""
    if not isinstance(gan.distribution, Mixture):
        return {}
    points = gan.samples(MEASURED)
    return {
        "of": len(gan.distribution.modes),
        "modes": modes_covered(gan.distribution, points),
        "high_quality": high_quality(gan.distribution, points),
        "kl": kl_to_uniform(gan.distribution, points),
    }


def encoded(header: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> bytes:
    """The length of the header in four bytes, the header as JSON, and the arrays in float32, all little-endian.

    The header's `arrays` are names and shapes, in the order of the arrays. Spaces fill the header up, so that the
    arrays begin at a multiple of four bytes. A number that is not finite becomes null.
    """
    shapes = [[name, list(array.shape)] for name, array in arrays.items()]
    content = json.dumps(finite({**header, "arrays": shapes}), allow_nan=False).encode()
    content += b" " * (-len(content) % 4)
    values = [array.detach().cpu().float().numpy().astype("<f4").tobytes() for array in arrays.values()]
    return b"".join([struct.pack("<I", len(content)), content, *values])


def finite(value: Any) -> Any:
    """`value` with None for numbers that JSON cannot express."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
