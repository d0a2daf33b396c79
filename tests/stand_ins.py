"""Pickles of published form, written by stand-ins of the programs' modules: same names, none of their code.

The modules exist while a pickle is written, and never while one is read.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["file_of", "module_of", "tensorflow_file", "writing"]

SOURCE = "raise SystemExit('the source in the pickle was executed')"

KINDS = {
    r"mapping": "MappingNetwork",
    r"synthesis": "SynthesisNetwork",
    r"synthesis\.input": "SynthesisInput",
    r"synthesis\.b\d+": "SynthesisBlock",
    r"synthesis\.(b\d+\.conv\d|L.*)": "SynthesisLayer",
    r"synthesis\.b\d+\.torgb": "ToRGBLayer",
    r"b4": "DiscriminatorEpilogue",
    r"b\d+": "DiscriminatorBlock",
    r".*(affine|fc\d*|embed|out)": "FullyConnectedLayer",
    r".*(fromrgb|conv\d?|skip)": "Conv2dLayer",
}
"""Pattern of a module's name -> its class, the first that matches."""


class Persistent(nn.Module):
    """A module that is pickled as the published programs pickle theirs."""

    def __init__(self, class_name: str):
        super().__init__()
        self.__dict__["_class_name"] = class_name

    def __reduce__(self) -> Any:
        state = {name: value for name, value in self.__dict__.items() if name not in ("_class_name", "_version_of")}
        meta = {
            "type": "class",
            "version": self.__dict__.get("_version_of", 6),
            "module_src": SOURCE,
            "class_name": self.__dict__["_class_name"],
            "state": state,
        }
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


def module_of(
    class_name: str, kwargs: Mapping[str, Any], state: Mapping[str, Tensor], clamp: float | None = None
) -> Persistent:
    """A recorded network with the tensors `state`. clamp: an attribute of its convolutions, as the programs set it."""
    root = Persistent(class_name)
    for name, value in state.items():
        *path, last = name.split(".")
        here = root
        for depth in range(1, len(path) + 1):
            inside = ".".join(path[:depth])
            if path[depth - 1] not in here._modules:
                kind = next(kind for pattern, kind in KINDS.items() if re.fullmatch(pattern, inside))
                here.add_module(path[depth - 1], Persistent(kind))
                if kind in ("SynthesisLayer", "Conv2dLayer"):
                    here._modules[path[depth - 1]].__dict__["conv_clamp"] = clamp
                if inside == "mapping" and class_name == "Generator":
                    here._modules["mapping"].__dict__["w_avg_beta"] = 0.998
            here = here._modules[path[depth - 1]]
        if last in ("weight", "bias", "const", "noise_strength"):
            here.register_parameter(last, nn.Parameter(value.clone()))
        else:
            here.register_buffer(last, value.clone())
    root.register_buffer("scratch", torch.zeros(3), persistent=False)
    root.__dict__["_init_args"] = ()
    root.__dict__["_init_kwargs"] = easy(kwargs)
    return root


def easy(value: Any) -> Any:
    """Dictionaries as EasyDict, when the stand-in modules are there."""
    if isinstance(value, Mapping):
        made = sys.modules["dnnlib.util"].EasyDict()
        made.update({name: easy(item) for name, item in value.items()})
        return made
    return value


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """The modules `torch_utils.persistence`, `dnnlib.util` and `dnnlib.tflib.network`, by name alone."""

    def function(module: str, name: str) -> Any:
        def stand_in(*_: object) -> None:
            raise AssertionError("a stand-in was called")

        stand_in.__module__, stand_in.__qualname__, stand_in.__name__ = module, name, name
        return stand_in

    modules = {name: ModuleType(name) for name in ("torch_utils", "dnnlib", "dnnlib.tflib")}
    for module, name, item in (
        ("torch_utils.persistence", "_reconstruct_persistent_obj", None),
        ("dnnlib.util", "EasyDict", type("EasyDict", (dict,), {"__module__": "dnnlib.util"})),
        ("dnnlib.tflib.network", "Network", type("Network", (), {"__module__": "dnnlib.tflib.network"})),
    ):
        modules[module] = ModuleType(module)
        setattr(modules[module], name, item or function(module, name))
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def file_of(
    nets: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Tensor]]],
    *,
    clamp: float | None = None,
    protocol: int = 4,
    augment_p: float | None = None,
    **others: Any,
) -> bytes:
    """A pickle of networks, name -> (class, arguments, state), as StyleGAN2-ADA and StyleGAN3 write them."""
    with writing():
        content: dict[str, Any] = {name: module_of(*net, clamp) for name, net in nets.items()}
        content["augment_pipe"] = None
        if augment_p is not None:
            pipe = content["augment_pipe"] = Persistent("AugmentPipe")
            pipe.register_buffer("p", torch.tensor(augment_p))
        content["training_set_kwargs"] = easy({"class_name": "training.dataset.ImageFolderDataset", "path": "/x"})
        return pickle.dumps(content | others, protocol=protocol)


def tensorflow_file(nets: tuple[tuple[Mapping[str, Any], Mapping[str, np.ndarray]], ...], version: int = 4) -> bytes:
    """A pickle of networks (arguments, variables), as StyleGAN2 in TensorFlow writes them.

    Variables named component/... go into a component of that name.
    """
    with writing():
        Network = sys.modules["dnnlib.tflib.network"].Network

        def network(name: str, kwargs: Mapping[str, Any], variables: Mapping[str, np.ndarray], parts: tuple[str, ...]):
            own = {n: v for n, v in variables.items() if n.split("/")[0] not in parts}
            net = Network()
            net.__dict__.update(
                version=version,
                name=name,
                static_kwargs=easy(kwargs),
                components=easy({}),
                build_module_src=SOURCE,
                build_func_name=name,
                variables=list(own.items()),
            )
            for part in parts:
                inside = {n.removeprefix(f"{part}/"): v for n, v in variables.items() if n.startswith(f"{part}/")}
                if inside:
                    net.components[part] = network(part, {}, inside, ())
            return net

        made = [network("net", kwargs, variables, ("mapping", "synthesis")) for kwargs, variables in nets]
        return pickle.dumps(tuple(made), protocol=4)
