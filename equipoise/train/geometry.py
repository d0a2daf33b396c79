"""The field of a GAN's game on fixed batches, for `equipoise.doctor.landscape`: of networks at hand, and of a run."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from equipoise.compute.distributed import owned
from equipoise.compute.pieces import Piece
from equipoise.core.randomness import Purpose, seed_torch
from equipoise.core.types import Batch
from equipoise.data import hold_out
from equipoise.doctor import Field
from equipoise.rules import EMA
from equipoise.runs import read_checkpoint, read_run

from .batches import Streams
from .context import StepContext
from .gan import GAN
from .players import Player

__all__ = ["Moments", "field_of", "fields_of_run"]


# ---- networks at hand ------------------------------------------------------------------------------------


def field_of(
    gan: GAN, batch: Batch, nimg: int = 0, *, labelled: Batch | None = None, dtype: torch.dtype = torch.float64
) -> Field:
    """The field of the two players of `gan` on the real images of `batch`, with z and other draws of `nimg`.

    The field belongs to a copy of `gan`, so nothing of `gan` moves. Each player minimises all its terms. A lazy term
    counts once: this is the mean over `every` updates. Both players see the same new images.

    labelled: images whose classes D learns, as in `d_step`.
    dtype: precision of the copy.

    Raises:
        ValueError: for a game whose updates follow no field of gradients.
    """
    require_field(gan)
    gan = copied(gan, dtype)
    weights = owned(gan.g_optim), owned(gan.d_optim)
    for weight in (*weights[0], *weights[1]):
        weight.requires_grad_(True)
    real, known = cast_to(dtype, batch), None if labelled is None else cast_to(dtype, labelled)
    piece = Piece(real, gan.latents(real, Purpose.Z_FOR_G, nimg).to(dtype), labelled=known)

    def losses() -> tuple[Tensor, Tensor]:
        with unmoved(parts(gan)), seeded(gan, nimg):
            shown = gan.showing.to_both(piece)
            D, G = (total(player, StepContext(gan, player, piece, nimg, shown)) for player in gan.players)
        return G, D

    return Field(*weights, losses)


def total(player: Player, seen: StepContext) -> Tensor:
    """All that the player minimises, ()."""
    return torch.stack([term.weight(seen.nimg) * term.of(seen) for term in player.terms]).sum()


def require_field(gan: GAN) -> None:
    """Raises ValueError for a config whose updates follow no field of gradients."""
    cfg = gan.cfg
    if cfg.constraints:
        raise ValueError(
            f"constraints={list(cfg.constraints)!r} project D's weights after each update, and a field of gradients "
            "lacks projections: its eigenvalues would be another game's"
        )
    if cfg.game.shown is not None:
        raise ValueError(
            f"game.shown={cfg.game.shown!r} shows D images of earlier generators, which do not move with G: the game "
            "lacks a field at one moment"
        )
    if cfg.head.normalize_loss:
        raise ValueError(
            "head.normalize_loss=true divides a loss by the mean of its slopes, held constant, so the Jacobian would "
            "lack the derivative of that mean"
        )


def cast_to(dtype: torch.dtype, batch: Batch) -> Batch:
    return batch.map(lambda t: t.to(dtype) if t.is_floating_point() else t)


def parts(gan: GAN) -> list[nn.Module]:
    """Everything in `gan` with weights or buffers."""
    return [gan.G, gan.D, gan.augment, *gan.memories("D"), *gan.memories("G")]


def copied(gan: GAN, dtype: torch.dtype) -> GAN:
    """A copy in training mode, with normalisers that hold their singular vectors."""
    gan = copy.deepcopy(gan)
    for part in parts(gan):
        part.to(dtype)
        part.requires_grad_(False)
    for net in (gan.G, gan.D):
        net.train()
        for layer in net.modules():
            if parametrize.is_parametrized(layer):
                assert isinstance(layer.parametrizations, nn.ModuleDict)
                layer.parametrizations.eval()
    return gan


@contextmanager
def unmoved(modules: Iterable[nn.Module]) -> Iterator[None]:
    """The block in which buffers are copies; the originals return after it."""
    homes = {part for module in modules for part in module.modules()}
    before = [(home, dict(home._buffers)) for home in homes]
    for home, buffers in before:
        for name, value in buffers.items():
            home._buffers[name] = None if value is None else value.clone()
    try:
        yield
    finally:
        for home, buffers in before:
            home._buffers.update(buffers)


@contextmanager
def seeded(gan: GAN, nimg: int) -> Iterator[None]:
    """The block in which torch's generators draw the numbers of `nimg`."""
    device = gan.compute.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seed_torch(gan.cfg.seed, Purpose.DRAWS, 0, nimg)
        yield


# ---- a run -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moments:
    """A run at one checkpoint.

    nimg: of the checkpoint.
    fields: the field on each of several batches, which the run would show D next. Each has weights of its own.
    averaged: the weights (n,) with the averaged G in place of the last one, for `doctor.gradients`.
    """

    nimg: int
    fields: list[Field]
    averaged: Tensor

    @property
    def place(self) -> Tensor:
        """The weights of the checkpoint, (n,), for `doctor.path`."""
        return self.fields[0].place()


def fields_of_run(
    run_dir: str | Path,
    nimg: int | None = None,
    *,
    batches: int = 1,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    known: Mapping[str, Any] | None = None,
) -> Moments:
    """The field of a run at a checkpoint, on batches of its data. The run is only read.

        early, late = fields_of_run("runs/a", 64_000), fields_of_run("runs/a")
        landscape(late.fields[0]).verdict
        path(late.fields[0], early.place, late.place)
        gradients(late.fields[0], late.averaged)

    nimg: of the checkpoint; None: the newest intact one. `report.keep=all` keeps every checkpoint of a run.
    dtype: as in `field_of`.
    known: components that the run's config may call, default the library's.

    Raises:
        ValueError: if the run lacks a readable config or the checkpoint, its networks do not fit, or as `field_of`.
    """
    folder = Path(run_dir)
    cfg = read_run(folder, known).config
    path, weights, state = read_checkpoint(folder / "checkpoints", nimg)
    dataset, held_out = hold_out(cfg.data.build(), cfg.augment.held_out)
    with torch.random.fork_rng(devices=[]):
        gan = GAN.build(cfg, dataset.spec, device)
    require_field(gan)
    ema = cfg.ema.build(gan.G)
    load(gan, ema, weights, path)
    at = int(state["nimg"])
    gan.at(at)
    with Streams(cfg, gan.stages, dataset, held_out).opened(at, gan.compute.device) as stream:
        drawn = list(islice(stream, batches))
    learns = cfg.head.conditioning.classifies == "labelled"
    fields = [
        field_of(gan, images.batch, at + i, labelled=images.labelled if learns else None, dtype=dtype)
        for i, images in enumerate(drawn)
    ]
    return Moments(at, fields, averaged_place(gan, ema, fields[0]))


def load(gan: GAN, ema: EMA, weights: Mapping[str, Mapping[str, Tensor]], path: Path) -> None:
    """Load the networks, the augmentation and what terms remember."""
    nets: dict[str, nn.Module] = {"G": gan.G, "D": gan.D, "ema": ema.model, "augment": gan.augment}
    nets |= {"D_terms": nn.ModuleList(gan.memories("D")), "G_terms": nn.ModuleList(gan.memories("G"))}
    try:
        for name, net in nets.items():
            net.load_state_dict(weights.get(name, {}))
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its config, whose code has changed since: {error}") from None


def averaged_place(gan: GAN, ema: EMA, field: Field) -> Tensor:
    """The place of `field` with the averaged weights of G, (n,)."""
    names = {id(weight): name for name, weight in gan.G.named_parameters()}
    of_g = [ema.model.get_parameter(names[id(weight)]).flatten() for weight in owned(gan.g_optim)]
    return torch.cat([*(part.to(field.weights[0]) for part in of_g), field.place()[field.sizes[0] :]])
