"""A run on disk: claimed, saved, read."""

from .checkpoint import Checkpoints, exist, finished, newest_whole
from .directory import (
    NOTICE,
    Run,
    claim,
    config_text,
    keep_notice,
    notice_of,
    own_features,
    parse_config,
    read_run,
    statistics_of,
)
from .environment import record, threads_before
from .lock import locked
from .logs import LARGEST, Log, read_log
from .progress import Progress
from .stats import Sink, Stats, require_finite

__all__ = [
    "LARGEST",
    "NOTICE",
    "Checkpoints",
    "Log",
    "Progress",
    "Run",
    "Sink",
    "Stats",
    "claim",
    "config_text",
    "exist",
    "finished",
    "keep_notice",
    "locked",
    "newest_whole",
    "notice_of",
    "own_features",
    "parse_config",
    "read_log",
    "read_run",
    "record",
    "require_finite",
    "statistics_of",
    "threads_before",
]
