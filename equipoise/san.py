"""`sanify`: a SAN out of anybody's discriminator.

The network runs as it is, and the torch functions it calls are watched. A linear or convolutional call whose
output leaves the network, reshaped at most, is a last layer: it is computed once more, from the same input and
the same weight, as the pair of `heads.split`. So no layer is replaced, a normalised weight is read once per
forward as before, and layers written with `F.linear` or `F.conv2d` count as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from .heads import LinearHead, SANHead, split
from .types import Logits

__all__ = ["sanify"]

AFFINE = frozenset((F.linear, F.conv1d, F.conv2d, F.conv3d))
"""The functions a last layer may call."""

JOINS = {"cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"}
"""Reshapes, by name, that join several tensors."""

RESHAPES = (
    JOINS
    | {"view", "view_as", "reshape", "reshape_as", "flatten", "ravel", "unflatten", "squeeze", "unsqueeze"}
    | {"permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "T", "mT", "pixel_shuffle", "flip"}
    | {"getitem", "select", "narrow", "index_select", "gather", "take_along_dim"}
    | {"split", "split_with_sizes", "tensor_split", "chunk", "unbind", "hsplit", "vsplit", "dsplit"}
    | {"contiguous", "clone", "expand", "expand_as", "repeat", "broadcast_to"}
    | {"to", "type", "type_as", "float", "double", "half", "bfloat16", "cpu", "cuda"}
)
"""What may follow a last layer, by name: all that moves, selects, repeats or casts logits and computes nothing."""

OTHER_WEIGHTS = (
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.Bilinear,
    nn.RNNBase,
)
"""Layers with a weight that are no last layers."""

ADVICE = {
    "sigmoid": "Remove it: the losses of equipoise take logits; the cross-entropy of their sigmoid is NonSaturating()",
    "add": "A term for the class belongs in the weight: build D with equipoise.heads, SANHead(Projection(...))",
}
OTHER_ADVICE = "Return the logits as they are; if these are none, name the layers that make them: sanify(D, layers=...)"


def sanify(discriminator: nn.Module, layers: str | Sequence[str] | None = None) -> nn.Module:
    """Turn a discriminator into a SAN (Takida et al. 2024), in place, and return it.

        D = sanify(D)
        loss = discriminator_loss(Hinge(), D(real), D(fake))

    Parameters, `state_dict` and outputs stay what they were. Where D returned logits it returns `Logits(fun, dir)`
    of the same shape, in the same nested list, tuple or dict; other outputs, such as feature maps, stay tensors.
    Logits are float32 (float64 if D is), under autocast too.

    layers: names of the last layers, as in ``D.named_modules()``, for a D with other linear outputs that are no
        logits, such as an auxiliary classifier's. None takes every linear or convolutional layer whose output
        leaves D without entering another one.

    Raises:
        ValueError: here, if D can have no such layer or a name is wrong; when D is called, if anything but
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

    plain: the forward it had before.
    trace: the watch on the call under way.
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
        """A forward hook of the module that `layers` calls `name`."""
        if self.trace is not None:
            for origin in self.trace.known(output).values():
                for call in origin.calls:
                    call.label = name

    def logits(self, origins: Mapping[Path, Origin]) -> dict[Path, Logits]:
        """What takes the place of each last layer's output.

        The same logits may be there twice, reshaped and, among the feature maps, as they left the layer (HiFi-GAN).
        What lies deeper in the output than another form of them stays a plain tensor.
        """
        raw = {path: o for path, o in origins.items() if isinstance(o, Raw) and self.last(o) == o.calls}
        self.check_output(origins.values(), {call for origin in raw.values() for call in origin.calls})
        depth: dict[Call, int] = {}
        for path in sorted(raw, key=len, reverse=True):
            depth |= dict.fromkeys(raw[path].calls, len(path))
        shallow = {path: o for path, o in raw.items() if any(depth[call] == len(path) for call in o.calls)}
        return {path: Logits(origin.half(0), origin.half(1)) for path, origin in shallow.items()}

    def last(self, origin: Origin) -> list[Call]:
        """Those of the calls behind a tensor that are a last layer's."""
        return [c for c in origin.calls if not c.hidden and (self.layers is None or c.label is not None)]

    def check_output(self, origins: Iterable[Origin], raw: set[Call]) -> None:
        """Raises ValueError unless every last layer that reaches the output is there raw, and one is."""
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


# ---- watching a forward ----------------------------------------------------------------------------------

Function = Callable[..., Any]


class Call:
    """One call of a linear or convolutional function, op(h, w, b).

    hidden: whether another such call has read what came of it, so that it is no last layer.
    label: the name in `layers` of the module that made it.
    """

    def __init__(self, op: Function, h: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **options: Any):
        self.op, self.h, self.weight, self.bias, self.rest, self.options = op, h, weight, bias, rest, options
        self.version = version(h)
        self.hidden = False
        self.label: str | None = None
        self.halves: tuple[Tensor, ...] = ()

    def half(self, index: int) -> Tensor:
        """`fun` for 0, `dir` for 1."""
        if not self.halves:
            self.halves = self.compute()
        return self.halves[index]

    def compute(self) -> tuple[Tensor, Tensor]:
        """(fun, dir). Every output channel has its own w, and its bias is one more element of it."""
        if version(self.h) != self.version:
            raise ValueError(
                "the input of a last layer was changed in place after the layer had read it, and a SAN reads it again. "
                "Give the activation that did so inplace=False"
            )
        dtype = torch.promote_types(torch.promote_types(self.h.dtype, self.weight.dtype), torch.float32)
        with torch.autocast(self.h.device.type, enabled=False):
            h, w = self.h.to(dtype), self.weight.to(dtype).flatten(1)  # w (K, F)
            if self.bias is not None:
                w = torch.cat([w, self.bias.to(dtype).unsqueeze(1)], 1)  # (K, F + 1)
            length, direction = split(w)
            return self.again(h, length), self.again(h.detach(), direction)

    def again(self, h: Tensor, w: Tensor) -> Tensor:
        """op(h, w, b) with w (K, F), or (K, F + 1) with the bias."""
        features = self.weight[0].numel()
        bias = None if self.bias is None else w[:, features]
        result: Tensor = self.op(h, w[:, :features].reshape(self.weight.shape), bias, *self.rest, **self.options)
        return result

    def name(self, network: nn.Module) -> str:
        """The layer's name, if the network holds its weight or bias as such; else what it called."""
        for name, module in network.named_modules():
            own = [*module.parameters(recurse=False), *vars(module).values()]  # hooked norms keep a plain attribute
            if any(x is not None and (x is self.weight or x is self.bias) for x in own):
                return repr(name or type(module).__name__)
        return f"({self.op.__name__} with weight {tuple(self.weight.shape)})"


@dataclass(eq=False)
class Origin:
    """Where a tensor comes from.

    calls: the last linear or convolutional calls before it.
    then: the first function after them that was no reshape; "" for none.
    """

    calls: list[Call]
    then: str = ""


@dataclass(eq=False)
class Raw(Origin):
    """The origin of what calls computed and reshapes changed.

    half: 0 -> `fun`, 1 -> `dir`, reshaped likewise.
    version: of the tensor, which any change in place raises.
    """

    half: Callable[[int], Tensor] = field(kw_only=True)
    version: int = field(kw_only=True)


class Trace(TorchFunctionMode):
    """Keeps the origins of the tensors that a network computes inside it.

    origins: id -> (tensor, origin), for tensors that no further linear or convolutional call has read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.origins: dict[int, tuple[Tensor, Origin]] = {}

    def __torch_function__(self, func: Function, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        sources = self.known((args, kwargs))
        output = func(*args, **kwargs)
        if func in AFFINE:
            self.hide(sources.values())
            call = Call(func, *args, **kwargs)
            self.keep(output, Raw([call], half=call.half, version=version(output)))
        elif sources:
            self.follow(output, func, (args, kwargs), sources)
        return output

    def keep(self, tensor: Tensor, origin: Origin) -> None:
        self.origins[id(tensor)] = (tensor, origin)

    def hide(self, origins: Iterable[Origin]) -> None:
        """Mark calls that are no last layers, and forget (and so free) what came of them alone."""
        for origin in origins:
            for call in origin.calls:
                call.hidden = True
        self.origins = {key: (t, o) for key, (t, o) in self.origins.items() if not all(c.hidden for c in o.calls)}

    def follow(self, output: Any, func: Function, arguments: Any, sources: Mapping[Path, Origin]) -> None:
        """Derive the origins of func's output from those of its arguments."""
        raw = {path: origin for path, origin in sources.items() if isinstance(origin, Raw)}
        name = name_of(func)
        joined = len(tensors(arguments)) if name in JOINS else len(sources)
        if name in RESHAPES and len(raw) == joined:
            for path, tensor in tensors(output).items():
                half = partial(reshaped, func, arguments, raw, path)
                self.keep(tensor, Raw(calls_of(raw.values()), half=half, version=version(tensor)))
        else:
            origin = computed(name, list(sources.values()))
            for tensor in tensors(output).values():
                self.keep(tensor, origin)

    def known(self, tree: Any) -> dict[Path, Origin]:
        """Origins of the tensors in nested lists, tuples and dicts, by their place."""
        found = {path: id(tensor) for path, tensor in tensors(tree).items() if id(tensor) in self.origins}
        return {path: current(*self.origins[key]) for path, key in found.items()}


def current(tensor: Tensor, origin: Origin) -> Origin:
    """`origin`, unless the tensor has changed since."""
    if isinstance(origin, Raw) and version(tensor) != origin.version:
        return Origin(origin.calls, "in-place operation")
    return origin


def calls_of(origins: Iterable[Origin]) -> list[Call]:
    return list(dict.fromkeys(call for origin in origins for call in origin.calls))


def computed(name: str, sources: Sequence[Origin]) -> Origin:
    """The origin of what function `name` computed, and did not reshape."""
    if len(sources) == 1 and sources[0].then:
        return sources[0]
    return Origin(calls_of(sources), next((origin.then for origin in sources if origin.then), name))


def reshaped(func: Function, arguments: Any, sources: Mapping[Path, Raw], path: Path, index: int) -> Tensor:
    """The output of func at `path`, computed from one half of the logits in its arguments."""
    args, kwargs = replaced(arguments, {place: origin.half(index) for place, origin in sources.items()})
    return tensors(func(*args, **kwargs))[path]


def version(tensor: Tensor) -> int:
    """How often a tensor has changed in place, where torch counts it."""
    return 0 if torch.compiler.is_compiling() or tensor.is_inference() else tensor._version


def name_of(func: Any) -> str:
    """'sigmoid' for torch.sigmoid and Tensor.sigmoid_, 'getitem' for indexing, 'T' for the attribute."""
    name = getattr(func, "__name__", repr(func))
    if name == "__get__":
        name = func.__self__.__name__
    return str(name).strip("_")


# ---- nested lists, tuples and dicts ----------------------------------------------------------------------

Path = tuple[Any, ...]


def tensors(tree: Any, path: Path = ()) -> dict[Path, Tensor]:
    """The tensors in a tree, by their place in it."""
    if isinstance(tree, Tensor):
        return {path: tree}
    found: dict[Path, Tensor] = {}
    if isinstance(tree, (list, tuple, dict)):
        for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
            if isinstance(part, (Tensor, list, tuple, dict)):
                found |= tensors(part, (*path, key))
    return found


def replaced(tree: Any, values: Mapping[Path, Any], path: Path = ()) -> Any:
    """A copy of `tree` with other values at some places."""
    if path in values:
        return values[path]
    if isinstance(tree, dict):
        new = tree.copy()
        new.update({key: replaced(part, values, (*path, key)) for key, part in tree.items()})
        return new
    if isinstance(tree, (list, tuple)):
        parts = [replaced(part, values, (*path, key)) for key, part in enumerate(tree)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return tree


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
        if isinstance(module, (LinearHead, SANHead)):
            raise ValueError("a discriminator of equipoise has its own heads: set head.san=true, or use SANHead")
    if not may_be_affine(network):
        raise ValueError(f"{type(network).__name__} has no Linear or Conv layer, and a SAN needs one as its last")
    last = end_of(network)
    if type(last).__module__ == nn.ReLU.__module__:
        raise ValueError(followed_by(type(last).__name__, "of this nn.Sequential"))
    if layers is not None:
        check_names(network, layers)


def check_names(network: nn.Module, layers: Sequence[str]) -> None:
    modules = dict(network.named_modules())
    known = [name for name, module in modules.items() if may_be_affine(module) and "parametrizations" not in name]
    if not layers:
        raise ValueError(f"layers={layers!r} names no layer: give some of {known}, or None to find the last layers")
    for name in layers:
        if name not in modules:
            near = get_close_matches(name, known, n=1, cutoff=0)
            raise ValueError(f"there is no layer {name!r}, did you mean {near[0]!r}? The network has {known}")
        if name not in known:
            kind = type(modules[name]).__name__
            raise ValueError(f"layer {name!r} is {kind}, and a last layer is Linear, Conv1d, Conv2d or Conv3d")


def may_be_affine(network: nn.Module) -> bool:
    """Whether there is a matrix in it that `F.linear` or a convolution may use; a lazy layer's counts as one."""
    layers = (module for module in network.modules() if not isinstance(module, OTHER_WEIGHTS))
    return any(is_lazy(p) or p.ndim > 1 for layer in layers for p in layer.parameters(recurse=False))


def end_of(network: nn.Module) -> nn.Module:
    """The last step of an nn.Sequential that is no reshape; any other network itself."""
    while type(network).forward is nn.Sequential.forward:
        steps = [step for step in network.children() if not isinstance(step, (nn.Flatten, nn.Unflatten, nn.Identity))]
        if not steps:
            break
        network = steps[-1]
    return network


def followed_by(then: str, layer: str) -> str:
    return (
        f"{then!r} follows the last layer {layer}, and a SAN needs its raw logits, reshaped at most. "
        f"{ADVICE.get(then.lower(), OTHER_ADVICE)}"
    )
