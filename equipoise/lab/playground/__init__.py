"""Train a GAN of points in the browser: pick loss, penalties and norms, watch samples and D, change them on the way.

`equipoise lab playground` serves one page. Each tab that opens it has a process of its own, in which PyTorch trains.
`server` passes messages between the two, and `session` answers them.
"""

from __future__ import annotations

__all__: list[str] = []
