"""Measurements of the library's cost and of the gain of its techniques. Each module says how to run it."""
