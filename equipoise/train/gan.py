"""The two players: networks, optimisers, and the terms that each player minimises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn

from equipoise.augment import Augmentation
from equipoise.compute.computing import Computing
from equipoise.compute.pieces import Piece, count_pieces, in_pieces
from equipoise.config import TrainConfig
from equipoise.core.randomness import Purpose, seed_torch
from equipoise.core.types import Batch, Generated, ImageSpec, Told
from equipoise.losses import Memory, Output, Term, logits
from equipoise.rules import Stages

from .drawing import latents
from .players import Player
from .readings import Readings
from .showing import Showing
from .warned import warn_of_voided

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
    compute: Computing = field(init=False)
    """How a step computes on the networks' device. `tune` measures choices that the config leaves open."""
    added: dict[str, list[tuple[Term, Term]]] = field(init=False)
    """Terms of the config and its game for each player, as pairs: (as configured, `at_work` on the network)."""
    showing: Showing = field(init=False)
    """The config's game, bound to G."""

    def __post_init__(self) -> None:
        cfg = self.cfg
        self.remember()
        self.compute = Computing(cfg.compute, next(self.D.parameters()).device)
        pool = None if cfg.game.shown is None else cfg.game.shown.build(self.spec, cfg.seed).to(self.compute.device)
        self.showing = Showing(cfg.game, self.G, self.g_optim, pool, self.compute.images)

    @classmethod
    def build(cls, cfg: TrainConfig, spec: ImageSpec, device: torch.device | str = "cpu") -> Self:
        """Networks initialised from the seed, the same on every process, then normalised; nothing requires a gradient.

        Raises:
            ValueError: if the networks or the head are not defined for the data, or G cannot follow the config's
                stages.
        """
        seed_torch(cfg.seed, Purpose.WEIGHTS)
        G = cfg.generator.build(cfg.spec_of_g(spec))
        D = cfg.head.build(cfg.discriminator.build, spec)
        cfg.g_normalizer(G)
        cfg.d_normalizer(D)
        augment = cfg.augment.build()
        for net in (G, D, augment):
            net.to(device)
        warn_of_voided(cfg, D)
        if cfg.start is not None:
            cfg.start.freeze(D)
        gan = cls(cfg, spec, G, D, augment, cfg.optim("G").build(G), cfg.optim("D").build(D))
        gan.stages.require(G, cfg.generator)
        for net in (G, D):
            net.requires_grad_(False)  # a step enables gradients for the weights that it trains
        gan.compute.compile(G, D)
        return gan

    @property
    def stages(self) -> Stages:
        """Batch size and detail of images, as functions of the images seen."""
        return Stages.of(self.cfg, self.spec.resolution)

    def at(self, nimg: int) -> None:
        """Set augmentation and level of detail for `nimg` images seen. The optimisers' schedules are set elsewhere."""
        self.augment.at(nimg)
        self.stages.follow(nimg, (self.G, self.g_optim), (self.D, self.d_optim))

    def outputs(self, x: Tensor, y: Told) -> Output:
        """D's output. D sees augmented images only, real or generated."""
        output: Output = self.D(self.augment(x), y)
        return output

    def critic(self, x: Tensor, y: Told) -> Tensor:
        """D as penalties see it: all its logits side by side, (N, K). It can be differentiated twice."""
        with self.compute.penalty():
            return logits(self.outputs(x, y))

    # ---- images ------------------------------------------------------------------------------------------

    def generate(self, like: Batch, purpose: Purpose, nimg: int) -> Batch:
        """A generated image for each image of `like`, with its label. z as in `latents`."""
        return Batch(self.made(self.latents(like, purpose, nimg), like.y).x, like.y)

    def made(self, z: Tensor, y: Told) -> Generated:
        """All that G makes of z (N, z_dim) and a condition."""
        made = Generated.by(self.G, z, y)
        return made._replace(x=self.compute.images(made.x))

    def latents(self, like: Batch, purpose: Purpose, nimg: int) -> Tensor:
        """A z for each image of `like`, (N, z_dim): this process's share of the global batch's z."""
        return latents(self.cfg, len(like.x), purpose, nimg, like.x.device)

    def pieces(
        self, batch: Batch, purpose: Purpose, nimg: int, held_out: Batch | None = None, labelled: Batch | None = None
    ) -> Iterator[Piece]:
        """The inputs of an update, with z of `purpose`: one piece, or several of `micro_batch` images each."""
        count, z = count_pieces(len(batch.x), self.cfg.compute.micro_batch), self.latents(batch, purpose, nimg)
        return in_pieces(count, batch, z, held_out, labelled, nets=(self.G, self.D))

    # ---- the players -------------------------------------------------------------------------------------

    def remember(self) -> None:
        """Start the memories of terms, from the current weights."""
        configured = (*self.cfg.game.terms(), *self.cfg.terms)
        self.added = {
            name: [(term, self.at_work(term, net)) for term in configured if term.player in (name, "both")]
            for name, net in (("D", self.D), ("G", self.G))
        }

    def at_work(self, term: Term, net: nn.Module) -> Term:
        """A term of the config as the player of `net` uses it on this data."""
        return term.for_data(self.spec, self.cfg.batch_size).at_work(net)

    def recall(self, other: GAN) -> None:
        """Take over the memories of terms that `other` also has, and its pool of images, on the same networks."""
        if self.cfg.game == other.cfg.game:
            self.showing.pool = other.showing.pool
        for name, terms in self.added.items():
            before = other.added[name]
            self.added[name] = [next((pair for pair in before if pair[0] == new[0]), new) for new in terms]

    def memories(self, player: str) -> list[Memory]:
        """The memories of a player's terms, in the terms' order."""
        return [term.memory for _, term in self.added[player] if term.memory is not None]

    @property
    def players(self) -> tuple[Player, Player]:
        """D and G."""
        cfg, readings = self.cfg, Readings(self.cfg)
        steps = cfg.d_steps if isinstance(cfg.d_steps, int) else 1
        D = Player(
            "D",
            self.D,
            self.d_optim,
            terms=self.terms("D"),
            purpose=Purpose.Z_FOR_D,
            show=self.showing.to_d,
            purpose_of_terms=Purpose.Z_FOR_TERMS_OF_D,
            show_terms=self.showing.to_terms_of_d,
            updates=self.stages.updates,
            after=(*cfg.constraints, *cfg.head.after, *(memory.update for memory in self.memories("D"))),
            read=readings.of_logits,
            reread=readings.of_reals_again,
            watch=self.held_out_logit,
        )
        G = Player(
            "G",
            self.G,
            self.g_optim,
            terms=self.terms("G"),
            purpose=Purpose.Z_FOR_G,
            show=self.showing.to_g,
            purpose_of_terms=Purpose.Z_FOR_TERMS_OF_G,
            show_terms=self.showing.to_both,
            updates=lambda nimg: self.stages.updates(nimg) // steps,
            after=[memory.update for memory in self.memories("G")],
            times=cfg.g_batches,
        )
        return D, G

    def terms(self, player: str) -> list[Term]:
        """The terms that a player minimises: its losses, then the terms of the game and the config."""
        added = [term for _, term in self.added[player]]
        losses = [term for term in self.cfg.head.losses(self.cfg.loss) if term.player in (player, "both")]
        if any(term.replaces_loss for term in added):
            losses = [term for term in losses if not term.opposes]
        return losses + added

    def held_out_logit(self, unseen: Batch | None) -> dict[str, Tensor]:
        """The mean logit of images that D is not trained on; empty without such images."""
        return {} if unseen is None else {"held_out": self.critic(unseen.x, unseen.y).mean()}
