"""Settings of a run's computation: a component of its config."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from equipoise.core.types import component

__all__ = ["Compute"]


@component
class Compute:
    """Settings of a run's computation: precision, compilation, memory, device.

    precision: "bf16" computes the losses of both players in bfloat16; weights, norms, logits, penalties and optimisers
        stay in float32. "tf32" computes all float32 products in TF32, on a GPU that has it. "auto" measures whether
        one of them is faster here, reports the choice, and keeps it.
    convolutions: "measured" computes each convolution in the way that was fastest here. Rounding differs from "torch".
    compile: compile the networks for the losses (`torch.compile`). Penalties differentiate twice and run uncompiled.
        "reduce-overhead" and "max-autotune" are torch's modes: on a GPU both replay CUDA graphs (not tried yet).
    micro_batch: most images of a process at a time; None is all. Gradients add up to the full batch's, in less memory.
        Layers that compare images (batch norm, minibatch layers) compare only the images of a piece.
    device: "auto" is a GPU with CUDA (or ROCm) if there is one, else the CPU. Or a device of torch: "cpu", "cuda",
        "cuda:1", "mps" (a Mac's GPU, not tried yet). With "auto" and "cuda" each process of a machine has its own GPU.
        A run may be resumed on another device. What a device cannot do is done otherwise, and said when a run starts.

    Raises:
        ValueError: for a device name that torch does not know, or measured convolutions in compiled networks.
    """

    precision: Literal["float32", "tf32", "bf16", "auto"] = "float32"
    convolutions: Literal["torch", "measured"] = "torch"
    compile: bool | Literal["reduce-overhead", "max-autotune"] = False
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        """Raises ValueError for `compile` with `convolutions=measured`: the compiler chooses how convolutions are
        computed. Use one of the two.

        Raises ValueError for a `device` whose name torch does not know. Give `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
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
                f"compute.device={self.device!r} is not a torch device: give auto, cpu, cuda, one GPU as cuda:1, or mps"
            ) from None

    @property
    def replays(self) -> bool:
        """Whether compiled networks replay CUDA graphs. Each replay overwrites the outputs of the last."""
        return isinstance(self.compile, str)

    def check(self, cfg: Any) -> None:
        """Raises ValueError for `compile=reduce-overhead` or `max-autotune` with `game.reuse` or `micro_batch`: a
        replayed CUDA graph overwrites images that the update still needs. Set `compile=true`.
        """
        if self.replays and (cfg.game.reuse or self.micro_batch is not None):
            other = "game.reuse=true" if cfg.game.reuse else f"compute.micro_batch={self.micro_batch}"
            raise ValueError(
                f"compute.compile={self.compile} and {other} do not go together: a replayed CUDA graph overwrites the "
                "outputs of its last run, which are still needed. Use compute.compile=true, or leave out the other "
                "setting."
            )
