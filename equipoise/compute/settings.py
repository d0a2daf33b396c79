"""How a run computes: a component of its config, checked against the rest of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from equipoise.core.types import component

__all__ = ["Compute"]


@component
class Compute:
    """How a run computes, and where.

    precision: "bf16" computes the losses of both players in bfloat16, with weights, norms, logits, penalties and
        optimisers in float32; "tf32" all products of float32 numbers in TF32, on a GPU that has it. "auto" measures
        whether one of them is faster here, says what it chose, and keeps to it.
    convolutions: "measured" computes each convolution in the way that was fastest here, which rounds differently.
    compile: compile the networks for the losses (`torch.compile`); penalties, which differentiate twice, run as they
        are. "reduce-overhead" and "max-autotune" are torch's modes: on a GPU both replay CUDA graphs (not tried yet).
    micro_batch: at most so many images of a process at a time; gradients add up to those of the whole batch, in less
        memory. What compares the images of a batch (batch norm, minibatch layers) compares those of a piece.
    device: "auto" is a GPU if there is one, else the CPU. Or a device of torch: "cpu", "cuda", "cuda:1". With "auto"
        and "cuda" each process of a machine has a GPU of its own. A run may be resumed on another device.

    Raises:
        ValueError: for a device whose name torch does not know, and for measured convolutions of compiled networks.
    """

    precision: Literal["float32", "tf32", "bf16", "auto"] = "float32"
    convolutions: Literal["torch", "measured"] = "torch"
    compile: bool | Literal["reduce-overhead", "max-autotune"] = False
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        """Raises ValueError for `compile` with `convolutions=measured`: the compiler chooses how convolutions are
        computed. Use one of the two.

        Raises ValueError for a `device` whose name torch does not know. Give `auto`, `cpu`, `cuda` or `cuda:1`.
        """
        if self.compile and self.convolutions == "measured":
            raise ValueError(
                "compute.compile=true and compute.convolutions=measured do not go together: the compiler chooses how "
                "convolutions are computed. Use compute.compile=false, or compute.convolutions=torch."
            )
        try:
            torch.device("cpu" if self.device == "auto" else self.device)
        except RuntimeError:
            raise ValueError(
                f"compute.device={self.device!r} is no device of torch: give auto, cpu, cuda, or one GPU as cuda:1"
            ) from None

    @property
    def replays(self) -> bool:
        """Whether the compiled networks replay CUDA graphs, which write to the same place each time."""
        return isinstance(self.compile, str)

    def check(self, cfg: Any) -> None:
        """Raises ValueError for `compile=reduce-overhead` or `max-autotune` with `game.reuse` or `micro_batch`: a
        replayed CUDA graph overwrites images that the update still needs. Set `compile=true`.
        """
        if self.replays and (cfg.game.reuse or self.micro_batch is not None):
            other = "game.reuse=true" if cfg.game.reuse else f"compute.micro_batch={self.micro_batch}"
            raise ValueError(
                f"compute.compile={self.compile} and {other} do not go together: a CUDA graph that is replayed "
                "overwrites what its last run left, and this is still needed. Use compute.compile=true, or go without "
                "it."
            )
