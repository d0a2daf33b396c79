"""Experiments on theory: one statement each."""
