"""Looking at a run: a page in the browser that draws its images, and a report in one file."""

from .curves import Band, Chart, Points, chart
from .health import Group, curve, groups, undecided
from .pictures import Mix, Pictures, Query, Samples, Walk
from .remarks import discriminator, remarks
from .report import report, write_report
from .words import Part, described, duration, parts, short

__all__ = [
    "Band",
    "Chart",
    "Group",
    "Mix",
    "Part",
    "Pictures",
    "Points",
    "Query",
    "Samples",
    "Walk",
    "chart",
    "curve",
    "described",
    "discriminator",
    "duration",
    "groups",
    "parts",
    "remarks",
    "report",
    "short",
    "undecided",
    "write_report",
]
