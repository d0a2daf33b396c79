"""The two players: networks, optimisers, what remembers, and what each of them minimises."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn

from equipoise.augment import Augmentation
from equipoise.compute.convolutions import Convolutions
from equipoise.compute.distributed import rank, trainable, world_size
from equipoise.compute.pieces import Piece, count_pieces, in_pieces
from equipoise.compute.precision import Precision, mixed, tensor_float32
from equipoise.config import TrainConfig
from equipoise.core.randomness import Purpose, seed_torch, stream
from equipoise.core.types import Batch, ImageSpec
from equipoise.doctor import voided
from equipoise.losses import (
    ClassLoss,
    DiscriminatorLoss,
    GeneratorLoss,
    Output,
    Regularization,
    Regularizing,
    Seen,
    Term,
    accuracy,
    logits,
)
from equipoise.nn import grows, renormalize, set_lod
from equipoise.rules import Stages

from .players import Player

__all__ = ["GAN"]


@dataclass
class GAN:
    """The two players and what a step needs to train them."""

    cfg: TrainConfig
    spec: ImageSpec
    G: nn.Module
    D: nn.Module
    augment: Augmentation
    g_optim: torch.optim.Optimizer
    d_optim: torch.optim.Optimizer
    g_regularizations: list[Regularization] = field(init=False)
    d_regularizations: list[Regularization] = field(init=False)
    precision: Precision = field(init=False)
    """Of the losses. The config's; float32 for "auto" until `tune` has measured."""
    convolutions: AbstractContextManager[object] = field(init=False)
    """The context in which convolutions are computed as `cfg.convolutions` says."""
    kept: Batch | None = field(init=False, default=None)
    """Images of D's last update, with their graph: `cfg.reuse_fakes`."""

    def __post_init__(self) -> None:
        self.remember()
        self.precision = "float32" if self.cfg.precision == "auto" else self.cfg.precision
        self.convolutions = Convolutions() if self.cfg.convolutions == "measured" else nullcontext()

    @classmethod
    def build(cls, cfg: TrainConfig, spec: ImageSpec, device: torch.device | str = "cpu") -> Self:
        """Networks initialised from the seed, the same on every process, then normalised; nothing requires a gradient.

        Raises:
            ValueError: if the networks or the head are not defined for the data, or G is to grow and does not.
        """
        seed_torch(cfg.seed, Purpose.WEIGHTS)
        G = cfg.generator.build(cfg.head.conditioning.generator_spec(spec))
        D = cfg.head.build(cfg.discriminator.build, spec)
        cfg.g_normalizer(G)
        cfg.d_normalizer(D)
        augment = cfg.augment.build()
        for net in (G, D, augment):
            net.to(device)
        if rank() == 0:
            for reason in voided(
                D, loss=cfg.loss, penalties=cfg.penalties, normalizer=cfg.d_normalizer, constraints=cfg.constraints
            ):
                warnings.warn(reason, stacklevel=2)
        if cfg.transfer is not None:
            cfg.transfer.freeze(D)
        gan = cls(cfg, spec, G, D, augment, cfg.g_optim.build(G), cfg.d_optim.build(D))
        if gan.stages.lod(0) > 0 and not grows(G):
            raise ValueError(
                f"growth={cfg.growth!r} starts with small images, and {type(cfg.generator).__name__} makes all in full "
                "size. Take a generator that grows (generator=ProGANGenerator), or growth=NoGrowth."
            )
        for net in (G, D):
            net.requires_grad_(False)  # a step lets the weights that it trains require one
        gan.compile()
        return gan

    def compile(self) -> None:
        """Compile both networks, where the config asks for it. A deep copy loses it."""
        mode = self.cfg.compile
        for net in (self.G, self.D) if mode else ():
            net.compile(mode=None if mode is True else mode)

    def remember(self) -> None:
        """Start what regularisers remember from the weights as they are."""
        self.g_regularizations = [regularizer.build(self.G) for regularizer in self.cfg.g_regularizers]
        self.d_regularizations = [regularizer.build(self.D) for regularizer in self.cfg.d_regularizers]

    @property
    def constraints(self) -> Sequence[Callable[[nn.Module], None]]:
        """What is done to D after each of its steps: the config's constraints, and what a learned scale needs."""
        return (*self.cfg.constraints, *([renormalize] if self.cfg.head.scale == "learned" else []))

    @property
    def stages(self) -> Stages:
        """What the images seen decide of the size of batches and the detail of images."""
        return Stages(self.cfg.growth, self.spec.resolution, self.cfg.batch_size)

    def at(self, nimg: int) -> None:
        """Follow the schedules, but for the optimisers' own: D has seen `nimg` real images.

        Where layers begin or end to fade in, the optimiser of their network forgets the past. That of the new ones is
        a past without gradients, after which Adam's first steps would be 1 / √(1 - beta2) times as long as later ones.
        """
        self.augment.at(nimg)
        lod = self.stages.lod(nimg)
        for net, optimizer in ((self.G, self.g_optim), (self.D, self.d_optim)):
            if set_lod(net, lod):
                optimizer.state.clear()

    def outputs(self, x: Tensor, y: Tensor | None) -> Output:
        """What D returns. It never sees an image that was not augmented, real or generated."""
        output: Output = self.D(self.augment(x), y)
        return output

    def critic(self, x: Tensor, y: Tensor | None) -> Tensor:
        """D as penalties see it: (N, K), all its logits side by side. It can be differentiated twice."""
        eager = torch.compiler.set_stance("force_eager") if self.cfg.compile else nullcontext()
        measured = self.convolutions.for_penalties() if isinstance(self.convolutions, Convolutions) else nullcontext()
        with eager, measured:
            return logits(self.outputs(x, y))

    def mixed(self) -> AbstractContextManager[object]:
        """The context in which a loss is computed, in `precision`; its backward is not."""
        return mixed(self.precision, self.device)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The context of a whole step: how its convolutions are computed, and its products of float32 numbers."""
        with self.convolutions, tensor_float32(self.precision, self.device):
            yield

    @property
    def device(self) -> torch.device:
        return next(self.D.parameters()).device

    def generate(self, like: Batch, purpose: Purpose, nimg: int) -> Batch:
        """As many images as `like` holds, with its labels; z is this process's share of the global batch's."""
        return self.images(self.latents(like, purpose, nimg), like.y)

    def latents(self, like: Batch, purpose: Purpose, nimg: int) -> Tensor:
        """A z for each image of `like`, (N, z_dim): this process's share of the global batch's."""
        share = len(like.x)
        rows, config = share * world_size(), self.cfg.generator
        z = config.prior.draw(rows, config.z_dim, generator=stream(self.cfg.seed, purpose, nimg))
        z = z[rank() * share : (rank() + 1) * share]
        if like.x.is_cuda:
            z = z.pin_memory()  # so that the host need not wait for the copy
        return z.to(like.x.device, non_blocking=True)

    def images(self, z: Tensor, y: Tensor | None) -> Batch:
        """G(z, y), with its labels, in float32 under autocast too."""
        x: Tensor = self.G(z, y)
        if isinstance(self.cfg.compile, str):
            x = x.clone()  # a CUDA graph writes to the same place again
        return Batch(x.to(torch.promote_types(x.dtype, torch.float32)), y)

    def images_for_d(self, piece: Piece) -> Batch:
        """G(z, y) as D's update needs them, which has no use for their graph; it is kept if G's update is to."""
        if not self.cfg.reuse_fakes:
            with torch.no_grad():
                return self.images(piece.z, piece.real.y)
        self.kept = None  # the graph of an earlier one
        with trainable(self.g_optim):
            self.kept = self.images(piece.z, piece.real.y)
        return Batch(self.kept.x.detach(), self.kept.y)

    def images_for_g(self, piece: Piece) -> Batch:
        """G(z, y) with their graph: those of D's last update if they were kept.

        Raises:
            ValueError: if those that were kept are not as many as the images of this update.
        """
        kept, self.kept = self.kept, None
        if kept is None:
            return self.images(piece.z, piece.real.y)
        if len(kept.x) != len(piece.real.x):
            raise ValueError(
                f"reuse_fakes=true: G's update on {len(piece.real.x)} images follows one of D on {len(kept.x)}. Give "
                "both the same batch, or set reuse_fakes=false."
            )
        return kept

    def pieces(
        self, batch: Batch, purpose: Purpose, nimg: int, held_out: Batch | None = None, labelled: Batch | None = None
    ) -> Iterator[Piece]:
        """What an update is computed from, with z of `purpose`: one piece, or several of `micro_batch` images each."""
        count, z = count_pieces(len(batch.x), self.cfg.micro_batch), self.latents(batch, purpose, nimg)
        return in_pieces(count, batch, z, held_out, labelled, nets=(self.G, self.D))

    # ---- the players -------------------------------------------------------------------------------------

    @property
    def players(self) -> tuple[Player, Player]:
        """D and G."""
        cfg, matching = self.cfg, self.cfg.feature_matching
        of_d: list[Term] = [DiscriminatorLoss(cfg.loss, cfg.head.normalize_loss)]
        of_g: list[Term] = [GeneratorLoss(cfg.loss)] if matching is None or matching.adversarial else []
        if cfg.head.conditioning.classifies == "all":
            of_d += [ClassLoss("real"), ClassLoss("fake")]
            of_g += [ClassLoss("fake")]
        elif cfg.head.conditioning.classifies == "labelled":
            of_d += [ClassLoss("labelled")]
        of_g += [] if matching is None else [matching]
        of_d += cfg.penalties
        of_d += map(Regularizing, cfg.d_regularizers, self.d_regularizations)
        of_g += map(Regularizing, cfg.g_regularizers, self.g_regularizations)
        D = Player(
            "D",
            self.D,
            self.d_optim,
            terms=(*of_d, *cfg.joint_penalties),
            purpose=Purpose.Z_FOR_D,
            images=self.images_for_d,
            updates=self.stages.updates,
            after=(*self.constraints, *(state.update for state in self.d_regularizations)),
            read=self.logits_of,
            watch=self.held_out_logit,
        )
        steps = cfg.d_steps if isinstance(cfg.d_steps, int) else 1
        G = Player(
            "G",
            self.G,
            self.g_optim,
            terms=(*of_g, *cfg.joint_penalties),
            purpose=Purpose.Z_FOR_G,
            images=self.images_for_g,
            updates=lambda nimg: self.stages.updates(nimg) // steps,
            after=[state.update for state in self.g_regularizations],
            times=cfg.g_batches,
        )
        return D, G

    def logits_of(self, seen: Seen) -> dict[str, Tensor]:
        """What is reported of D's logits: their means, the mean sign on real images, what the loss estimates."""
        right, fooled = logits(seen.on_real).detach(), logits(seen.on_fake).detach()
        stats = {"real": right.mean(), "fake": fooled.mean(), "sign_real": right.sign().mean()}
        if self.cfg.loss.estimates is not None:
            stats[self.cfg.loss.estimates] = right.mean() - fooled.mean()
        if self.cfg.head.conditioning.classifies is not None and seen.real.y is not None:
            stats["accuracy"] = accuracy(seen.on_real, seen.real.y)
        return stats

    def held_out_logit(self, unseen: Batch | None) -> dict[str, Tensor]:
        """The mean logit of images that D is not trained on."""
        return {} if unseen is None else {"held_out": self.critic(unseen.x, unseen.y).mean()}
