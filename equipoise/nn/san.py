"""`sanify`: turn any discriminator into a SAN.

The network runs as it is, while the torch functions it calls are watched. A linear or convolutional call whose
output leaves the network, at most reshaped, is a last layer. It is computed once more, from the same input and
the same weight, as the pair of `heads.split`. So no layer is replaced, and a normalised weight is read once per
forward as before. Layers written with `F.linear` or `F.conv2d` count as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, TypeVar

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy

from equipoise.core.types import Logits

from .heads import LinearHead, SANHead, SemiSupervisedHead
from .tracing import Call, Origin, Place, Raw, Trace, replaced

__all__ = ["sanify"]

OTHER_WEIGHTS = (
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.Bilinear,
    nn.RNNBase,
)
"""Layers that have a weight but cannot be a last layer."""

ADVICE = {
    "sigmoid": "Remove it: the losses of equipoise take logits; the cross-entropy of their sigmoid is NonSaturating()",
    "add": "A term for the class belongs in the weight: build D with equipoise.nn, SANHead(ProjectionVectors(...))",
}
OTHER_ADVICE = "Return the raw logits; if these are not logits, name the layers that make them: sanify(D, layers=...)"


M = TypeVar("M", bound=nn.Module)


def sanify(discriminator: M, layers: str | Sequence[str] | None = None) -> M:
    """Turn a discriminator into a SAN (Takida et al. 2024), in place, and return it.

        D = sanify(D)
        loss = discriminator_loss(Hinge(), D(real), D(fake))

    Parameters, `state_dict` and output values stay the same. Where D returned logits it returns `Logits(fun, dir)`
    of the same shape, in the same nested list, tuple or dict; other outputs, such as feature maps, stay tensors.
    Logits are float32 (float64 if D is), under autocast too.

    layers: names of the last layers, as in ``D.named_modules()``. Give them for a D that also returns linear outputs
        other than logits, such as an auxiliary classifier's. None takes every linear or convolutional layer whose
        output leaves D without entering another one.

    Raises:
        ValueError: at once, if D cannot have such a layer or a name is wrong; when D is called, if anything but
            reshapes follows a last layer.
    """
    names = (layers,) if isinstance(layers, str) else layers
    check(discriminator, names)
    plain = vars(discriminator).get("forward") or partial(type(discriminator).forward, discriminator)
    discriminator.forward = SanForward(discriminator, plain, names)
    for name in names or ():
        discriminator.get_submodule(name).register_forward_hook(partial(discriminator.forward.label, name))
    return discriminator


class SanForward:
    """The forward of a sanified network: an attribute of the network, copied and pickled with it.

    plain: the network's own forward.
    trace: records the current call; None between calls.
    """

    def __init__(self, network: nn.Module, plain: Callable[..., Any], layers: Sequence[str] | None):
        self.network, self.plain, self.layers = network, plain, layers
        self.trace: Trace | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.trace = trace = Trace()
        try:
            with trace:
                output = self.plain(*args, **kwargs)
            return replaced(output, self.logits(trace.known(output)))
        finally:
            self.trace = None

    def label(self, name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        """Label the calls behind a module's output: a forward hook of the module `name` in `layers`."""
        if self.trace is not None:
            for origin in self.trace.known(output).values():
                for call in origin.calls:
                    call.label = name

    def logits(self, origins: Mapping[Place, Origin]) -> dict[Place, Logits]:
        """The `Logits` that replace each last layer's output, by place.

        The same logits may occur twice: reshaped, and among the feature maps as they left the layer (HiFi-GAN). The
        shallowest occurrence in the output is replaced; deeper ones stay plain tensors.
        """
        raw = {path: o for path, o in origins.items() if isinstance(o, Raw) and self.last(o) == o.calls}
        self.check_output(origins.values(), {call for origin in raw.values() for call in origin.calls})
        depth: dict[Call, int] = {}
        for path in sorted(raw, key=len, reverse=True):
            depth |= dict.fromkeys(raw[path].calls, len(path))
        shallow = {path: o for path, o in raw.items() if any(depth[call] == len(path) for call in o.calls)}
        return {path: Logits(origin.half(0), origin.half(1)) for path, origin in shallow.items()}

    def last(self, origin: Origin) -> list[Call]:
        """The calls of last layers behind a tensor."""
        return [c for c in origin.calls if not c.hidden and (self.layers is None or c.label is not None)]

    def check_output(self, origins: Iterable[Origin], raw: set[Call]) -> None:
        """Raises ValueError if a last layer reaches the output changed by more than reshapes, or none reaches it."""
        for origin in origins:
            for call in self.last(origin):
                if call not in raw:
                    raise ValueError(followed_by(origin.then, call.name(self.network)))
        if not raw:
            layers = "a linear or convolutional layer" if self.layers is None else " or ".join(map(repr, self.layers))
            raise ValueError(
                f"{type(self.network).__name__} returned nothing that {layers} computed and only reshapes changed. "
                "A SAN needs a Linear or Conv layer whose output is returned and enters no other layer"
            )


# ---- what can be refused before a forward ----------------------------------------------------------------


def check(network: nn.Module, layers: Sequence[str] | None) -> None:
    """Raises ValueError if `network` cannot become a SAN, as far as its modules tell."""
    if not isinstance(network, nn.Module):
        raise ValueError(f"sanify takes a network, an nn.Module, got {network!r}")
    if isinstance(network, (nn.DataParallel, DistributedDataParallel)) or hasattr(network, "_orig_mod"):
        raise ValueError(f"sanify the network before it is wrapped: got {type(network).__name__}")
    for module in network.modules():
        if isinstance(vars(module).get("forward"), SanForward):
            raise ValueError(f"{type(module).__name__} is a SAN already: call sanify once")
        if isinstance(module, SemiSupervisedHead):
            raise ValueError("K + 1 classes have no SAN: their logit is not linear in the features")
        if isinstance(module, (LinearHead, SANHead)):
            raise ValueError("a discriminator of equipoise has its own heads: set head.san=true, or use SANHead")
    if not may_be_affine(network):
        raise ValueError(f"{type(network).__name__} has no Linear or Conv layer, and a SAN needs one as its last")
    last = end_of(network)
    if type(last).__module__ == nn.ReLU.__module__:  # the module of all activations
        raise ValueError(followed_by(type(last).__name__, "of this nn.Sequential"))
    if layers is not None:
        check_names(network, layers)


def check_names(network: nn.Module, layers: Sequence[str]) -> None:
    modules = dict(network.named_modules())
    affine = [name for name, module in modules.items() if may_be_affine(module) and "parametrizations" not in name]
    if not layers:
        raise ValueError(f"layers={layers!r} names no layer: give some of {affine}, or None to find the last layers")
    for name in layers:
        if name not in modules:
            near = get_close_matches(name, affine, n=1, cutoff=0)
            raise ValueError(f"there is no layer {name!r}, did you mean {near[0]!r}? The network has {affine}")
        if name not in affine:
            kind = type(modules[name]).__name__
            raise ValueError(f"layer {name!r} is {kind}, and a last layer is Linear, Conv1d, Conv2d or Conv3d")


def may_be_affine(network: nn.Module) -> bool:
    """Whether `network` holds a matrix that `F.linear` or a convolution may use. A lazy layer's weight counts."""
    layers = (module for module in network.modules() if not isinstance(module, OTHER_WEIGHTS))
    return any(is_lazy(p) or p.ndim > 1 for layer in layers for p in layer.parameters(recurse=False))


def end_of(network: nn.Module) -> nn.Module:
    """The last step of an nn.Sequential, reshapes left out; any other network itself."""
    while type(network).forward is nn.Sequential.forward:
        steps = [step for step in network.children() if not isinstance(step, (nn.Flatten, nn.Unflatten, nn.Identity))]
        if not steps:
            break
        network = steps[-1]
    return network


def followed_by(then: str, layer: str) -> str:
    return (
        f"{then!r} follows the last layer {layer}, and a SAN needs its raw logits, at most reshaped. "
        f"{ADVICE.get(then.lower(), OTHER_ADVICE)}"
    )
