"""python -m equipoise, which is what torchrun starts."""

from equipoise.cli.app import app

app()
