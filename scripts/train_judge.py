"""Train the judge of digits on the bundled digits, and write its weights into the package.

    python scripts/train_judge.py [--test path/to/mnist.npz]

A classifier that has seen only digits is as sure of noise as of a digit, so it cannot judge generated images. This one
also learns that the average of two digits is half of each, and that noise could be anything.

--test prints how the new judge does on MNIST's test set (arrays x_test, y_test), and how sure it is of averages of
two test digits and of uniform noise.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from numpy.typing import NDArray
from rich.progress import track
from safetensors.torch import save
from torch import Tensor

from equipoise.core.files import replace_file
from equipoise.data import Digits, to_float
from equipoise.metrics import DigitsJudge, class_agreement, class_probabilities, mean_top_probability
from equipoise.metrics.judge import WEIGHTS

PATH = Path(__file__).parents[1] / "equipoise" / "metrics" / WEIGHTS
EPOCHS, BATCH, LR = 25, 100, 2e-3
ODD = 40  # counterexamples added to each batch


def augment(x: Tensor) -> Tensor:
    """Rotate by up to 0.2 radians, scale and stretch by up to 10 %, shift by up to 2 pixels; x (N, 1, H, W)."""
    n = len(x)
    angle = torch.empty(n).uniform_(-0.2, 0.2)
    scale = torch.empty(n, 2, 1).uniform_(0.9, 1.1)
    shift = torch.empty(n, 2, 1).uniform_(-2, 2) * 2 / x.shape[-1]  # pixels to grid_sample's units
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)  # (N, 2, 2)
    grid = F.affine_grid(torch.cat([scale * rotation, shift], 2), list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1  # pixels from outside are black, -1


def counterexamples(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Averages of two digits, and noise of several grain sizes: (n, 1, H, W), (n, K) -> n new images and targets."""
    half = len(x) // 2
    grain = int(torch.randint(1, 8, ()))  # pixels
    size = math.ceil(x.shape[-1] / grain)
    noise = F.interpolate(torch.rand(len(x) - half, 1, size, size) * 2 - 1, size=x.shape[-2:], mode="bilinear")
    blends, shares = (x + x.roll(1, 0))[:half] / 2, (p + p.roll(1, 0))[:half] / 2
    return torch.cat([blends, noise]), torch.cat([shares, torch.full_like(p[half:], 1 / p.shape[1])])


def fit(x: Tensor, y: Tensor) -> DigitsJudge:
    """Train the judge by cross-entropy with AdamW under a cosine; x (N, 1, 28, 28) in [-1, 1], y (N,)."""
    torch.manual_seed(0)
    judge = DigitsJudge()
    p = F.one_hot(y).float()
    steps = EPOCHS * (len(x) // BATCH)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=LR, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    for _ in track(range(EPOCHS), "training"):
        for batch in torch.randperm(len(x)).split(BATCH):
            images, targets = augment(x[batch]), p[batch]
            odd_images, odd_targets = counterexamples(images[:ODD], targets[:ODD])
            optimizer.zero_grad()
            logits = judge(torch.cat([images, odd_images]))
            F.cross_entropy(logits, torch.cat([targets, odd_targets])).backward()
            optimizer.step()
            schedule.step()
    return judge.eval()


def report(judge: DigitsJudge, x: NDArray[np.uint8], y: NDArray[np.uint8]) -> None:
    """Print accuracy and mean top probabilities, for test digits x (N, 28, 28) of classes y (N,)."""
    rng = np.random.default_rng(0)
    partner = rng.permutation(len(x))
    different = y != y[partner]
    sets = {
        "test digits": x,
        "averages of two": (x[different] // 2 + x[partner][different] // 2),
        "uniform noise": rng.integers(0, 256, x.shape, dtype=np.uint8),
    }
    p = {name: class_probabilities(judge, images[..., None]) for name, images in sets.items()}
    print(f"accuracy on test digits: {class_agreement(p['test digits'], y):.4f}")
    for name in sets:
        print(f"mean top probability on {name}: {mean_top_probability(p[name]):.4f}")


def main(test: Annotated[Path | None, typer.Option(help="An .npz with x_test and y_test.")] = None) -> None:
    """Train the judge of digits and write its weights into the package."""
    digits = Digits().build()
    judge = fit(to_float(torch.tensor(digits.read(np.arange(len(digits))))), torch.tensor(digits.labels))
    replace_file(PATH, save(judge.state_dict()))
    print(f"{PATH}: {PATH.stat().st_size:,} bytes")
    if test is not None:
        with np.load(test) as mnist:
            report(judge, mnist["x_test"], mnist["y_test"])


if __name__ == "__main__":
    typer.run(main)
