"""The doctor: guarantees that a config voids, the geometry of the game, symptoms of a run, and what to change."""

from .arnoldi import Ritz, arnoldi
from .changes import Change
from .dataset import of_images
from .diagnosis import PREFIX, SYMPTOMS, Course, Turn, command, course, examine, of_config, turns
from .evidence import Evidence, Points, curves_of, end
from .field import Field, Jacobian
from .guarantees import discriminator_on_paper, voided, voided_by
from .landscape import Landscape, Measured, Verdict, landscape, spread
from .path import Gradients, Path, gradients, path
from .symptoms import Finding, Symptom
from .telling import line, table
from .watch import Watch

__all__ = [
    "PREFIX",
    "SYMPTOMS",
    "Change",
    "Course",
    "Evidence",
    "Field",
    "Finding",
    "Gradients",
    "Jacobian",
    "Landscape",
    "Measured",
    "Path",
    "Points",
    "Ritz",
    "Symptom",
    "Turn",
    "Verdict",
    "Watch",
    "arnoldi",
    "command",
    "course",
    "curves_of",
    "discriminator_on_paper",
    "end",
    "examine",
    "gradients",
    "landscape",
    "line",
    "of_config",
    "of_images",
    "path",
    "spread",
    "table",
    "turns",
    "voided",
    "voided_by",
]
