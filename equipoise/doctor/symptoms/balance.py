"""Symptoms of a game that one player wins: D too strong, too weak, overfitted; G without a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import ClassVar

from equipoise.doctor.changes import Proposal, scaled, setting, with_term
from equipoise.doctor.evidence import Evidence, end

from .base import Severity, Symptom, warm
from .weights import NO_GRADIENT

__all__ = ["Overfits", "Saturated", "TooStrong", "TooWeak", "Vanishes"]

MANY_EPOCHS = 30.0
"""Passes over the data after which D may know its images."""


@dataclass(frozen=True)
class Overfits(Symptom):
    """D knows its training images: images that it was not trained on look generated to it."""

    name: ClassVar[str] = "overfits"
    title: ClassVar[str] = "D has learned its images"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = ("D/held_out", "D/real", "D/fake", "D/sign_real", "doctor/epochs")
    source: ClassVar[str] = "Karras et al. 2020: r_v and r_t near 1 are overfitting; their target is 0.6"
    keeps: ClassVar[bool] = True

    ratio: float = 0.8
    sign: float = 0.9

    def seen(self, evidence: Evidence) -> str | None:
        real, fake, held = (evidence.curve(name) for name in ("D/real", "D/fake", "D/held_out"))
        if min(map(len, (real, fake, held))) >= 10:
            gap = end(real) - end(fake)
            r_v = (end(real) - end(held)) / gap if gap > 0 else 0.0
            return f"r_v is {r_v:.2f}: images held out look generated to D" if r_v > self.ratio else None
        signs, epochs = evidence.curve("D/sign_real"), evidence.number("doctor/epochs")
        if not signed(evidence) or not warm(evidence) or len(signs) < 10 or epochs is None:
            return None
        if epochs >= MANY_EPOCHS and end(signs) > self.sign:
            return f"r_t is {end(signs):.2f} after {epochs:.0f} passes over the data"
        return None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return ("too few images for this D", "no augmentation, or too weak a one", "D's penalty is too weak")

    def changes(self, evidence: Evidence) -> Proposal:
        yield setting("augment", "ADA", "D sees more images than there are")
        yield setting("data.mirror", "true", "twice the images, where a mirrored image is one")
        yield with_term(evidence.config, "R1(gamma=10)", "a stronger penalty")


@dataclass(frozen=True)
class TooStrong(Symptom):
    """D is right about every image, real and generated."""

    name: ClassVar[str] = "d_strong"
    title: ClassVar[str] = "D is too strong"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = ("D/sign_real", "doctor/right")
    source: ClassVar[str] = "own runs: the mean sign of a D that can still be wrong is below 0.98"

    sign: float = 0.98
    right: float = 0.998

    def seen(self, evidence: Evidence) -> str | None:
        signs = evidence.curve("D/sign_real")
        if not warm(evidence):
            return None
        if signed(evidence) and len(signs) >= 10 and end(signs) > self.sign:
            return f"D calls nearly all real images real: D/sign_real is {end(signs):.2f} at the end"
        if bounded(evidence):
            return None
        if evidence.stays("doctor/right", above=self.right, count=4):
            value = evidence.last("doctor/right")[0]
            return f"D prefers a real image to a generated one in {value:.1%} of pairs"
        return None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        few = (evidence.number("doctor/epochs") or 0) >= MANY_EPOCHS
        known = "D has learned its images" if few else "generated images are still far off"
        return (known, "D's penalty is too weak", "D learns faster than G")

    def changes(self, evidence: Evidence) -> Proposal:
        if (evidence.number("doctor/epochs") or 0) >= MANY_EPOCHS:
            yield setting("augment", "ADA", "D sees more images than there are")
        yield with_term(evidence.config, "R1(gamma=10)", "holds D's slope at real images")
        yield scaled(evidence.config, "d_optim.lr", 0.5, "smaller steps of D")
        yield setting("d_normalizer", "SpectralNorm", "bounds each layer of D")


@dataclass(frozen=True)
class TooWeak(Symptom):
    """D cannot tell generated images from real ones, although they differ."""

    name: ClassVar[str] = "d_weak"
    title: ClassVar[str] = "D is too weak"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = ("doctor/right", "doctor/coverage", "doctor/diversity")
    source: ClassVar[str] = "three standard errors of three measurements on 64 images around 0.5"

    right: float = 0.6
    coverage: float = 0.25
    diversity: tuple[float, float] = (0.6, 1.7)
    """Diversity of images that are like the data."""

    def seen(self, evidence: Evidence) -> str | None:
        rights, covered = evidence.last("doctor/right", 3), evidence.last("doctor/coverage", 3)
        spread, (low, high) = evidence.last("doctor/diversity", 3), self.diversity
        if not rights or not covered or not spread or not warm(evidence):
            return None
        if mean(rights) > self.right or mean(covered) > self.coverage or low < mean(spread) < high:
            return None
        return (
            f"D prefers a real image in {mean(rights):.0%} of pairs, though generated images reach only "
            f"{mean(covered):.0%} of the data, at {mean(spread):.2f} of its diversity"
        )

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return ("D learns too slowly, or is frozen", "its penalty or its clipping is too strong", "D is too small")

    def changes(self, evidence: Evidence) -> Proposal:
        cfg = evidence.config
        yield scaled(cfg, "d_optim.lr", 4.0, "larger steps of D")
        if cfg is not None:
            if cfg.constraints:
                yield setting("constraints", "[]", "D's weights are free")
            if isinstance(cfg.d_steps, int):
                yield setting("d_steps", 2 * cfg.d_steps, "D learns more often")
        if cfg is None or any(type(term).__name__ == "R1" for term in cfg.terms):
            yield with_term(cfg, "R1(gamma=0.1)", "a weaker penalty")


@dataclass(frozen=True)
class Saturated(Symptom):
    """G's loss is flat where D is sure: most generated images give G no gradient."""

    name: ClassVar[str] = "saturated"
    title: ClassVar[str] = "G's loss saturates"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = ("doctor/flat",)
    source: ClassVar[str] = "Goodfellow et al. 2014, sec. 3: the slope of log(1 - s(D)) is s(D), here below 0.01"

    share: float = 0.5

    def seen(self, evidence: Evidence) -> str | None:
        if evidence.stays("doctor/flat", above=self.share) and warm(evidence):
            return f"{evidence.last('doctor/flat')[0]:.0%} of the generated images give G no gradient"
        return None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        cfg = evidence.config
        flat = cfg is None or type(cfg.loss).__name__ == "Saturating"
        own = ("the loss saturates where D is sure",) if flat else ()
        return (*own, "D is too strong", "D's learning rate is too high")

    def changes(self, evidence: Evidence) -> Proposal:
        yield setting("loss", "NonSaturating", "has a gradient where D is sure")
        yield with_term(evidence.config, "R1(gamma=1)", "keeps D unsure near real images")
        yield scaled(evidence.config, "d_optim.lr", 0.25, "smaller steps of D")


@dataclass(frozen=True)
class Vanishes(Symptom):
    """The gradient that reaches generated images is as good as zero."""

    name: ClassVar[str] = "vanishes"
    title: ClassVar[str] = "G's gradient vanishes"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = ("doctor/grad_G", "doctor/flat")
    source: ClassVar[str] = "Adam's eps of 1e-8 takes part from gradients of that size on: 1e-6 over 100 pixels"

    size: float = NO_GRADIENT

    def seen(self, evidence: Evidence) -> str | None:
        if evidence.stays("doctor/grad_G", below=self.size):
            return f"the gradient at a generated image has the norm {evidence.last('doctor/grad_G')[0]:.2g}"
        return None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        cfg = evidence.config
        clipped = cfg is not None and any(type(part).__name__ == "ClipWeights" for part in cfg.constraints)
        dead = (evidence.number("doctor/dead_D") or 0) > 0.9
        return (
            *(("D's weights are clipped too tightly",) if clipped else ()),
            *(("a layer of D is dead",) if dead else ()),
            "D's layers shrink what passes",
            "the loss saturates",
        )

    def changes(self, evidence: Evidence) -> Proposal:
        cfg = evidence.config
        if cfg is not None and cfg.constraints:
            yield setting("constraints", "[ClipWeights(bound=0.01)]", "Arjovsky et al. 2017")
            yield setting("constraints", "[]", "D's weights are free; bound D by the next change")
        yield with_term(cfg, "GradientPenalty", "holds D's slope at 1")
        yield scaled(cfg, "d_optim.lr", 0.25, "smaller steps of D")


def signed(evidence: Evidence) -> bool:
    """Whether the sign of a logit is D's verdict."""
    return evidence.config is None or evidence.config.loss.signed


def bounded(evidence: Evidence) -> bool:
    """Whether the loss estimates a distance: its D may be right about all images, and G still learns."""
    return evidence.config is not None and evidence.config.loss.estimates is not None
