"""Metrics of points on a plane or a line: against the modes of a mixture, or against real points."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equipoise.core.extras import install
from equipoise.data import Mixture

__all__ = ["high_quality", "kl_to_uniform", "modes_covered", "transport", "wasserstein"]


def modes_covered(mixture: Mixture, x: Tensor, *, within: float = 3.0) -> int:
    """Number of modes with at least one high-quality point (Srivastava et al. 2017, VEEGAN, on 2,500 points).

    x: (N, dim).
    within: largest distance of a high-quality point from its mode, in standard deviations.
    """
    return int((mixture.counts(x, within) > 0).sum())


def high_quality(mixture: Mixture, x: Tensor, *, within: float = 3.0) -> float:
    """The fraction of points that lie within `within` standard deviations of a mode (Srivastava et al. 2017, VEEGAN).

    Points of the mixture itself reach only 1 - exp(-within²/2) in two dimensions: 0.989 for three.
    """
    return int(mixture.counts(x, within).sum()) / len(x)


def kl_to_uniform(mixture: Mixture, x: Tensor, *, within: float = 3.0) -> float:
    """KL(q ‖ 1/M) = Σ_k q_k log(M q_k), in nats, q the shares of the M modes in the high-quality points.

    It is 0 if all modes have equal shares, and log M, the largest value, if one mode has all points. A mode without
    points adds 0. Without any high-quality point it is log M too. N points of a `Ring` or `Grid` itself have about
    (M - 1) / 2N.
    """
    counts = mixture.counts(x, within).double()
    if counts.sum() == 0:
        return math.log(len(counts))
    q = counts / counts.sum()
    return float(torch.special.xlogy(q, len(q) * q).sum())


def wasserstein(x: Tensor, y: Tensor) -> float:
    """W_1 = min over pairings of the mean of ‖x_i - y_σ(i)‖, the earth mover's distance, exact for these points.

    x, y: (N, d) both. Two samples of one distribution do not have distance 0: compare with two real samples.

    Raises:
        ValueError: for NaN or Inf, other shapes, or d > 1 without scipy.

    >>> wasserstein(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [2.0]]))
    2.0
    """
    partners = y.detach()[transport(x, y).to(y.device)]
    return float((x.detach().double() - partners.double()).norm(dim=1).mean())


def transport(x: Tensor, y: Tensor) -> Tensor:
    """The optimal pairing in `wasserstein`: y[transport(x, y)] are the partners of x. (N,) int64, on the CPU.

    It sorts if d = 1, else solves a linear assignment (Crouse 2016), whose time grows as N³: about a second for 2,000.

    Raises:
        ValueError: as `wasserstein`.
    """
    if x.shape != y.shape or x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"expected two sets of points of equal shape (N, d), got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    x, y = (points.detach().cpu().double() for points in (x, y))
    bad = int((~torch.cat([x, y]).isfinite()).any(dim=1).sum())
    if bad:
        raise ValueError(f"{bad} of {2 * len(x)} points hold NaN or Inf: their distances are undefined")
    if x.shape[1] == 1:
        partner = torch.empty(len(x), dtype=torch.int64)
        partner[x[:, 0].argsort()] = y[:, 0].argsort()
        return partner
    try:
        from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError(f"distances in more than one dimension need scipy: {install('lab')}") from error
    # not by the matrix product ‖x‖² - 2 <x, y> + ‖y‖², which loses small distances in rounding
    costs = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.from_numpy(linear_sum_assignment(costs.numpy())[1])
