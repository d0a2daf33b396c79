"""Files of numbers that the published StyleGAN code made: networks with their weights, inputs and outputs."""

from __future__ import annotations

import json
from collections.abc import Collection

import torch
from fixtures import numbers
from torch import Tensor, nn
from torch.testing import assert_close

from equipoise.models.published import network

__all__ = ["Published"]

PREFIX = {"stylegan2": "sg2", "stylegan3": "sg3"}
"""Of the files of each family."""


class Published:
    """The tensors of a file by name, and its networks.

    left_out: names of tensors that the file lacks, to keep it small. `is_near` passes for them.
    """

    def __init__(self, family: str, name: str, left_out: Collection[str] = ()):
        arrays = numbers(f"stylegan/{PREFIX[family]}_{name}.npz")
        self.family, self.left_out = family, left_out
        self.cfg = json.loads(str(arrays.pop("config")))
        self.tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def network(self, net: str) -> nn.Module:
        """G or D of the file, in eval mode."""
        return network(f"{self.family}/{net}", self.cfg[f"{net}_kwargs"], self.state(net))

    def state(self, net: str) -> dict[str, Tensor]:
        return {key[2:]: tensor for key, tensor in self.tensors.items() if key.startswith(f"{net}/")}

    def is_near(self, key: str, computed: Tensor, rtol: float = 1e-5) -> None:
        """Assert that `computed` is the stored tensor, or begins with it, up to `rtol` of its largest number."""
        if key in self.left_out:
            assert key not in self.tensors
            return
        stored = self[key]
        atol = rtol * stored.abs().max().item()
        assert_close(computed[: len(stored)].detach(), stored, rtol=0, atol=atol, msg=lambda text: f"{key}: {text}")
