"""Networks in the pickles of StyleGAN2-ADA and StyleGAN3, and of programs with the same classes.

Such a file is a dictionary of the networks G, D and G_ema. Each module in it is a call with the text of its source, its
class name and its attributes. The text is never executed: constructor arguments, parameters and buffers are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from equipoise.core.pickled_arrays import ARRAYS, SCALAR, TENSORS, scalar_of, tensor_of
from equipoise.core.pickles import Call

__all__ = ["NAMES", "Networks", "Published", "networks_of", "plain"]

MODULE = "torch_utils.persistence._reconstruct_persistent_obj"
ORDERED, EASY = "collections.OrderedDict", "dnnlib.util.EasyDict"
SETS = ("builtins.set", "__builtin__.set")
NAMES = ARRAYS | TENSORS | {MODULE, ORDERED, EASY, *SETS}
"""Everything that the published files name."""

VERSION = 6
"""The form in which modules are written."""
NESTED = 8
"""Deepest module inside modules. The published networks have four levels."""
MODULES = 10_000
"""Most modules of a network, and most values in its constructor's arguments."""

LAYERS = frozenset(
    {
        "MappingNetwork",
        "SynthesisNetwork",
        "SynthesisBlock",
        "SynthesisLayer",
        "SynthesisInput",
        "ToRGBLayer",
        "FullyConnectedLayer",
        "Conv2dLayer",
        "DiscriminatorBlock",
        "DiscriminatorEpilogue",
        "MinibatchStdLayer",
    }
)
"""Classes of the modules inside the networks."""

OF_GENERATOR = frozenset(
    {"z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs", "synthesis_kwargs"}
)
"""Arguments of StyleGAN2-ADA's generator."""


@dataclass(frozen=True, repr=False)
class Published:
    """A network that others published.

    kind: "stylegan2/G", "stylegan2/D", "stylegan3/G" or "stylegan3/D", as `published.network` takes it.
    config: arguments of the published constructor.
    state: parameters and buffers by their published names.
    """

    kind: str
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]


@dataclass(frozen=True, repr=False)
class Networks:
    """The networks of a published file.

    nets: "G_ema", the average of G, and usually "G" and "D".
    program: "StyleGAN2-ADA or StyleGAN3" or "TensorFlow".
    augment_p: strength of the augmentation at the end of training; None without.
    ignored: names of the file's other contents.
    """

    nets: Mapping[str, Published]
    program: str
    augment_p: float | None = None
    ignored: tuple[str, ...] = ()


def networks_of(value: Mapping[str, Any], size: int) -> Networks:
    """The networks in the dictionary of a pickle.

    size: of the file in bytes; the tensors of a network must take no more.

    Raises:
        ValueError: for a dictionary without G_ema, or a network that is not of the published classes.
    """
    nets = {}
    for name in ("G_ema", "G", "D"):
        if value.get(name) is not None:
            try:
                nets[name] = network_of(value[name], "Discriminator" if name == "D" else "Generator", size)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    if "G_ema" not in nets:
        there = ", ".join(ascii(key)[:40] for key in list(value)[:8]) or "nothing"
        raise ValueError(f"it holds no G_ema, but {there}")
    if "D" in nets and nets["G_ema"].kind == "stylegan3/G":
        nets["D"] = replace(nets["D"], kind="stylegan3/D")
    pipe = value.get("augment_pipe")
    p = None
    if pipe is not None:
        buffers = dictionary(attributes(pipe, {"AugmentPipe"}).get("_buffers"))
        strength = tensor_of(buffers.get("p"))
        if strength.numel() != 1:
            raise ValueError(f"augment_pipe: its strength p has the shape {tuple(strength.shape)}; expected a number")
        p = float(strength)
    ignored = tuple(str(key) for key in value if key not in (*nets, "augment_pipe") and value[key] is not None)
    return Networks(nets, "StyleGAN2-ADA or StyleGAN3", p, ignored)


# ---- a network -------------------------------------------------------------------------------------------


def network_of(value: object, kind: str, size: int) -> Published:
    """The network of a recorded module, a "Generator" or a "Discriminator"."""
    about = attributes(value, {kind})
    if about.get("_init_args") not in (None, (), []):
        raise ValueError("its arguments were given without their names")
    config = plain(about.get("_init_kwargs"))
    if not isinstance(config, dict):
        raise ValueError("it does not say how it was made: _init_kwargs is missing")
    walk = Walk(size)
    walk.visit(value, {kind})
    family = "stylegan3" if any(name.startswith("synthesis.input.") for name in walk.state) else "stylegan2"
    return Published(f"{family}/{kind[0]}", completed(f"{family}/{kind[0]}", config, walk.settings), walk.state)


def completed(kind: str, config: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's arguments, with `settings` of the layers where the arguments leave them to a default.

    StyleGAN3's program gives the arguments of StyleGAN2's synthesis beside the others; they move to `synthesis_kwargs`,
    where StyleGAN2-ADA has them.
    """
    config = dict(config)
    place = config
    if kind == "stylegan2/G":
        others = {name: config.pop(name) for name in list(config) if name not in OF_GENERATOR}
        place = config["synthesis_kwargs"] = (config.get("synthesis_kwargs") or {}) | others
    if "conv_clamp" in settings:
        place.setdefault("conv_clamp", settings["conv_clamp"])
    if kind[-1] == "G" and "w_avg_beta" in settings:
        config["mapping_kwargs"] = {"w_avg_beta": settings["w_avg_beta"]} | (config.get("mapping_kwargs") or {})
    return config


class Walk:
    """A walk through a recorded module: the state dict, and settings that the layers have but nobody gave.

    settings: "conv_clamp" and "w_avg_beta", whose defaults differ between the programs.
    """

    def __init__(self, size: int):
        self.left, self.modules = size, 0
        self.state: dict[str, Tensor] = {}
        self.settings: dict[str, Any] = {}

    def visit(self, value: object, classes: frozenset[str] | set[str], prefix: str = "", depth: int = 0) -> None:
        """Add the parameters, the buffers and the modules of a recorded module, under the names `prefix`..."""
        self.modules += 1
        if depth > NESTED or self.modules > MODULES:
            raise ValueError(f"it has modules nested more than {NESTED} deep, or more than {MODULES:,}")
        about = attributes(value, classes, prefix)
        unsaved = texts(about.get("_non_persistent_buffers_set"))
        tensors = {**dictionary(about.get("_parameters")), **dictionary(about.get("_buffers"))}
        for name, tensor in tensors.items():
            if tensor is not None and name not in unsaved:
                self.add(f"{prefix}{name}", tensor)
        for name in ("conv_clamp", "w_avg_beta"):
            if name in about:
                self.settings.setdefault(name, plain(about[name]))
        for name, module in dictionary(about.get("_modules")).items():
            if module is not None:
                self.visit(module, LAYERS, f"{prefix}{name}.", depth + 1)

    def add(self, name: str, value: object) -> None:
        try:
            tensor = tensor_of(value)
        except ValueError as error:
            raise ValueError(f"{name[:100]}: {error}") from None
        self.left -= tensor.nbytes
        if self.left < 0:
            raise ValueError("its tensors take more memory than the file: it repeats one of them")
        self.state[name] = tensor


def attributes(value: object, classes: frozenset[str] | set[str], prefix: str = "") -> dict[str, Any]:
    """The attributes of a recorded module.

    Raises:
        ValueError: unless it is of one of `classes`, in the form that is known.
    """
    where = f"{prefix[:100].rstrip('.')}: " if prefix else ""
    match value:
        case Call(of=of, args=(dict() as about,)) if of == MODULE:
            pass
        case _:
            kind = value.of if isinstance(value, Call) else type(value).__name__
            raise ValueError(f"{where}it is a {kind}, not a module of the published programs")
    version, name, state = about.get("version"), about.get("class_name"), about.get("state")
    if about.get("type") != "class" or type(version) is not int or version != VERSION:
        shown = version if type(version) is int and version < 10**6 else type(version).__name__
        raise ValueError(f"{where}its modules are in version {shown} of their form, and version {VERSION} is read")
    if name not in classes:
        shown_name = repr(name[:60]) if isinstance(name, str) else type(name).__name__
        raise ValueError(f"{where}its class is {shown_name}; known here: {', '.join(sorted(classes))}")
    return dictionary(state)


# ---- values ----------------------------------------------------------------------------------------------


def dictionary(value: object) -> dict[str, Any]:
    """A dictionary with text as keys, ordered or not. None counts as empty. Raises ValueError for anything else."""
    if value is None:
        return {}
    if isinstance(value, Call) and value.of in (ORDERED, EASY) and value.args == ():
        value = value.items
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError("it holds something else where names with values were expected")
    return value


def texts(value: object) -> set[str]:
    """A set of texts. None counts as empty. Raises ValueError for anything else."""
    if isinstance(value, Call) and value.of in SETS and len(value.args) == 1 and isinstance(value.args[0], list):
        value = {item for item in value.args[0] if isinstance(item, str)}
    if value is None or isinstance(value, set):
        return value or set()
    raise ValueError("it holds something else where a set of names was expected")


def plain(value: object) -> Any:
    """A copy of arguments in a file: numbers, texts, None, lists and dictionaries of them.

    Raises:
        ValueError: for anything else, or for very many.
    """
    left = MODULES

    def copied(value: object, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > NESTED:
            raise ValueError("its arguments are nested too deeply, or too many")
        match value:
            case None | bool() | float():
                return value
            case int() if abs(value) < 1 << 63:
                return value
            case str() if len(value) < 1000:
                return value
            case list() | tuple():
                return [copied(item, depth + 1) for item in value]
            case Call(of=of) if of in SCALAR:
                return scalar_of(value)
            case dict() | Call(of="collections.OrderedDict" | "dnnlib.util.EasyDict"):
                return {name: copied(item, depth + 1) for name, item in dictionary(value).items()}
        kind = value.of if isinstance(value, Call) else type(value).__name__
        raise ValueError(f"its arguments hold a {kind}, or a number or text of unusual size")

    return copied(value, 0)
