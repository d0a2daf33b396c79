"""Sets that fool Parzen windows, the Inception Score and the Fréchet distance (Theis et al. 2016; Barratt & Sharma)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field

from equipoise.core.plots import COLORS, Axes, Figure, Picture, figure
from equipoise.core.randomness import Purpose, stream
from equipoise.core.types import component
from equipoise.data import Digits, to_float, to_uint8
from equipoise.metrics import (
    DigitsJudge,
    GaussianStats,
    digits_judge,
    frechet_distance,
    inception_score,
    judge_features,
    parzen_bandwidth,
    parzen_log_likelihood,
)

from ..base import Experiment, Numbers, Table

__all__ = ["Fooling", "bias", "centroids", "faint_noise", "fooled", "sure_noise", "with_moments"]

Images = NDArray[np.uint8]
"""(N, 28, 28, 1)."""
Array = NDArray[np.float64]

SETS = 4
"""Number of sets of honest samples. The training digits have the size of all these sets together."""
VALIDATION, TEST = 500, 1000
"""Digits that choose Parzen's bandwidth, and digits that it is measured on."""
BANDWIDTHS = np.geomspace(0.1, 1, 16)
MISSING = 8
FAINT = 8
"""Faint noise, in grey levels of 255."""
TRIES, STEP = 8, 0.04
"""Noise images to start from for each class, as some lack a gradient, and a pixel's step, for pixels in [-1, 1]."""
SHOWN = 8

HONEST, TRAINING, MIRRORED, VECTORS = "held-out digits", "training digits", "a quarter mirrored", "Gaussian features"
SEEN: Mapping[str, str] = {
    HONEST: "digits",
    TRAINING: "copies of digits",
    "k-means centroids": "blurred digits",
    "a quarter blurred": "digits, some blurred",
    "one image per class": "ten digits, repeated",
    "noise": "ten noises, repeated",
    "no eights": "digits, never an eight",
    MIRRORED: "digits, some mirrored",
    "faint noise": "digits",
    VECTORS: "nothing, no images",
}
"""Sets of samples, and what a person sees in them."""


class Measure(NamedTuple):
    """A measure of samples. sign: 1 if more is better, else -1.  form: number format.  ends: limits of its plot."""

    title: str
    sign: int
    form: str
    ends: tuple[float, float]


MEASURES: Mapping[str, Measure] = {
    "parzen": Measure("Parzen, nats", 1, ".0f", (-250, 280)),
    "inception": Measure("Inception Score", 1, ".2f", (1, 10)),
    "frechet": Measure("Fréchet distance", -1, ".2f", (0.05, 200)),
}


@component
class Fooling(Experiment):
    """How Parzen windows, the Inception Score and the Fréchet distance are fooled.

    Sets of equal size are measured as if a generator had made them. The judge of digits stands in for Inception: its
    features are compared with the features of training digits. Parzen's log-likelihood is taken on test digits. Four
    sets are honest: held-out digits. The others are cheats:

    - Training digits. Nothing tells them from new digits, and they are nearest by the Fréchet distance.
    - k-means centroids of training digits, and blur. Parzen prefers them to digits (Theis et al. 2016, table 1).
    - One image per class, and noise that the judge is sure of. Their Inception Score is the highest (Barratt & Sharma
      2018).
    - Gaussian vectors in the place of features, with the mean and covariance of the digits' features. Their Fréchet
      distance is 0.
    - Noise that nobody sees. It moves the Fréchet distance further than mirrored digits do.

    A set fools a measure if it does no worse than the worst honest set.

    The second figure shows the Fréchet distance over the number of samples, with the `bias` that theory predicts for
    Gaussians.

    samples: samples in a set.  steps: most steps of k-means, and steps of the search for noise.
    """

    samples: int = Field(default=1000, ge=100, le=1000)
    steps: int = Field(default=30, ge=1)
    seed: int = Field(default=0, ge=0)

    def run(self) -> Numbers:
        data, random = Digits().build(), stream(self.seed, Purpose.SAMPLES)
        judge = digits_judge()
        order = torch.randperm(len(data), generator=random).numpy()
        half = SETS * self.samples
        parts = np.split(order, np.cumsum([half, half, VALIDATION, TEST]))[:4]
        train, fresh, validation, test = (data.read(part).transpose(0, 2, 3, 1) for part in parts)
        train_features, fresh_features = judge_features(judge, train), judge_features(judge, fresh)
        reference = GaussianStats(train_features)
        assert data.labels is not None

        def by_features(h: Array) -> dict[str, float]:
            return {"inception": inception_score(probabilities(judge, h))[0], "frechet": frechet_distance(reference, h)}

        def by_images(images: Images) -> dict[str, float]:
            x = in_unit_cube(images)
            sigma = parzen_bandwidth(x, in_unit_cube(validation), BANDWIDTHS)
            parzen = parzen_log_likelihood(x, in_unit_cube(test), bandwidth=sigma).mean()
            return {"parzen": float(parzen), "bandwidth": sigma, **by_features(judge_features(judge, images))}

        samples, shape = fresh[: self.samples], (self.samples, *fresh.shape[1:])
        surest = train[probabilities(judge, train_features).argmax(axis=0)]  # one of each class
        gaussian = with_moments(reference, self.samples, random)
        cheats = {
            TRAINING: train[: self.samples],
            "k-means centroids": centroids(train, self.samples, steps=self.steps),
            "a quarter blurred": every_fourth(blurred(samples), samples),
            "one image per class": np.resize(surest, shape),
            "noise": np.resize(sure_noise(judge, random, steps=self.steps), shape),
            "no eights": fresh[data.labels[parts[1]] != MISSING][: self.samples],
            MIRRORED: every_fourth(samples[:, :, ::-1], samples),
            "faint noise": faint_noise(judge, samples),
        }
        return {
            "honest": [by_images(images) for images in np.split(fresh, SETS)],
            "cheats": {name: by_images(images) for name, images in cheats.items()} | {VECTORS: by_features(gaussian)},
            "images": {name: images[:SHOWN, ..., 0] for name, images in {HONEST: samples, **cheats}.items()},
            "reference": reference.count,
            "bias": bias(reference.covariance),
            "by_number": {
                HONEST: by_number(reference, fresh_features),
                TRAINING: by_number(reference, train_features),
            },
            "features": {
                HONEST: in_plane(reference, fresh_features[: self.samples]),
                VECTORS: in_plane(reference, gaussian),
            },
        }

    def table(self, numbers: Numbers) -> Table:
        rows = [
            [name, *(text(numbers, name, key, " (fooled)") for key in MEASURES), seen] for name, seen in SEEN.items()
        ]
        return Table(["samples", *(measure.title for measure in MEASURES.values()), "a person sees"], rows)

    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        return {"fooling": draw_measures(numbers), "fooling_frechet": draw_frechet(numbers)}


BLOCK = 5000
"""Images whose distances to all centroids are in memory at a time."""

# ---- cheats ----------------------------------------------------------------------------------------------


def centroids(images: Images, count: int, *, steps: int) -> Images:
    """Centroids of k-means (Lloyd's algorithm), started at the first images. A centroid without images stays."""
    x = torch.from_numpy(images).flatten(1).float()  # (N, F)
    centers = x[:count]
    for _ in range(steps):
        norms = centers.square().sum(1)
        nearest = torch.cat([(norms - 2 * part @ centers.T).argmin(1) for part in x.split(BLOCK)])  # ‖x - c‖² - ‖x‖²
        sizes = nearest.bincount(minlength=count).unsqueeze(1)
        sums = torch.zeros_like(centers).index_add_(0, nearest, x)
        before, centers = centers, torch.where(sizes > 0, sums / sizes.clamp_min(1), centers)
        if torch.equal(before, centers):
            break
    return centers.round().to(torch.uint8).view(-1, *images.shape[1:]).numpy()


def sure_noise(judge: DigitsJudge, random: torch.Generator, *, steps: int) -> Images:
    """Noise that the judge takes for digits, one image per class: uniform at first, moved by signs of gradients."""
    y = torch.arange(judge.head.out_features).repeat(TRIES)
    x = torch.rand(len(y), 1, 28, 28, generator=random) * 2 - 1
    for _ in range(steps):
        x.requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(judge(x), y, reduction="sum"), x)
        x = (x.detach() - STEP * slope.sign()).clamp(-1, 1)
    sure = judge(x).softmax(1).gather(1, y.unsqueeze(1)).view(TRIES, -1)  # (tries, classes)
    classes = torch.arange(sure.shape[1])
    return to_uint8(x.view(TRIES, -1, 28, 28, 1)[sure.argmax(0), classes]).numpy()


def faint_noise(judge: DigitsJudge, images: Images) -> Images:
    """Move each pixel by ±`FAINT`, with the sign that makes features smaller (the signs of Goodfellow et al. 2015)."""
    x = as_input(images).requires_grad_()
    (slope,) = torch.autograd.grad(judge.features(x).sum(), x)
    return as_images(x.detach() - FAINT / 127.5 * slope.sign())


def blurred(images: Images) -> Images:
    """Blur images by means over 5x5 pixels."""
    black = F.pad(as_input(images), (2, 2, 2, 2), value=-1)
    return as_images(F.avg_pool2d(black, kernel_size=5, stride=1))


def every_fourth(changed: Images, images: Images) -> Images:
    """`images`, with every fourth image taken from `changed`."""
    return np.where(np.arange(len(images))[:, None, None, None] % 4 == 1, changed, images)


def with_moments(stats: GaussianStats, count: int, random: torch.Generator) -> Array:
    """Gaussian vectors (count, F), count > F, with exactly the mean and covariance in `stats`."""
    x = torch.randn(count, len(stats.mean), dtype=torch.float64, generator=random).numpy()
    white = np.linalg.qr(x - x.mean(axis=0))[0] * np.sqrt(count - 1)
    values, vectors = np.linalg.eigh(stats.covariance)
    return np.asarray(stats.mean + white * np.sqrt(values.clip(min=0)) @ vectors.T)


# ---- what is measured ------------------------------------------------------------------------------------


def bias(covariance: Array) -> float:
    """The b of E d = b (1/N + 1/M), d the Fréchet distance of N and M samples of one Gaussian, F << N, M; C (F, F).

    The means differ by (1/N + 1/M) Tr C. The covariances differ by E. With eigenvalues λ of C, their distance is
    Σ_ij E_ij² / 2(λ_i + λ_j) to second order, with E[E_ij²] = (1/N + 1/M) (1 + δ_ij) λ_i λ_j.
    """
    values = np.linalg.eigvalsh(covariance)
    values = values[values > 1e-9 * values.max()]
    products = np.outer(values, values) * (1 + np.eye(len(values)))
    return float(values.sum() + (products / np.add.outer(values, values)).sum() / 2)


def by_number(reference: GaussianStats, features: Array) -> dict[str, list[float]]:
    """The Fréchet distance of all features, of halves, quarters, ...: sizes, and the mean distance for each size."""
    curve: dict[str, list[float]] = {"samples": [], "frechet": []}
    for k in range(6):
        parts = np.array_split(features, 2**k)
        curve["samples"].append(len(features) / 2**k)
        curve["frechet"].append(float(np.mean([frechet_distance(reference, part) for part in parts])))
    return curve


def in_plane(reference: GaussianStats, features: Array) -> Array:
    """Features (N, F) -> (N, 2), their coordinates along the two widest directions of the reference."""
    widest = np.linalg.eigh(reference.covariance)[1][:, :-3:-1]
    return np.asarray((features - reference.mean) @ widest)


@torch.no_grad()
def probabilities(judge: DigitsJudge, features: Array) -> Array:
    """Class probabilities from the judge's last layer, (N, F) -> (N, K)."""
    p: Array = judge.head(torch.from_numpy(features).float()).double().softmax(1).numpy()
    return p


def in_unit_cube(images: Images) -> Array:
    """Images as vectors (N, F) of pixels in [0, 1]."""
    return images.reshape(len(images), -1) / 255


def as_input(images: Images) -> torch.Tensor:
    return to_float(torch.from_numpy(images)).permute(0, 3, 1, 2)


def as_images(x: torch.Tensor) -> Images:
    return to_uint8(x).permute(0, 2, 3, 1).numpy()


def honest(numbers: Numbers, key: str) -> list[float]:
    """Values of the honest sets, in ascending order."""
    return sorted(measured[key] for measured in numbers["honest"])


def fooled(numbers: Numbers, name: str, key: str) -> bool:
    """Whether a cheat does no worse than the worst honest set."""
    value, values = numbers["cheats"][name][key], honest(numbers, key)
    return bool(value >= values[0] if MEASURES[key].sign > 0 else value <= values[-1])


def text(numbers: Numbers, name: str, key: str, mark: str = "") -> str:
    """The value of a measure on a set, as text, followed by `mark` if the set fools the measure."""
    form = MEASURES[key].form
    if name == HONEST:
        values = honest(numbers, key)
        return f"{values[0]:{form}} to {values[-1]:{form}}"
    if key not in numbers["cheats"][name]:
        return "-"
    return f"{numbers['cheats'][name][key]:{form}}{mark if fooled(numbers, name, key) else ''}"


# ---- figures ---------------------------------------------------------------------------------------------


def draw_measures(numbers: Numbers) -> Figure:
    """Draw a row for each set: some of its images, and a bar for each measure."""
    fig, (strips, *plots) = figure(1, 1 + len(MEASURES), width=3.4, height=5.4)
    fig.suptitle("A measure is fooled (red) where a cheat does no worse than honest samples (blue)")
    rows = range(len(SEEN))
    strips.set(title="samples", xlim=(0, SHOWN), ylim=(len(SEEN) - 0.5, -0.5), xticks=[])
    strips.set_yticks(rows, [f"{name}\na person sees {seen}" for name, seen in SEEN.items()], fontsize="small")
    strips.spines[:].set_visible(False)
    strips.tick_params(length=0)
    for row, name in zip(rows, SEEN, strict=True):
        if name in numbers["images"]:
            strip = np.concatenate(list(numbers["images"][name]), axis=1)  # (SHOWN, 28, 28) -> (28, 28 SHOWN)
            place = (0, SHOWN, row + 0.45, row - 0.45)
            strips.imshow(strip, cmap="gray", vmin=0, vmax=255, extent=place, aspect="auto")
    for ax, key in zip(plots, MEASURES, strict=True):
        draw_bars(ax, numbers, key)
    return fig


def draw_bars(ax: Axes, numbers: Numbers, key: str) -> None:
    """Draw a measure's bars, with the numbers beside them, and a band for the honest sets."""
    measure, values = MEASURES[key], honest(numbers, key)
    better = "more" if measure.sign > 0 else "less"
    ax.set(title=f"{measure.title}: {better} is better", xlim=measure.ends, ylim=(len(SEEN) - 0.5, -0.5), yticks=[])
    if key == "frechet":
        ax.set_xscale("log")
    ax.axvspan(values[0], values[-1], color=COLORS[0], alpha=0.35, lw=0)
    start = max(0, measure.ends[0])
    for row, name in enumerate(SEEN):
        if name == HONEST:
            value, color = np.mean(values), COLORS[0]
        elif key in numbers["cheats"][name]:
            value, color = numbers["cheats"][name][key], COLORS[1 if fooled(numbers, name, key) else 6]
        else:
            continue
        ax.barh(row, value - start, left=start, height=0.6, color=color)
        beside = ax.get_yaxis_transform()
        ax.text(1.02, row, text(numbers, name, key), va="center", transform=beside, color=color, fontsize="small")


def draw_frechet(numbers: Numbers) -> Figure:
    """Draw the distance over the number of samples, and the features of two sets in a plane."""
    fig, (curve, *planes) = figure(1, 3, width=4, height=3.6)
    for (name, measured), color, sign in zip(numbers["by_number"].items(), COLORS, (1, -1), strict=False):
        curve.plot(measured["samples"], measured["frechet"], "o", color=color, label=name)
        n = np.geomspace(measured["samples"][-1], 0.999 * measured["samples"][0], 300)
        curve.plot(n, numbers["bias"] * (1 / n + sign / numbers["reference"]), "--", color=color, lw=1)
    mirrored = numbers["cheats"][MIRRORED]["frechet"]
    size = numbers["by_number"][HONEST]["samples"]
    curve.axhline(mirrored, color=COLORS[6], lw=1, label=f"{MIRRORED}, {size[0] / SETS:g} samples")
    curve.set(title="fewer samples, larger distance (dashed: theory)", xlabel="samples", xscale="log", yscale="log")
    curve.set(ylim=(0.03, 20), xticks=[], yticks=[])
    curve.set_xticks(size, [f"{n:g}" for n in size])
    curve.set_yticks([0.1, 1, 10], ["0.1", "1", "10"])
    curve.minorticks_off()
    curve.legend(frameon=False, fontsize="small", loc="lower left")
    reach = 1.05 * max(np.abs(points).max() for points in numbers["features"].values())
    for ax, color, (name, points) in zip(planes, COLORS, numbers["features"].items(), strict=False):
        ax.plot(*np.asarray(points).T, ".", ms=3, color=color)
        distance = numbers["honest"][0] if name == HONEST else numbers["cheats"][name]
        ax.set(title=f"features of {name}" if name == HONEST else name, xlim=(-reach, reach), ylim=(-reach, reach))
        ax.set(xlabel=f"Fréchet distance {distance['frechet']:.2f}", xticks=[], yticks=[])
    return fig
