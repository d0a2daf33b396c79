"""A run from networks that others published: sampled, measured, exported and trained further as any other run."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from equipoise.augment import ADA
from equipoise.config import TrainConfig, to_text
from equipoise.core.files import replace_file, writing
from equipoise.core.types import ImageSpec
from equipoise.data import Images
from equipoise.losses import R1
from equipoise.models import GeneratorConfig, Head, MappedProjection, StyleGAN2Discriminator
from equipoise.models.persistent import Networks, Published
from equipoise.models.pickled import read_published
from equipoise.models.published import PublishedDiscriminator, discriminator_settings, generator_settings, network
from equipoise.rules import Adam, EMAConfig
from equipoise.runs import NOTICE, Checkpoints

from .generator import IN_RUN, Generator, save_generator
from .write import require_empty

__all__ = ["Imported", "import_published"]

PLACEHOLDER = "GIVE-YOUR-IMAGES"
"""In place of a path of images: published files hold none."""
BATCH = 32
LARGEST = 1 << 20
"""Largest whole number among the arguments."""


@dataclasses.dataclass(frozen=True)
class Imported:
    """An imported run.

    folder: of the run.
    config: settings of the networks; its data is a placeholder.
    complete: whether the file had D too, so that another run can start from this one.
    ignored: names of the file's contents that were left out.
    augment_p: strength of the augmentation at the end of the published training; None without.
    """

    folder: Path
    config: TrainConfig
    complete: bool
    ignored: tuple[str, ...]
    augment_p: float | None


def import_published(path: str | Path, run_dir: str | Path) -> Imported:
    """Make a run from a pickle of StyleGAN2, StyleGAN2-ADA or StyleGAN3. Nothing in the file is executed.

    The run holds the averaged generator, a checkpoint to start other runs from (``start=Transfer(run=...)``), the
    networks' settings in config.txt, and a notice of the weights' licence. It appears complete or not at all.

    Raises:
        ValueError: if `run_dir` is not empty, or the file holds anything but networks of the published classes.
        RunError: if the run cannot be written.
    """
    path, out = Path(path), Path(run_dir)
    require_empty(out)
    read, sha256 = read_published(path)
    try:
        config, spec = settings(read)
        nets = {name: built(net) for name, net in read.nets.items()}
    except (ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError) as error:  # from a file's arguments
        reason = " ".join(str(error).split())[:600]
        raise ValueError(f"{path} holds networks that Equipoise does not have: {reason}") from None
    out = out.expanduser().resolve()
    temporary = out.with_name(f".{out.name}.tmp")
    with writing(out):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            write(temporary, config, spec, nets)
            replace_file(temporary / NOTICE, notice(path.name, sha256, read.program).encode())
            temporary.replace(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Imported(Path(run_dir), config, len(nets) == 3, read.ignored, read.augment_p)


def settings(read: Networks) -> tuple[TrainConfig, ImageSpec]:
    """The config of the networks, and their images.

    Beside the networks it has the published settings of fine-tuning: Karras et al. 2020b, the "auto" configuration.

    Raises:
        ValueError: if G, D and G_ema do not belong together, or have settings that ours lack.
    """
    generator, spec = generator_settings(read.nets["G_ema"].kind, read.nets["G_ema"].config)
    if "G" in read.nets and generator_settings(read.nets["G"].kind, read.nets["G"].config) != (generator, spec):
        raise ValueError("its G and its G_ema have other settings")
    discriminator, head = of_discriminator(read.nets.get("D"), spec)
    channels = {1: 1, 3: 3}.get(spec.channels)
    adam = Adam(lr=0.002 if spec.resolution >= 1024 else 0.0025, betas=(0.0, 0.99))
    config = TrainConfig(
        data=Images(path=PLACEHOLDER, resolution=spec.resolution, channels=channels),  # type: ignore[arg-type]
        generator=generator,
        discriminator=discriminator,
        head=head,
        terms=(R1(gamma=0.0002 * spec.resolution**2 / BATCH, every=16),),
        augment=ADA(kimg=100.0),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=10 * BATCH / 32, rampup=None),
        batch_size=BATCH,
    )
    return config, spec


def of_discriminator(net: Published | None, spec: ImageSpec) -> tuple[StyleGAN2Discriminator, Head]:
    """Settings of D and its head; the published defaults for a file without D."""
    if net is None:
        return StyleGAN2Discriminator(), Head(MappedProjection()) if spec.num_classes else Head()
    discriminator, head, reads = discriminator_settings(net.config, 256.0 if net.kind == "stylegan3/D" else None)
    if reads != spec:
        raise ValueError(f"its D reads images of {reads}, and its G makes images of {spec}")
    return discriminator, head


def built(net: Published) -> nn.Module:
    """The network with the published weights. Raises ValueError if they do not fit, or hold NaN or Inf."""
    require_moderate(net.config, len(net.state))
    for name, value in net.state.items():
        if not value.isfinite().all():
            raise ValueError(f"{name} holds NaN or Inf")
    made = network(net.kind, net.config, net.state)
    return made.net if isinstance(made, PublishedDiscriminator) else made


def require_moderate(config: Mapping[str, Any], layers: int) -> None:
    """Raises ValueError for arguments that would take long to follow, whatever the weights are."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            require_moderate(value, layers)
        elif isinstance(value, int) and abs(value) > (layers if name == "num_layers" else LARGEST):
            raise ValueError(f"its {name} is {value}, more than its weights can have")


def write(folder: Path, config: TrainConfig, spec: ImageSpec, nets: Mapping[str, nn.Module]) -> None:
    """Write config.txt, the averaged generator and, of all three networks, a checkpoint."""
    replace_file(folder / "config.txt", to_text(config).encode())
    assert isinstance(config.generator, GeneratorConfig)
    save_generator(Generator(nets["G_ema"], config.generator, config.spec_of_g(spec)), folder / IN_RUN)
    if len(nets) == 3:
        named = {"G": nets["G"], "D": nets["D"], "ema": nets["G_ema"]}
        Checkpoints(folder, nets=named, optimizers={}, spec=spec).save(0)


def notice(name: str, sha256: str, program: str) -> str:
    """The text of NOTICE.txt."""
    return (
        f"These weights were published by others and read from {name} (a file of {program}, SHA-256 {sha256}).\n"
        "The licence of whoever published them applies to them, and to weights that are trained further from them.\n"
        "Weights that NVIDIA published with StyleGAN2, StyleGAN2-ADA and StyleGAN3 are under the NVIDIA Source Code\n"
        "License: non-commercial use only, for research or evaluation.\n"
    )
