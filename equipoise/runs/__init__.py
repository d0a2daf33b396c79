"""A run on disk: claimed, saved, read."""

from .checkpoint import Checkpoints, exist, finished, newest_whole, read_checkpoint
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
from .hub import Repo, download, fetched, hub_name, upload
from .lock import locked
from .logs import LARGEST, Log, read_log
from .networks import NETWORKS, Networks, networks_of, save_networks
from .progress import Progress
from .stats import Sink, Stats, require_finite

__all__ = [
    "LARGEST",
    "NETWORKS",
    "NOTICE",
    "Checkpoints",
    "Log",
    "Networks",
    "Progress",
    "Repo",
    "Run",
    "Sink",
    "Stats",
    "claim",
    "config_text",
    "download",
    "exist",
    "fetched",
    "finished",
    "hub_name",
    "keep_notice",
    "locked",
    "networks_of",
    "newest_whole",
    "notice_of",
    "own_features",
    "parse_config",
    "read_checkpoint",
    "read_log",
    "read_run",
    "record",
    "require_finite",
    "save_networks",
    "statistics_of",
    "threads_before",
    "upload",
]
