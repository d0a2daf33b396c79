"""The process of one tab: it trains, and looks for messages between iterations.

It is no thread, because torch's random state, which every iteration seeds, is one for all threads of a process: two
tabs would draw each other's numbers.
"""

from __future__ import annotations

import json
import signal
from multiprocessing.connection import Connection

import torch

from ..points.settings import SETTINGS
from .choices import catalogue
from .session import Session

__all__ = ["work"]


def work(pipe: Connection) -> None:
    """Answer the page at the other end of `pipe` until it is gone.

    First goes the catalogue; then replies, as text, and frames, as bytes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process
    torch.set_num_threads(1)  # small layers gain nothing from more, and other tabs need theirs
    settings = [{"name": name, "line": setting.source} for name, setting in SETTINGS.items()]
    try:
        pipe.send(json.dumps({"settings": settings, "catalogue": catalogue()}))
        session = Session()
        while True:
            while pipe.poll(session.patience()):
                reply = session.hear(pipe.recv())
                if reply is not None:
                    pipe.send(reply)
            session.train()
            frame = session.frame()
            if frame is not None:
                pipe.send(frame)
    except (EOFError, ConnectionError):
        return
