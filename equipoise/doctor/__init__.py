"""Guarantees that a combination takes away."""

from .guarantees import voided

__all__ = ["voided"]
