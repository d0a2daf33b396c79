"""The mapping network of style-based generators: latents and classes -> styles. In D: classes -> vectors w(y)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.compute.distributed import stack_ranks
from equipoise.compute.precision import without_autocast

from .conditioning import labels as labels_of_d
from .conditioning import scaled_weight
from .layers import OneHot, labels
from .norms import PixelNorm
from .scaled import ScaledLinear, scaled_lrelu

__all__ = ["MappedVectors", "Mapping"]


class Mapping(nn.Module):
    """z (N, z_dim), c -> w (N, num_ws, w_dim): a multilayer perceptron on the normalised latent (Karras et al. 2019).

    The input is z and a linear embedding of the class, each divided by the root of its mean square. Every layer, the
    last one included, is followed by `scaled_lrelu`. The average of w is tracked, and truncation moves w towards it:
    w_avg + ψ (w - w_avg). Computed in float32 at least.

    z_dim: 0: the class is the only input, as in D.
    num_classes: 0: no classes.
    num_ws: copies of w, one for each layer that reads a style. None: w (N, w_dim), without an average.
    embed_features: length of the embedding of the class; None: w_dim.
    layer_features: width of the hidden layers; None: w_dim.
    lr_multiplier: of every layer but the embedding, as in `ScaledLinear`.
    w_avg_beta: w_avg <- β w_avg + (1 - β) · mean of w over the batch, of all processes together.
    update_with_graph: whether w_avg also follows batches in training mode whose w carries a graph.
    first_form: as in the first StyleGAN. z and the embedding are concatenated, then divided by the root of their common
        mean square. The embedding has weights N(0, 1) without a factor, and lacks a bias. √2 is a factor of the weights
        and not of the activations, so biases lack it.
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        num_classes: int,
        w_dim: int,
        num_ws: int | None,
        num_layers: int = 8,
        embed_features: int | None = None,
        layer_features: int | None = None,
        lr_multiplier: float = 0.01,
        w_avg_beta: float = 0.995,
        update_with_graph: bool = True,
        first_form: bool = False,
    ):
        super().__init__()
        self.z_dim, self.num_classes, self.w_dim, self.num_ws = z_dim, num_classes, w_dim, num_ws
        self.num_layers, self.w_avg_beta, self.update_with_graph = num_layers, w_avg_beta, update_with_graph
        self.first_form = first_form
        embedded = (w_dim if embed_features is None else embed_features) if num_classes else 0
        self.normalize = PixelNorm()
        hidden = w_dim if layer_features is None else layer_features
        if num_classes:
            self.one_hot = OneHot(num_classes)
            self.embed = ScaledLinear(num_classes, embedded, bias=not first_form)
            if first_form:
                self.embed.gain = 1.0
        widths = [z_dim + embedded, *[hidden] * (num_layers - 1), w_dim]
        for i in range(num_layers):
            layer = ScaledLinear(widths[i], widths[i + 1], lr_multiplier=lr_multiplier)
            if first_form:
                layer.gain *= math.sqrt(2)
            self.add_module(f"fc{i}", layer)
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        *,
        update: bool | None = None,
    ) -> Tensor:
        """(N, z_dim), c -> (N, num_ws, w_dim), or (N, w_dim) if num_ws is None.

        z: None if z_dim is 0.
        c: (N,) int64 classes, or (N, num_classes) weights of the classes, such as one-hot vectors.
        truncation_psi: ψ; 1: no truncation.
        truncation_cutoff: number of copies that truncation changes, from the first; None: all.
        update: whether w_avg follows this batch; None: in training mode, within `update_with_graph`.
        """
        w = self.last(z, c)
        if self.num_ws is None:
            return w
        follows = self.training and (self.update_with_graph or not torch.is_grad_enabled())
        if follows if update is None else update:
            self.track(w)
        w = w.unsqueeze(1).repeat(1, self.num_ws, 1)
        if truncation_psi == 1:
            return w
        cutoff = self.num_ws if truncation_cutoff is None else truncation_cutoff
        return torch.cat([self.w_avg.lerp(w[:, :cutoff], truncation_psi), w[:, cutoff:]], dim=1)

    def last(self, z: Tensor | None, c: Tensor | None) -> Tensor:
        """The output of the last layer, (N, w_dim)."""
        inputs = [] if z is None or not self.z_dim else [z]
        if self.num_classes:
            inputs.append(self.embedding(c))
        h: Tensor
        if self.first_form:
            h = self.normalize(torch.cat(inputs, dim=1))
        else:
            h = torch.cat([self.normalize(part) for part in inputs], dim=1)
        h = h.to(torch.promote_types(h.dtype, torch.float32))
        with without_autocast(h):
            for i in range(self.num_layers):
                h = self.get_submodule(f"fc{i}")(h)
                h = F.leaky_relu(h, 0.2) if self.first_form else scaled_lrelu(h)
        return h

    def embedding(self, c: Tensor | None) -> Tensor:
        """Raises ValueError without classes."""
        weights = labels(c)
        if not weights.is_floating_point():
            weights = self.one_hot(weights)
        weights = weights.to(self.embed.weight.dtype)
        with without_autocast(weights):
            embedded: Tensor = self.embed(weights)
        return embedded

    @torch.no_grad()
    def track(self, w: Tensor) -> None:
        """Move w_avg towards the mean of w (N, w_dim) over all processes. Each must call this equally often."""
        count = w.new_full((1,), len(w))
        sums = stack_ranks(torch.cat([w.detach().sum(0), count])).sum(0)
        self.w_avg.copy_((sums[:-1] / sums[-1]).lerp(self.w_avg, self.w_avg_beta))


class MappedVectors(nn.Module):
    """w(y) = Aᵀ m(y) / √M, so that the logit is <A h + b, m(y)> / √M (Karras et al. 2020b, in the authors' code).

    m (M,) is a `Mapping` of the class alone. A (M, F) and b are a `ScaledLinear`.

    mapping: of `num_classes` classes, with `num_ws=None`.
    bias: whether there is a b; `AffineHead` adds <b, m(y)> / √M.
    """

    def __init__(self, features: int, mapping: Mapping, *, init_std: float | None = None, bias: bool = False):
        super().__init__()
        self.out = ScaledLinear(features, mapping.w_dim, bias=bias)
        if init_std is not None:
            nn.init.normal_(self.out.weight, 0.0, init_std / self.out.gain)
        self.mapping = mapping

    def mapped(self, y: Tensor | None) -> Tensor:
        """m(y) / √M, (N, M)."""
        labels_of_d(y)
        m: Tensor = self.mapping(None, y)
        return m / math.sqrt(m.shape[1])

    def vectors(self, m: Tensor) -> Tensor:
        with without_autocast(m):
            return m @ scaled_weight(self.out)

    def forward(self, y: Tensor | None) -> Tensor:
        return self.vectors(self.mapped(y))  # (N, F)

    def affine(self, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """w(y), and the offset, (N,), or None."""
        m = self.mapped(y)
        return self.vectors(m), None if self.out.bias is None else (m * self.out.bias).sum(1)
