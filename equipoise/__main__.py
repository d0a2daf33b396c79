"""python -m equipoise, which is what torchrun starts."""

from .cli import app

app()
