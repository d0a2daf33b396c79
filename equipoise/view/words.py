"""A run's settings in words: a paragraph, and a row for each part with the first sentence of its documentation."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any, NamedTuple

from equipoise.core.calls import short
from equipoise.generate import Generator
from equipoise.generate.modelcard import described as images_of
from equipoise.generate.modelcard import environment
from equipoise.models import NoConditioning
from equipoise.runs import Run

__all__ = ["Part", "described", "duration", "parts", "short"]


class Part(NamedTuple):
    """A part of a config. name: its field.  value: the part as the command line takes it.  words: what it is."""

    name: str
    value: str
    words: str


def described(run: Run, generator: Generator | None, d_parameters: int | None = None) -> str:
    """Images, networks, progress, speed and machine, in a few sentences."""
    cfg, stats = run.config, run.stats
    san = " with SAN" if cfg.head.san else ""
    sentences = [f"A {type(cfg.loss).__name__} GAN{san}, trained on {short(cfg.data)}."]
    if generator is not None:
        size = sum(p.numel() for p in generator.net.parameters())
        of_d = "" if d_parameters is None else f", and D {d_parameters:,}"
        sentences.append(f"It draws {images_of(generator)}. G has {size:,} parameters{of_d}.")
    if stats:
        seen, seconds = stats[-1]["kimg"], duration(run)
        rate = median(line["images_per_second"] for line in stats if "images_per_second" in line)
        sentences.append(
            f"D has seen {seen:,g} of {cfg.total_kimg:,g} thousand real images ({seen / cfg.total_kimg:.0%}), in "
            f"{clock(seconds)} at {rate:,.0f} images a second."
        )
    about = environment(run.folder / "environment.txt")
    if about:
        sentences.append(f"Last started on {about['device']}, with torch {about['torch']}.")
    return " ".join(sentences)


def duration(run: Run) -> float:
    """Seconds of training on record: images over images per second, line by line."""
    seconds, before = 0.0, 0.0
    for line in run.stats:
        if line.get("images_per_second", 0) > 0:
            seconds += (line["nimg"] - before) / line["images_per_second"]
        before = line["nimg"]
    return seconds


def clock(seconds: float) -> str:
    """A duration as people say it: 2 h 5 min."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def parts(run: Run) -> Iterator[Part]:
    """The parts of the config that are there, in its order."""
    cfg = run.config
    yield from (part("data", cfg.data), part("generator", cfg.generator), part("discriminator", cfg.discriminator))
    if not isinstance(cfg.head.conditioning, NoConditioning):
        yield part("head.conditioning", cfg.head.conditioning)
    if cfg.head.san:
        yield Part("head.san", "true", "The last layer's direction and length are trained apart (SAN).")
    yield part("loss", cfg.loss)
    for i, term in enumerate(cfg.terms):
        yield part(f"terms.{i}", term)
    for name in ("g_normalizer", "d_normalizer", "augment", "growth"):
        value = getattr(cfg, name)
        if not type(value).__name__.startswith("No"):
            yield part(name, value)
    for i, constraint in enumerate(cfg.constraints):
        yield part(f"constraints.{i}", constraint)
    yield from (part("g_optim", cfg.g_optim), part("d_optim", cfg.d_optim), part("ema", cfg.ema))
    yield Part("batch_size", f"{cfg.batch_size}", "Images in an update.")
    steps = cfg.d_steps if isinstance(cfg.d_steps, int) else short(cfg.d_steps)
    yield Part("d_steps", f"{steps}", "Updates of D before each of G.")
    if cfg.start is not None:
        yield part("start", cfg.start)
    yield Part("seed", f"{cfg.seed}", "Seed for everything random.")


def part(name: str, value: Any) -> Part:
    """A component with the first sentence of its docstring."""
    return Part(name, short(value), (type(value).__doc__ or "").strip().partition("\n")[0])
