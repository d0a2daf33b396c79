"""Checks for combinations that void a stabiliser's guarantee."""

from .guarantees import voided

__all__ = ["voided"]
