"""The two players: networks, optimisers, what remembers, and what each of them minimises."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn

from .augment import Augmentation
from .config import TrainConfig
from .distributed import owned, rank, trainable, world_size
from .joint import JointPenalty
from .objective import class_loss, discriminator_loss, generator_loss
from .penalties import warn_about_batch_norm
from .randomness import Purpose, seed_torch, stream
from .regularizers import Regularization
from .types import Batch, ImageSpec, Logits

__all__ = ["GAN"]


@dataclass
class GAN:
    """The two players and what a step needs to train them."""

    cfg: TrainConfig
    G: nn.Module
    D: nn.Module
    augment: Augmentation
    g_optim: torch.optim.Optimizer
    d_optim: torch.optim.Optimizer
    g_regularizations: list[Regularization] = field(default_factory=list)
    d_regularizations: list[Regularization] = field(default_factory=list)

    @classmethod
    def build(cls, cfg: TrainConfig, spec: ImageSpec, device: torch.device | str = "cpu") -> Self:
        """Networks initialised from the seed, the same on every process, then normalised; nothing requires a gradient.

        Raises:
            ValueError: if the networks or the head are not defined for the data.
        """
        seed_torch(cfg.seed, Purpose.WEIGHTS)
        G = cfg.generator.build(spec)
        D = cfg.head.build(cfg.discriminator.build, spec)
        cfg.g_normalizer(G)
        cfg.d_normalizer(D)
        augment = cfg.augment.build()
        for net in (G, D, augment):
            net.to(device)
        if rank() == 0:
            warn_about_batch_norm(D, cfg.penalties, cfg.d_normalizer)
        if cfg.transfer is not None:
            cfg.transfer.freeze(D)
        gan = cls(cfg, G, D, augment, cfg.g_optim.build(G), cfg.d_optim.build(D))
        gan.remember()
        for net in (G, D):
            net.requires_grad_(False)  # a step lets the weights that it trains require one
        return gan

    def remember(self) -> None:
        """Start what regularisers remember from the weights as they are."""
        self.g_regularizations = [regularizer.build(self.G) for regularizer in self.cfg.g_regularizers]
        self.d_regularizations = [regularizer.build(self.D) for regularizer in self.cfg.d_regularizers]

    def logits(self, x: Tensor, y: Tensor | None) -> Logits:
        """D never sees an image that was not augmented, real or generated."""
        logits: Logits = self.D(self.augment(x), y)
        return logits

    def critic(self, x: Tensor, y: Tensor | None) -> Tensor:
        """D as penalties see it: (N, K)."""
        return self.logits(x, y).fun

    def generate(self, like: Batch, purpose: Purpose, nimg: int) -> Batch:
        """As many images as `like` holds, with its labels; z is this process's share of the global batch's."""
        share = len(like.x)
        z = torch.randn(share * world_size(), self.cfg.generator.z_dim, generator=stream(self.cfg.seed, purpose, nimg))
        z = z[rank() * share : (rank() + 1) * share].to(like.x.device)
        return Batch(self.G(z, like.y), like.y)

    # ---- what each player minimises ----------------------------------------------------------------------

    def d_loss(self, real: Batch, fake: Batch, labelled: Batch | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """D's loss, and what is worth reporting of it."""
        cfg = self.cfg
        on_real, on_fake = self.logits(real.x, real.y), self.logits(fake.x, fake.y)
        loss = discriminator_loss(cfg.loss, on_real, on_fake)
        right, fooled = on_real.fun.detach(), on_fake.fun.detach()
        stats = {"D/real": right.mean(), "D/fake": fooled.mean(), "D/sign_real": right.sign().mean()}
        if cfg.loss.estimates is not None:
            stats[f"D/{cfg.loss.estimates}"] = right.mean() - fooled.mean()
        if on_real.classes is not None:
            if cfg.generator.conditional:
                loss = loss + class_loss(on_real, real.y) + class_loss(on_fake, fake.y)
            elif labelled is not None:
                loss = loss + class_loss(self.logits(labelled.x, labelled.y), labelled.y)
            else:
                raise ValueError(
                    "this head learns classes from some images alone: pass them, d_step(..., labelled=batch)"
                )
            assert real.y is not None  # a head that classifies is built for labelled data alone
            stats["D/accuracy"] = on_real.classes.detach().argmax(1).eq(real.y).float().mean()
        return loss, stats | {"D/loss": loss.detach()}

    def g_loss(self, real: Batch, fake: Batch, nimg: int) -> tuple[Tensor, dict[str, Tensor]]:
        """G's loss, and what is worth reporting of it. D sees `real` if the loss or feature matching compares."""
        cfg, matching = self.cfg, self.cfg.feature_matching
        on_fake = self.logits(fake.x, fake.y)
        on_real = self.logits(real.x, real.y) if cfg.loss.paired or matching is not None else None
        stats = {}
        adversarial = matching is None or matching.adversarial
        loss = generator_loss(cfg.loss, on_fake, on_real) if adversarial else on_fake.fun.new_zeros(())
        if on_fake.classes is not None and cfg.generator.conditional:
            loss = loss + class_loss(on_fake, fake.y)
        if matching is not None and on_real is not None:
            distance = matching(on_real.features, on_fake.features)
            loss = loss + matching.weight(nimg) * distance
            stats["G/FeatureMatching"] = distance.detach()
        return loss, stats | {"G/loss": loss.detach()}

    def joint_value(
        self, joint: JointPenalty, batch: Batch, labelled: Batch | None, purpose: Purpose, nimg: int
    ) -> Tensor:
        """A penalty on both losses, at the noise of the player whose step it is; weights of both require a gradient."""
        with trainable(self.d_optim if purpose is Purpose.Z_FOR_G else self.g_optim):
            fake = self.generate(batch, purpose, nimg)
            losses = self.d_loss(batch, fake, labelled)[0], self.g_loss(batch, fake, nimg)[0]
            return joint(*losses, owned(self.d_optim), owned(self.g_optim))
