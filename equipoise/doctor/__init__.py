"""The doctor: guarantees that a config voids, symptoms of a run, and what to change."""

from .changes import Change
from .dataset import of_images
from .diagnosis import PREFIX, SYMPTOMS, Course, Turn, command, course, examine, of_config, turns
from .evidence import Evidence, Points, curves_of, end
from .guarantees import discriminator_on_paper, voided, voided_by
from .symptoms import Finding, Symptom
from .telling import line, table
from .watch import Watch

__all__ = [
    "PREFIX",
    "SYMPTOMS",
    "Change",
    "Course",
    "Evidence",
    "Finding",
    "Points",
    "Symptom",
    "Turn",
    "Watch",
    "command",
    "course",
    "curves_of",
    "discriminator_on_paper",
    "end",
    "examine",
    "line",
    "of_config",
    "of_images",
    "table",
    "turns",
    "voided",
    "voided_by",
]
