"""Checks for combinations that void a stabiliser's guarantee, and the geometry of the game."""

from .arnoldi import Ritz, arnoldi
from .field import Field, Jacobian
from .guarantees import voided
from .landscape import Landscape, Measured, Verdict, landscape, spread
from .path import Gradients, Path, gradients, path

__all__ = [
    "Field",
    "Gradients",
    "Jacobian",
    "Landscape",
    "Measured",
    "Path",
    "Ritz",
    "Verdict",
    "arnoldi",
    "gradients",
    "landscape",
    "path",
    "spread",
    "voided",
]
