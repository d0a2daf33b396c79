"""Points of a plane or a line beside the distribution that they should have."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equipoise.data import Mixture

__all__ = ["high_quality", "kl_to_uniform", "modes_covered", "transport", "wasserstein"]


def modes_covered(mixture: Mixture, x: Tensor, *, within: float = 3.0) -> int:
    """How many modes have at least one high-quality point (Srivastava et al. 2017, VEEGAN, on 2,500 points).

    x: (N, dim).  within: how many standard deviations from its mode a high-quality point may be.
    """
    return int((mixture.counts(x, within) > 0).sum())


def high_quality(mixture: Mixture, x: Tensor, *, within: float = 3.0) -> float:
    """The fraction of points that lie within `within` standard deviations of a mode (Srivastava et al. 2017, VEEGAN).

    Points of the mixture itself do not reach 1, but 1 - exp(-within²/2) in two dimensions: 0.989 for three.
    """
    return int(mixture.counts(x, within).sum()) / len(x)


def kl_to_uniform(mixture: Mixture, x: Tensor, *, within: float = 3.0) -> float:
    """KL(q ‖ 1/M) = Σ_k q_k log(M q_k), in nats, q the shares of the M modes in the high-quality points.

    0 if each mode has as many, log M if one has all; a mode without points adds 0. Where no point is of high quality,
    log M too, the largest value. N points of a `Ring` or `Grid` itself have about (M - 1) / 2N.
    """
    counts = mixture.counts(x, within).double()
    if counts.sum() == 0:
        return math.log(len(counts))
    q = counts / counts.sum()
    return float(torch.special.xlogy(q, len(q) * q).sum())


def wasserstein(x: Tensor, y: Tensor) -> float:
    """W_1 = min over pairings of the mean of ‖x_i - y_σ(i)‖, the earth mover's distance, exact for these points.

    x, y: (N, d) both. Two samples of one distribution are not at 0: compare with the distance of two real samples.

    Raises:
        ValueError: for NaN or Inf, other shapes, or d > 1 without scipy.

    >>> wasserstein(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [2.0]]))
    2.0
    """
    partners = y.detach()[transport(x, y).to(y.device)]
    return float((x.detach().double() - partners.double()).norm(dim=1).mean())


def transport(x: Tensor, y: Tensor) -> Tensor:
    """The pairing that `wasserstein` is the cost of: y[transport(x, y)] are the partners of x. (N,) int64, on the CPU.

    By sorting if d = 1, else by linear assignment (Crouse 2016), whose time grows as N³: a second or so for 2,000.

    Raises:
        ValueError: as `wasserstein`.
    """
    if x.shape != y.shape or x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"expected as many points of as many dimensions, (N, d), got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    x, y = (points.detach().cpu().double() for points in (x, y))
    bad = int((~torch.cat([x, y]).isfinite()).any(dim=1).sum())
    if bad:
        raise ValueError(f"{bad} of {2 * len(x)} points hold NaN or Inf: there is no distance to them")
    if x.shape[1] == 1:
        partner = torch.empty(len(x), dtype=torch.int64)
        partner[x[:, 0].argsort()] = y[:, 0].argsort()
        return partner
    try:
        from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError("distances in more than one dimension need scipy: pip install 'equipoise[lab]'") from error
    # not by the matrix product ‖x‖² - 2 <x, y> + ‖y‖², which loses the distances of close points
    costs = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.from_numpy(linear_sum_assignment(costs.numpy())[1])
