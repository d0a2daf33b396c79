"""Speed of the playground while it trains: frames and replies, seen by a page that draws each frame at once.

    python -m benchmarks.playground --seconds 20 --settings minimax R1 WGAN-GP

A click changes the learning rate, four times a second. Its time ends when the reply arrives.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table
from websockets.sync.client import connect
from websockets.typing import Origin

from equipoise.lab.playground.server import listening

from .report import machine

CLICK_S = 0.25


def measure(address: str, setting: str, seconds: float) -> dict[str, float]:
    """Frames and iterations a second, and milliseconds from a click to its reply."""
    place = urlsplit(address).netloc
    with connect(f"ws://{place}/session", origin=Origin(f"http://{place}"), compression=None) as page:
        page.recv()  # the catalogue
        page.send(json.dumps({"id": -2, "do": "start", "setting": f"setting={setting}"}))
        page.send(json.dumps({"id": -1, "do": "play"}))
        begun, asked, clicks = 0.0, 0.0, list[float]()
        iterations, frames, waits = 0, 0, False
        while not begun or time.perf_counter() < begun + seconds:
            message = page.recv()
            now = time.perf_counter()
            if isinstance(message, str):
                reply = json.loads(message)
                if reply["id"] >= 0:
                    clicks.append(1000 * (now - asked))
                    waits = False
                continue
            page.send('{"do": "drawn"}')
            iteration = json.loads(message[4 : 4 + int.from_bytes(message[:4], "little")])["iteration"]
            if not begun and iteration > 20:
                begun, first = now, iteration
            elif begun:
                frames, iterations = frames + 1, iteration - first
                if not waits and now > asked + CLICK_S:
                    rate = 1e-3 if len(clicks) % 2 else 1.1e-3
                    page.send(json.dumps({"id": len(clicks), "do": "set", "changes": {"d_optim.lr": repr(rate)}}))
                    asked, waits = now, True
    return {
        "frames / s": frames / seconds,
        "iterations / s": iterations / seconds,
        "click, median ms": statistics.median(clicks),
        "click, worst ms": max(clicks),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--settings", nargs="+", default=["minimax", "R1", "WGAN-GP", "SN+SAN"])
    given = parser.parse_args()
    console = Console()
    with listening("127.0.0.1", 0) as (server, address):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found = {setting: measure(address, setting, given.seconds) for setting in given.settings}
    thread.join()
    table = Table("", *next(iter(found.values())))
    for setting, numbers in found.items():
        table.add_row(setting, *(f"{number:.1f}" for number in numbers.values()))
    console.print(table)
    console.print(machine(), soft_wrap=True)


if __name__ == "__main__":
    main()
