"""The statistics of a run in groups, and the look of each in a healthy run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from equipoise.augment import ADA
from equipoise.doctor import PREFIX
from equipoise.doctor.symptoms import Collapsed, DeadUnits, Saturated, StepsTooLarge
from equipoise.losses import GANLoss
from equipoise.runs import Run
from equipoise.weights import ExactSpectralNorm, SpectralNorm

from .curves import Band, Chart, Points

__all__ = ["Group", "curve", "groups", "undecided"]


class Group(NamedTuple):
    """A chart with its title, and a sentence or more on how it looks in a healthy run."""

    title: str
    chart: Chart
    healthy: str


def groups(run: Run) -> list[Group]:
    """The charts of a run's statistics. Every statistic is in one of them."""
    names = list(dict.fromkeys(name for line in run.stats for name in line if name not in ("nimg", "kimg")))
    made, left = [], set(names)
    for title, wanted, band, healthy in known_groups(run, names):
        curves = {name: curve(run, name) for name in wanted if name in left}
        if curves:
            made.append(Group(title, Chart(curves, band), healthy))
            left -= curves.keys()
    made += [Group(name, Chart({name: curve(run, name)}), OWN) for name in names if name in left]
    return made


def curve(run: Run, name: str) -> Points:
    """The values of a statistic over kimg."""
    return [(line["kimg"], line[name]) for line in run.stats if name in line]


OWN = "A statistic of your own."


def known_groups(run: Run, names: list[str]) -> Iterator[tuple[str, list[str], Band | None, str]]:
    """Title, names of statistics, band and sentences of each group that the library knows."""
    cfg = run.config
    yield from measures(run, names)
    yield ("Losses", ["D/loss", "G/loss"], level_of_loss(run), losses(cfg.loss))
    yield ("Logits", ["D/real", "D/fake", "D/held_out", "D/wasserstein"], None, LOGITS)
    if cfg.loss.signed:
        target = cfg.augment.target if isinstance(cfg.augment, ADA) else None
        band = None if target is None else Band(target - 0.1, target + 0.1, f"ADA holds it at {target:g}")
        yield ("Verdict on real images", ["D/sign_real"], band, SIGN)
    yield ("Augmentation", [name for name in names if name.startswith("augment/")], None, AUGMENT)
    yield ("Accuracy of classes", ["D/accuracy"], Band(1, 1, "all right"), ACCURACY)
    yield ("Updates of D", ["D/steps"], None, "Few updates: D converges at once. At its limit: D does not converge.")
    norms = [name for name in names if name.startswith("D/sigma/")]
    held = isinstance(cfg.d_normalizer, SpectralNorm | ExactSpectralNorm)
    yield ("Spectral norms of D's layers", norms, Band(1, 1, "normalised") if held else None, NORMS)
    yield ("Lipschitz bound of D's features", ["D/lipschitz"], None, LIPSCHITZ)
    for name in names:
        if name[:2] in ("D/", "G/") and name.partition("/")[2] in {type(term).__name__ for term in cfg.terms}:
            yield (f"{name[2:]} of {name[0]}", [name], None, TERM)
    yield from of_doctor(names)
    yield ("Speed: images per second", ["images_per_second"], None, SPEED)


LOGITS = (
    "D/real stays above D/fake, by a gap that is steady or shrinks. A gap that grows without end: D wins; lower "
    "d_optim.lr or strengthen a penalty. D/held_out near D/fake: D knows the training images; augment, or add data."
)
SIGN = (
    "The mean sign of D's logits on real images. 0: D cannot tell. It is above 0 in a healthy run and short of 1: at 1 "
    "D calls every training image real, because it has learned them or because generated images are still far off."
)
AUGMENT = (
    "The strength p settles below 1, while the measure r of overfitting stays near its target. A p that keeps rising: "
    "too few images for this D."
)
ACCURACY = "It rises, then stays: D names the classes of real images."
NORMS = (
    "Steady. Of layers with spectral normalisation each is 1. Growth without end comes before a collapse (Miyato et "
    "al. 2018)."
)
LIPSCHITZ = "Steady. Growth without end: D becomes steeper than its penalties hold."
TERM = "Unweighted. It falls early and then stays level; steady growth says that its weight is too small."
SPEED = "Level. Drops come from a busy machine, from evaluations, or from larger images where the run grows them."


def of_doctor(names: list[str]) -> Iterator[tuple[str, list[str], Band | None, str]]:
    """The doctor's measurements, and the course of symptoms. Bands are the thresholds of the symptoms."""
    limit = Collapsed().diversity
    yield ("Diversity of G's images", ["doctor/diversity"], Band(limit, 1.5, "of the data's diversity"), DIVERSITY)
    kinds = ["doctor/coverage", "doctor/precision", "doctor/duplicates", "doctor/data_duplicates"]
    yield ("Nearness to the data", kinds, None, NEARNESS)
    yield ("Verdicts of D", ["doctor/right"], Band(0.5, 0.5, "D cannot tell"), RIGHT)
    yield ("Gradient of G's loss at its images", ["doctor/grad_G"], None, "Steady. A fall towards 0: G learns nothing.")
    yield ("Images without a gradient", ["doctor/flat"], Band(0, Saturated().share, "G learns"), FLAT)
    steps = [f"doctor/{when}step_{player}" for when in ("", "first_") for player in "DG"]
    yield ("Step over weight, median layer", steps, Band(0, StepsTooLarge().ratio, "no layer is thrown about"), STEPS)
    dead = ["doctor/dead_D", "doctor/dead_G"]
    yield ("Dead units of the worst layer", dead, Band(0, DeadUnits().share, "alive"), "Near 0, and not rising.")
    yield ("Effect of the class", ["doctor/class_effect"], None, "Change by class over change by z. Near 0: ignored.")
    yield ("Passes over the data", ["doctor/epochs"], None, "A straight line.")
    yield ("Content of the data", [name for name in names if name.startswith("doctor/data_")], None, CONTENT)
    symptoms = [name for name in names if name.startswith(PREFIX)]
    yield ("Symptoms: 1 where one begins, 0 where it ends", symptoms, None, "None in a healthy run.")


DIVERSITY = (
    "Mean distance between generated images over the same of real images. It rises from near 0 at the start to 0.7 "
    "to 1.2 and stays. A fall: G makes fewer kinds of images."
)
NEARNESS = (
    "Coverage, the share of real images with a generated one nearby, and precision, the reverse, rise. They are "
    "measured on a few pixels of a few images: compare them within a run. Near-duplicates are as rare as in the data."
)
RIGHT = "P(D(x) > D(G(z))). Between 0.5 and 0.95, mostly. At 1 D is always right."
FLAT = "Near 0. Losses that saturate lose images where D is sure."
STEPS = "A hundredth or less, falling slowly. The same for both players within a factor of ten."
CONTENT = "Shares of constant images and of copies, range of values, classes without images. It does not change."


def measures(run: Run, names: list[str]) -> Iterator[tuple[str, list[str], Band | None, str]]:
    """A chart for each number of the evaluations, with its best value."""
    settings = run.config.report.evaluation
    better = {} if settings is None else settings.better
    for name in names:
        if not name.startswith("eval/"):
            continue
        short, points = name.removeprefix("eval/"), curve(run, name)
        way = better.get(short)
        if way is None:
            yield (short, [name], None, "An evaluation.")
            continue
        kimg, value = (min if way == "lower" else max)(points, key=lambda point: point[1])
        falls = "It falls" if way == "lower" else "It rises"
        text = f"{falls}, fast at first; {way} is better. Best: {value:.4g} at {kimg:g} kimg."
        yield (short, [name], Band(value, value, f"best {value:.4g}"), text)


def undecided(loss: GANLoss) -> tuple[float, float]:
    """Losses of a D that gives all images one logit, the best for D, and of its G: (D's loss, G's loss)."""
    logits = torch.linspace(-3, 3, 601)
    logits = logits[logits.abs().argsort(stable=True)]  # of equally good logits, the one nearest 0
    values = loss.d(logits, logits)
    best = logits[int((values - values.min() < 1e-6).int().argmax())][None]
    return float(loss.d(best, best)), float(loss.g(best, best))


def level_of_loss(run: Run) -> Band | None:
    """D's loss if it cannot tell; None where the loss holds more than verdicts, or never settles."""
    cfg = run.config
    if cfg.head.conditioning.classifies is not None or cfg.loss.estimates is not None:
        return None
    value, _ = undecided(cfg.loss)
    return Band(value, value, f"D cannot tell: {value:.3g}")


def losses(loss: GANLoss) -> str:
    """Words for the losses."""
    if loss.estimates is not None:
        return (
            "D's loss is minus an estimate of a distance, plus terms: it dips early and rises towards 0 as images "
            "improve. G's loss has no level of its own. A dip that deepens without end: nothing bounds D."
        )
    return (
        "Both wander without a trend after the start; a GAN's loss need not fall. D's loss below the dashed line: D "
        "finds differences, and G can learn. D's loss that stays far below it while G's climbs: D has won, and "
        "images stop improving."
    )
