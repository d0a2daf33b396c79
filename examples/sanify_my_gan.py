"""A GAN in plain PyTorch, turned into a SAN by changing the lines marked (1) and (2).

    python examples/sanify_my_gan.py --steps 500 --out digits.png

The generator, the discriminator and the loop are the ones you may have already. Only the digits and the names in the
import below come from Equipoise. Replace the digits by your own images, in [-1, 1].
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from equipoise import Digits, NonSaturating, discriminator_loss, sanify
from equipoise.data import to_float, to_uint8

Z = 64  # size of the latent vector


class Generator(nn.Module):
    """z (N, Z) -> images (N, 1, 28, 28) in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(Z, 64 * 7 * 7, bias=False),
            nn.Unflatten(1, (64, 7, 7)),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.net(z)
        return images


class Discriminator(nn.Module):
    """Images (N, 1, 28, 28) -> logits (N,). The last layer is linear, and no sigmoid follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            spectral_norm(nn.Conv2d(1, 24, 4, 2, 1)),
            nn.LeakyReLU(0.1),
            spectral_norm(nn.Conv2d(24, 48, 4, 2, 1)),
            nn.LeakyReLU(0.1),
            spectral_norm(nn.Conv2d(48, 96, 3, 2, 1)),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
        )
        self.last = nn.Linear(96 * 4 * 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.features(x))
        return logits.squeeze(1)


def main() -> None:
    """Train for some steps, then write a grid of samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("sanify_my_gan.png"))
    args = parser.parse_args()

    torch.manual_seed(0)
    digits = to_float(torch.from_numpy(Digits().build().read(np.arange(10_000))))

    G = Generator()
    # before:  D = Discriminator()
    D = sanify(Discriminator())  # ------------------------------------------------------------------------- (1)
    g_optim = torch.optim.Adam(G.parameters(), lr=1e-3, betas=(0.0, 0.99))
    d_optim = torch.optim.Adam(D.parameters(), lr=1e-3, betas=(0.0, 0.99))

    start = time.perf_counter()
    for step in range(1, args.steps + 1):
        real = digits[torch.randint(len(digits), (args.batch,))]
        fake = G(torch.randn(args.batch, Z))
        # before:  d_loss = F.softplus(-D(real)).mean() + F.softplus(D(fake.detach())).mean()
        d_loss = discriminator_loss(NonSaturating(), D(real), D(fake.detach()))  # -------------------------- (2)
        d_optim.zero_grad()
        d_loss.backward()
        d_optim.step()

        # D now returns Logits(fun, dir). All other code that reads logits reads `fun`.
        # before:  g_loss = F.softplus(-D(fake)).mean()
        g_loss = F.softplus(-D(fake).fun).mean()
        g_optim.zero_grad()
        g_loss.backward()
        g_optim.step()

        if step % 100 == 0 or step == args.steps:
            seconds = time.perf_counter() - start
            print(f"step {step:5d}   D {d_loss.item():7.3f}   G {g_loss.item():7.3f}   {seconds:5.1f} s", flush=True)

    with torch.no_grad():
        samples = to_uint8(G.eval()(torch.randn(100, Z)))  # (100, 1, 28, 28)
    picture = samples.view(10, 10, 28, 28).transpose(1, 2).reshape(280, 280)
    Image.fromarray(picture.numpy()).save(args.out)
    print(f"100 samples in {args.out}")


if __name__ == "__main__":
    main()
