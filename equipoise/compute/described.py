"""A device in words, with the reason if a GPU of this machine is not used."""

from __future__ import annotations

import torch

from .devices import nvidia_here

__all__ = ["described"]


def described(device: torch.device) -> str:
    """A device in words: "CPU, 2 threads", or the name of a GPU. Then follows why a GPU that is there is not used."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    if device.type != "cpu":
        return device.type.upper()
    threads = torch.get_num_threads()
    unused = unused_gpu()
    return f"CPU, {threads} {'thread' if threads == 1 else 'threads'}" + (f"; {unused}" if unused else "")


def unused_gpu() -> str:
    """Why torch does not see a GPU that is there; empty if it sees one, or if none is there."""
    if torch.cuda.is_available() or not nvidia_here():
        return ""
    if torch.version.cuda is None and torch.version.hip is None:
        return "this torch has no CUDA although a GPU is there"
    return "torch sees no GPU although one is there: look at its driver and CUDA_VISIBLE_DEVICES"
