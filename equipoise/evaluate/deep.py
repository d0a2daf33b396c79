"""Expensive evidence for the doctor: feature metrics, nearest training images, norm statistics, content of the data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.data import Dataset, hold_out, to_float
from equipoise.doctor.dataset import of_images
from equipoise.doctor.measures import misfit_of_norms
from equipoise.doctor.nearness import flattened
from equipoise.generate import Generator, draw_latents
from equipoise.generate.generator import sample_classes
from equipoise.runs import Run, own_features

from .evaluator import evaluate

__all__ = ["deep_facts"]

NUM = 2000
"""Images that are drawn."""
AGAINST = 5000
"""Most training images among which neighbours are looked for."""
CONTENT = 10_000
"""Most images whose content is looked at."""
ASKED = 500
"""Most images whose neighbours are looked for."""


def deep_facts(
    run: Run,
    generator: Generator | None,
    *,
    num: int = NUM,
    features: str | None = None,
    weights: str | Path | None = None,
) -> Mapping[str, float]:
    """Facts about a run's generator and data, by name. Minutes for large images.

    deep/precision, deep/recall: on a feature network.
    deep/to_training: median distance of a generated image to its nearest training image.
    deep/held_out_to_training: the same of real images: held-out ones, or else each training image to the others.
    deep/norms: largest misfit of a batch norm's statistics.

    generator: the run's; None: the run has none yet, and only its data are looked at.
    num: number of images to draw.
    features: the feature network; None: the digits' own for digits, else inception.
    weights: file of its weights; None: the cache.

    Raises:
        ValueError: if the data or the feature network are missing.
    """
    training, held_out = hold_out(run.config.data.build(), run.config.augment.held_out)
    facts = dict(of_images(training, CONTENT))
    if generator is None:
        return facts
    facts |= neighbours(generator, training, held_out, min(num, ASKED))
    facts |= norms(generator)
    found = evaluate(
        run.folder,
        run.config.data,
        metrics="pr",
        num=min(num, max(len(training), 2)),
        features=features or own_features(run.config),
        weights=weights,
    )
    return facts | {f"deep/{name}": number.value for name, number in found.numbers.items()}


def neighbours(generator: Generator, training: Dataset, held_out: Dataset | None, num: int) -> Mapping[str, float]:
    """Distances of generated and of other real images to the nearest training image, by pixels of small images."""
    chosen = np.linspace(0, len(training) - 1, min(len(training), AGAINST)).astype(np.int64)
    known = vectors(training.read(chosen))
    made = vectors(generator.sample(num).transpose(0, 3, 1, 2))
    if held_out is None:
        asked = known[:: max(1, len(known) // num)]
        others = torch.cdist(asked, known).topk(2, largest=False).values[:, 1]  # the first is the image itself
    else:
        rest = np.linspace(0, len(held_out) - 1, min(len(held_out), num)).astype(np.int64)
        others = torch.cdist(vectors(held_out.read(rest)), known).amin(1)
    return {
        "deep/to_training": float(torch.cdist(made, known).amin(1).median()),
        "deep/held_out_to_training": float(others.median()),
    }


def vectors(pixels: NDArray[np.uint8]) -> Tensor:
    """(N, C, H, W) -> (N, F), images made small."""
    return flattened(to_float(torch.from_numpy(np.ascontiguousarray(pixels))))


@torch.no_grad()
def norms(generator: Generator, num: int = 256) -> Mapping[str, float]:
    """The largest misfit of a batch norm of the generator; empty without batch norms."""
    z, y = draw_latents(generator, num), sample_classes(generator, num, None)
    device = next(generator.net.parameters()).device
    with misfit_of_norms(generator.net) as misfits:
        generator.net(z.to(device), None if y is None else y.to(device))
    return {"deep/norms": float(torch.stack(list(misfits.values())).amax())} if misfits else {}
