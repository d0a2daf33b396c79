"""Walks in the space of z: interpolation between two images, and arithmetic on the means of several.

An image is named by its seed and its index among the images that `equipoise sample` draws from that seed. In the grid
of ten columns, image 23 is the fourth of the third row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from equipoise.core.latents import PATHS, lerp
from equipoise.nn import ConditionalBatchNorm, OneHot

from .generator import BATCH, Generator, draw_latents, images, sample_classes

__all__ = ["Latent", "arithmetic", "arithmetic_grid", "interpolate", "latent", "mean_latent", "mixed_classes"]


class Latent(NamedTuple):
    """The input that draws one image: z (z_dim,), and its class or None."""

    z: Tensor
    y: int | None


def latent(generator: Generator, index: int, *, seed: int = 0, label: int | None = None) -> Latent:
    """The latent of image `index` of `sample(generator, ..., seed=seed)`; its z in class `label`, if given.

    Raises:
        ValueError: for an index below 0, or a class that the generator does not know.
    """
    if index < 0:
        raise ValueError(f"images are counted from 0, got {index}")
    y = sample_classes(generator, index + 1, None if label is None else [label])
    return Latent(draw_latents(generator, index + 1, seed=seed)[index], None if y is None else int(y[index]))


# ---- interpolation ---------------------------------------------------------------------------------------


def interpolate(
    generator: Generator, start: Latent, end: Latent, frames: int, *, path: str | None = None
) -> NDArray[np.uint8]:
    """Images on the way from `start` to `end`, both included, in equal steps: (frames, H, W, C).

    path: the path of z, "spherical" (`slerp`) or "linear" (`lerp`); None: the prior's path.

    If the classes differ, the network's vectors for the two classes are mixed linearly.

    Raises:
        ValueError: for fewer than 2 frames, an unknown path, ends without a path between them (see `slerp`), or classes
            that differ in a network that cannot mix them (see `mixed_classes`).

    >>> strip = interpolate(generator, latent(generator, 3), latent(generator, 8), frames=10)
    """
    if frames < 2:
        raise ValueError(f"a path has at least the 2 frames at its ends, got frames={frames}")
    path = generator.config.prior.path if path is None else path
    if path not in PATHS:
        raise ValueError(f"there is no path {path!r}: choose one of {', '.join(PATHS)}")
    t = torch.linspace(0, 1, frames, dtype=torch.float64)
    same = torch.equal(start.z, end.z)  # slerp would refuse equal ends if they are 0
    z = start.z.expand(frames, -1) if same else PATHS[path](start.z, end.z, t)
    parts = []
    for batch in torch.arange(frames).split(BATCH):
        y, other = (None if label is None else torch.full((len(batch),), label) for label in (start.y, end.y))
        parts.append(between(generator, z[batch], y, other, t[batch]))
    return np.concatenate(parts)


def between(
    generator: Generator, z: Tensor, y: Tensor | None, other: Tensor | None, share: Tensor
) -> NDArray[np.uint8]:
    """Images (n, H, W, C) of z (n, z_dim) between classes y and `other` (n,), of which `other` has its share (n,)."""
    if y is None or other is None or torch.equal(y, other):
        return images(generator, z, y)
    if generator.config.styled:  # its mapping reads weights of the classes
        first, second = (F.one_hot(each, generator.spec.num_classes).to(z.dtype) for each in (y, other))
        return images(generator, z, lerp(first, second, share))
    with mixed_classes(generator.net, y, other, share):
        return images(generator, z, y)


@contextmanager
def mixed_classes(net: nn.Module, y: Tensor, other: Tensor, t: Tensor) -> Iterator[None]:
    """Mix classes in the block: G(z, y) reads (1 - t) times the vector of class y plus t times the vector of `other`.

    y, other, t: (N,) each.

    The mixing happens in the output of every layer that is linear in the one-hot class and is called with y: an
    embedding, `OneHot`, the gains and biases of `ConditionalBatchNorm`. The generator is in eval mode.

    Raises:
        ValueError: at the end of the block, if the network has not called such a layer: it reads classes otherwise.
    """
    met = []

    def mix(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
        *h, given = arguments
        if given.shape != y.shape or not torch.equal(given.cpu(), y.cpu()):
            return None  # an embedding of something else
        met.append(module)
        of_other = module.forward(*h, other.to(given.device))
        share = t.to(output.device, output.dtype).reshape(-1, *[1] * (output.ndim - 1))
        mixed: Tensor = (1 - share) * output + share * of_other
        return mixed

    kinds = (OneHot, nn.Embedding, ConditionalBatchNorm)
    hooks = [module.register_forward_hook(mix) for module in net.modules() if isinstance(module, kinds)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    if not met:
        raise ValueError(
            "this network cannot go from class to class: it lacks a layer with a vector for each class (nn.Embedding, "
            "OneHot or ConditionalBatchNorm) that is called with the labels. Choose two images of one class"
        )


# ---- arithmetic ------------------------------------------------------------------------------------------

Groups = Sequence[Sequence[int]]


def mean_latent(generator: Generator, indices: Sequence[int], *, seed: int = 0) -> Tensor:
    """The mean z (z_dim,) of the images `indices`. Raises ValueError without an index, or for an index below 0."""
    if not indices:
        raise ValueError("a mean needs at least one image: name their indices, such as 3,17,8")
    return torch.stack([latent(generator, i, seed=seed).z for i in indices]).mean(0)


def arithmetic(generator: Generator, plus: Groups, minus: Groups = (), *, seed: int = 0) -> Tensor:
    """Sum of the groups' mean z in `plus` minus the mean z in `minus`: (z_dim,) (Radford et al. 2016, fig. 7).

    plus, minus: groups of indices of images that have something in common.

    The mean of three z has a third of a z's variance. So the sum of two such means minus a third is distributed as a z.

    Raises:
        ValueError: without a group in `plus`, for an empty group, or an index below 0.

    >>> z = arithmetic(generator, plus=[[3, 17, 8], [40, 2, 91]], minus=[[5, 60, 33]])
    """
    if not plus:
        raise ValueError("nothing is added: name at least one group of images to start from")
    terms = [mean_latent(generator, group, seed=seed) for group in plus]
    terms += [-mean_latent(generator, group, seed=seed) for group in minus]
    return torch.stack(terms).sum(0)


def arithmetic_grid(
    generator: Generator,
    plus: Groups,
    minus: Groups = (),
    *,
    seed: int = 0,
    label: int | None = None,
    noise: float = 0.25,
) -> tuple[NDArray[np.uint8], int]:
    """The sum as a picture: images (rows·columns, H, W, C), and the number of columns.

    Each group has a row, first the groups of `plus`: its images, a gap, and its mean in the last column. The last row
    shows the result in the last column, after its neighbours: the result plus uniform noise of ±`noise` per component.

    label: class in which the means and the result are shown; None: the class of the first image of `plus`.
    """
    result = arithmetic(generator, plus, minus, seed=seed)
    y = latent(generator, plus[0][0], seed=seed, label=label).y
    groups = [*plus, *minus]
    columns = max(map(len, groups)) + 2
    draws = torch.rand(columns - 2, len(result), generator=torch.Generator().manual_seed(seed))
    rows = [
        [*(latent(generator, i, seed=seed) for i in group), Latent(mean_latent(generator, group, seed=seed), y)]
        for group in groups
    ]
    rows.append([Latent(z, y) for z in (*(result + noise * (2 * draws - 1)), result)])
    made = [pixels(generator, row) for row in rows]
    full = np.zeros((len(rows), columns, *made[0].shape[1:]), np.uint8)
    for place, row in zip(full, made, strict=True):
        place[: len(row) - 1], place[-1] = row[:-1], row[-1]
    return full.reshape(-1, *full.shape[2:]), columns


def pixels(generator: Generator, points: Sequence[Latent]) -> NDArray[np.uint8]:
    """Draw the images (N, H, W, C) of `points`."""
    y = [point.y for point in points if point.y is not None]
    return images(generator, torch.stack([point.z for point in points]), torch.tensor(y) if y else None)
