"""The process of one tab: it trains, and looks for messages between iterations.

A thread would not do. Every iteration seeds torch's random state, which all threads of a process share: two tabs would
draw each other's numbers.
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

    The catalogue goes first. Then go replies, as text, and frames, as bytes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process
    torch.set_num_threads(1)  # small layers gain nothing from more threads, and other tabs need theirs
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
