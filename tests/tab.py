"""A tab of the playground, as its server sees one, and small networks to train in it."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np

from equipoise.config import override
from equipoise.core.grammar import parse
from equipoise.lab.points.gan import plain_gan

SMALL = "generator.width=8&generator.depth=1&discriminator.width=8&discriminator.depth=2&batch_size=16"
TINY = override(plain_gan(), {path: parse(value, {}) for path, value in (p.split("=") for p in SMALL.split("&"))})


def decoded(frame):
    length = int.from_bytes(frame[:4], "little")
    assert length % 4 == 0  # where a browser's Float32Array may begin
    header = json.loads(frame[4 : 4 + length])
    values, arrays = np.frombuffer(frame[4 + length :], "<f4"), {}
    for name, shape in header["arrays"]:
        arrays[name], values = values[: math.prod(shape)].reshape(shape), values[math.prod(shape) :]
    assert len(values) == 0
    return header, arrays


@contextmanager
def opened(address, origin=None):
    """A tab at the address of a server, closed at the end."""
    from websockets.sync.client import connect  # an extra

    place = urlsplit(address).netloc
    with connect(f"ws://{place}/session", origin=origin or f"http://{place}") as socket:
        yield Tab(socket)


class Tab:
    """What a page does: it asks, and draws every frame."""

    def __init__(self, socket):
        self.socket = socket
        self.frame = None
        self.first = json.loads(socket.recv(timeout=60))

    def next(self):
        """The next reply; None for a frame, which is drawn."""
        message = self.socket.recv(timeout=60)
        if isinstance(message, str):
            return json.loads(message)
        self.frame = decoded(message)
        self.socket.send('{"do": "drawn"}')
        return None

    def ask(self, do, **said):
        self.socket.send(json.dumps({"id": do, "do": do, **said}))
        while (reply := self.next()) is None:
            pass
        assert reply["id"] == do
        return reply

    def drain(self):
        """Read on until the connection is closed."""
        while True:
            self.next()
