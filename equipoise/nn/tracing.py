"""Origins of the tensors that a network returns: the linear layer that computed them, and what followed it.

A `Trace` watches the torch functions that a forward calls, and records for each tensor the linear or convolutional
calls behind it. `san` reads it. Nothing here depends on discriminators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from equipoise.compute.precision import without_autocast

from .heads import split

__all__ = ["Call", "Origin", "Place", "Raw", "Trace", "replaced"]

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
"""Functions, by name, that may follow a last layer: they move, select, repeat or cast logits and compute nothing."""


Function = Callable[..., Any]


class Call:
    """One call of a linear or convolutional function, op(h, w, b).

    hidden: whether another such call has read its result, so that it is not a last layer.
    label: the name in `layers` of the module that made the call.
    """

    def __init__(
        self,
        op: Function,
        input: Tensor,  # noqa: A002  (torch's name, which a call may use)
        weight: Tensor,
        bias: Tensor | None = None,
        *rest: Any,
        **options: Any,
    ):
        self.op, self.h, self.weight, self.bias, self.rest, self.options = op, input, weight, bias, rest, options
        self.version = version(input)
        self.hidden = False
        self.label: str | None = None
        self.halves: tuple[Tensor, ...] = ()

    def half(self, index: int) -> Tensor:
        """`fun` for 0, `dir` for 1."""
        if not self.halves:
            self.halves = self.compute()
        return self.halves[index]

    def compute(self) -> tuple[Tensor, Tensor]:
        """(fun, dir). Every output channel has its own w, with its bias as one more element."""
        if version(self.h) != self.version:
            raise ValueError(
                "the input of a last layer was changed in place after the layer had read it, and a SAN reads it again. "
                "Give the activation that did so inplace=False"
            )
        dtype = torch.promote_types(torch.promote_types(self.h.dtype, self.weight.dtype), torch.float32)
        with without_autocast(self.h):
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
        """The layer's name if the network holds its weight or bias, else the function it called."""
        for name, module in network.named_modules():
            held = [*module.parameters(recurse=False), *vars(module).values()]  # hooked norms keep a plain attribute
            if any(x is not None and (x is self.weight or x is self.bias) for x in held):
                return repr(name or type(module).__name__)
        return f"({self.op.__name__} with weight {tuple(self.weight.shape)})"


@dataclass(eq=False)
class Origin:
    """Where a tensor comes from.

    calls: the last linear or convolutional calls before it.
    then: the first function after them other than a reshape; "" if there is none.
    """

    calls: list[Call]
    then: str = ""


@dataclass(eq=False)
class Raw(Origin):
    """The origin of a tensor that calls computed and only reshapes changed.

    half: 0 -> `fun`, 1 -> `dir`, reshaped like the tensor.
    version: of the tensor; every change in place raises it.
    """

    half: Callable[[int], Tensor] = field(kw_only=True)
    version: int = field(kw_only=True)


class Trace(TorchFunctionMode):
    """Record the origins of the tensors that a network computes in this context.

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
        """Mark the calls of `origins` as hidden, and forget (and so free) tensors that come from hidden calls only."""
        for origin in origins:
            for call in origin.calls:
                call.hidden = True
        self.origins = {key: (t, o) for key, (t, o) in self.origins.items() if not all(c.hidden for c in o.calls)}

    def follow(self, output: Any, func: Function, arguments: Any, sources: Mapping[Place, Origin]) -> None:
        """Derive the origins of func's output from the origins of its arguments."""
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

    def known(self, tree: Any) -> dict[Place, Origin]:
        """Origins of the tensors in nested lists, tuples and dicts, by their place."""
        ids = {path: id(tensor) for path, tensor in tensors(tree).items() if id(tensor) in self.origins}
        return {path: current(*self.origins[key]) for path, key in ids.items()}


def current(tensor: Tensor, origin: Origin) -> Origin:
    """`origin`, unless the tensor has changed since."""
    if isinstance(origin, Raw) and version(tensor) != origin.version:
        return Origin(origin.calls, "in-place operation")
    return origin


def calls_of(origins: Iterable[Origin]) -> list[Call]:
    return list(dict.fromkeys(call for origin in origins for call in origin.calls))


def computed(name: str, sources: Sequence[Origin]) -> Origin:
    """The origin of a tensor that function `name` computed and did not only reshape."""
    if len(sources) == 1 and sources[0].then:
        return sources[0]
    return Origin(calls_of(sources), next((origin.then for origin in sources if origin.then), name))


def reshaped(func: Function, arguments: Any, sources: Mapping[Place, Raw], path: Place, index: int) -> Tensor:
    """The output of func at `path`, computed from one half of the logits in its arguments."""
    args, kwargs = replaced(arguments, {place: origin.half(index) for place, origin in sources.items()})
    return tensors(func(*args, **kwargs))[path]


def version(tensor: Tensor) -> int:
    """How often a tensor has changed in place; 0 where torch does not count."""
    return 0 if torch.compiler.is_compiling() or tensor.is_inference() else tensor._version


def name_of(func: Any) -> str:
    """'sigmoid' for torch.sigmoid and Tensor.sigmoid_, 'getitem' for indexing, 'T' for the attribute."""
    name = getattr(func, "__name__", repr(func))
    if name == "__get__":
        name = func.__self__.__name__
    return str(name).strip("_")


# ---- nested lists, tuples and dicts ----------------------------------------------------------------------

Place = tuple[Any, ...]
"""A place in nested lists, tuples and dicts: keys and indices."""


def tensors(tree: Any, path: Place = ()) -> dict[Place, Tensor]:
    """The tensors in a tree, by their place in it."""
    if isinstance(tree, Tensor):
        return {path: tree}
    by_place: dict[Place, Tensor] = {}
    if isinstance(tree, (list, tuple, dict)):
        for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
            if isinstance(part, (Tensor, list, tuple, dict)):
                by_place |= tensors(part, (*path, key))
    return by_place


def replaced(tree: Any, values: Mapping[Place, Any], path: Place = ()) -> Any:
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
