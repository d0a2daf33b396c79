"""Published pickles: what they hold is read, whoever wrote them executes nothing, and no small file takes much."""

from __future__ import annotations

import io
import os
import pickle
import random
import re
import sys
import time
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from stand_ins import Persistent, file_of, module_of, writing
from torch import Tensor

from equipoise.core.pickled_arrays import ARRAYS, TENSORS, array_of, scalar_of, storage_of, tensor_of
from equipoise.core.pickles import read_pickle
from equipoise.models.pickled import read_published

G_KWARGS = {"z_dim": 4, "c_dim": 0, "w_dim": 4, "img_resolution": 4, "img_channels": 3, "mapping_kwargs": {}}
D_KWARGS = {"c_dim": 0, "img_resolution": 4, "img_channels": 3, "epilogue_kwargs": {"mbstd_group_size": np.int64(2)}}


def generator() -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = {
        "synthesis.b4.const": (4, 4, 4),
        "synthesis.b4.resample_filter": (4, 4),
        "synthesis.b4.conv1.weight": (4, 4, 3, 3),
        "synthesis.b4.conv1.noise_strength": (),
        "synthesis.b4.conv1.affine.bias": (4,),
        "mapping.w_avg": (4,),
        "mapping.fc0.weight": (4, 4),
    }
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def discriminator() -> dict[str, Tensor]:
    return {"b4.conv.weight": torch.randn(4, 5, 3, 3), "b4.out.bias": torch.randn(1)}


def nets() -> dict[str, tuple]:
    G = ("Generator", G_KWARGS, generator())
    return {"G": G, "D": ("Discriminator", D_KWARGS, discriminator()), "G_ema": G}


def refused(content: bytes, tmp_path: Path, seconds: float = 20, memory: int = 64 << 20) -> str:
    """The one line in which `content` is refused. It takes neither long nor much."""
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    tracemalloc.start()
    begun = time.process_time()
    try:
        with pytest.raises(ValueError, match=r"x\.pkl holds no networks of StyleGAN2 or StyleGAN3") as caught:
            read_published(path)
        assert time.process_time() - begun < seconds
        assert tracemalloc.get_traced_memory()[1] < memory + 8 * len(content)
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


# ---- what is read ----------------------------------------------------------------------------------------


def test_networks_are_read_without_the_program_that_wrote_them(tmp_path):
    """In every protocol, with layers in another memory layout, and with settings that only the layers tell."""
    given = nets()
    given["D"][2]["b4.conv.weight"] = given["D"][2]["b4.conv.weight"].to(memory_format=torch.channels_last)
    for protocol in (2, 3, 4, 5):
        path = tmp_path / "a.pkl"
        path.write_bytes(file_of(given, protocol=protocol, clamp=256, augment_p=0.25, cur_nimg=3))
        assert not {"torch_utils", "dnnlib"} & sys.modules.keys()
        read, sha256 = read_published(path)
        assert (len(sha256), read.augment_p, read.ignored) == (64, 0.25, ("training_set_kwargs", "cur_nimg"))
        for name, (_, _, state) in given.items():
            net = read.nets[name]
            assert net.state.keys() == state.keys()
            assert all(torch.equal(net.state[key], value) for key, value in state.items())
            assert all(value.is_contiguous() for value in net.state.values())
        assert {name: net.kind[-1] for name, net in read.nets.items()} == {"G_ema": "G", "G": "G", "D": "D"}
        assert read.nets["D"].config == D_KWARGS | {"conv_clamp": 256}
        assert type(read.nets["D"].config["epilogue_kwargs"]["mbstd_group_size"]) is int
        assert read.nets["G"].config["synthesis_kwargs"] == {"conv_clamp": 256}
        assert read.nets["G"].config["mapping_kwargs"] == {"w_avg_beta": 0.998}


def test_stylegan3s_arguments_are_told_from_stylegan2s(tmp_path):
    """StyleGAN3's program writes both; its StyleGAN2 has the arguments of the synthesis beside the others."""
    flat = {**G_KWARGS, "channel_base": 64, "mapping_kwargs": {"w_avg_beta": 0.9}}
    three = {"synthesis.input.freqs": torch.randn(4, 2), "synthesis.L0_36_4.weight": torch.randn(4, 4, 3, 3)}
    path = tmp_path / "a.pkl"
    path.write_bytes(file_of({"G_ema": ("Generator", flat, generator()), "G": ("Generator", flat, three)}, clamp=1))
    read, _ = read_published(path)
    assert [net.kind for net in read.nets.values()] == ["stylegan2/G", "stylegan3/G"]
    assert read.nets["G"].config == {**flat, "conv_clamp": 1}
    assert read.nets["G_ema"].config["synthesis_kwargs"] == {"channel_base": 64, "conv_clamp": 1}
    assert read.nets["G_ema"].config["mapping_kwargs"] == {"w_avg_beta": 0.9}
    assert "channel_base" not in read.nets["G_ema"].config


def test_arrays_and_tensors_are_those_that_pickle_makes():
    torch.manual_seed(1)
    for protocol in (2, 3, 4, 5):
        arrays = (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.ones((2, 3), ">f4")), np.zeros((0, 2), "u1"))
        for array in arrays:
            read = array_of(read_pickle(io.BytesIO(pickle.dumps(array, protocol)), ARRAYS))
            assert np.array_equal(read, array)
            assert read.dtype == array.dtype
        for number in (np.float64(0.5), np.int32(-3), np.bool_(True)):
            assert scalar_of(read_pickle(io.BytesIO(pickle.dumps(number, protocol)), ARRAYS)) == number
        for array in (np.array(["a"]), np.array([1j])):
            with pytest.raises(ValueError, match="and not numbers"):
                array_of(read_pickle(io.BytesIO(pickle.dumps(array, protocol)), ARRAYS))
        base = torch.randn(4, 6)
        for tensor in (base, base.T, base[1:3], torch.tensor(2.0), torch.arange(3), torch.zeros(0, 3), base.half()):
            read = tensor_of(read_pickle(io.BytesIO(pickle.dumps(tensor, protocol)), TENSORS))
            assert torch.equal(read, tensor)
            assert read.dtype == tensor.dtype
        with pytest.raises(ValueError, match="overlap or lie apart"):
            tensor_of(read_pickle(io.BytesIO(pickle.dumps(torch.zeros(1).expand(9, 9), protocol)), TENSORS))


# ---- what is refused -------------------------------------------------------------------------------------


class Caller:
    """Unpickled, it would call a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def test_nothing_is_executed(tmp_path):
    """By name, by a module's state, by a method of what was allowed, or in the pickle inside a storage."""
    canary = tmp_path / "canary"
    program = f"open({str(canary)!r}, 'w')"
    callers = {
        "posix.system|nt.system": Caller(os.system, f"touch {canary}"),
        "builtins.eval|__builtin__.eval": Caller(eval, program),
        "builtins.exec|__builtin__.exec": Caller(exec, program),
        "builtins.getattr|__builtin__.getattr": Caller(getattr, OrderedDict, "__init__"),
        "torch.serialization.load": Caller(torch.load, str(canary)),
    }
    for protocol in (2, 3, 4, 5):
        for names, caller in callers.items():
            for content in (
                pickle.dumps(caller, protocol),
                file_of(nets(), protocol=protocol, other=caller),
                pickle.dumps({"G_ema": Caller(torch.storage._load_from_bytes, pickle.dumps(caller))}, protocol),
            ):
                said = refused(content, tmp_path)
                names_it = any(f"it would call {name}" in said for name in names.split("|"))
                assert names_it or "it is a torch.storage._load_from_bytes" in said, said
    inside = io.BytesIO()
    torch.save(Caller(os.system, f"touch {canary}"), inside, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"it would call (posix|nt)\.system"):
        storage_of(inside.getvalue())
    with pytest.raises(ValueError, match="it would call"):
        storage_of(pickle.dumps(Caller(os.system, f"touch {canary}")))
    by_name = b"\x80\x02cos\nsystem\n(X\x05\x00\x00\x00touchtR."
    state_of_a_name = b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb."
    of_old = b"(S'x'\nios\nsystem\n."
    for content in (by_name, state_of_a_name, b"\x80\x02c__builtin__\nset\n]R.", of_old, b"\x80\x02]Q."):
        refused(content, tmp_path)
    assert not canary.exists()


def test_other_networks_are_refused_by_name(tmp_path):
    def dumped(change=lambda net: None, class_name="Generator", **more) -> bytes:
        with writing():
            net = module_of(class_name, G_KWARGS, generator())
            change(net)
            return pickle.dumps({"G_ema": net, **more})

    def version(net):
        net.__dict__["_version_of"] = 5

    def layer(net):
        net._modules["mapping"].add_module("extra", Persistent("CrossAttention"))

    def arguments(net):
        net.__dict__["_init_args"] = (512,)

    def unnamed(net):
        del net.__dict__["_init_kwargs"]

    def argument(net):
        net.__dict__["_init_kwargs"]["z_dim"] = 10**30

    for content, words in (
        (dumped(version), "version 5 .*version 6 is read"),
        (dumped(class_name="SuperGenerator"), "G_ema: its class is 'SuperGenerator'; known here: Generator"),
        (dumped(layer), "mapping.extra: its class is 'CrossAttention'"),
        (dumped(arguments), "without their names"),
        (dumped(unnamed), "_init_kwargs is missing"),
        (dumped(argument), "unusual size"),
        (dumped(D=torch.nn.Linear(1, 1)), "it would call torch.nn.modules.linear.Linear"),
        (pickle.dumps({"generator": 1}), "holds no G_ema, but .generator"),
        (pickle.dumps([1]), "it holds a list"),
        (pickle.dumps((1, 2)), "a tuple of 2"),
        (b"", "exhausted"),
        (b"PK\x03\x04 a zip", "stringnl"),
    ):
        said = refused(content, tmp_path)
        assert re.search(words, said), said
    for path, words in ((tmp_path / "gone.pkl", "No such file"), (tmp_path, "not a regular file")):
        with pytest.raises(ValueError, match=words):
            read_published(path)
    (tmp_path / "x.pkl").write_bytes(bytes(101))
    with patch("equipoise.models.pickled.LARGEST", 100), pytest.raises(ValueError, match="at most 100 were expected"):
        read_published(tmp_path / "x.pkl")


# ---- what is too much ------------------------------------------------------------------------------------


def nested_arguments() -> bytes:
    """Arguments of 60 lists, each twice in the next: 2^60 values when copied."""
    value: object = [1]
    for _ in range(60):
        value = [value, value]
    with writing():
        net = module_of("Generator", {}, generator())
        net.__dict__["_init_kwargs"]["z_dim"] = value
        return pickle.dumps({"G_ema": net})


def modules_in_modules(depth: int, wide: int) -> bytes:
    """A module in a module, `depth` times, and each one `wide` times: wide^depth modules."""
    net = Persistent("SynthesisBlock")
    for _ in range(depth):
        outer = Persistent("SynthesisBlock")
        for i in range(wide):
            outer._modules[str(i)] = net
        net = outer
    net.__dict__.update(_class_name="Generator", _init_kwargs={}, _init_args=())
    with writing(), patch("sys.setrecursionlimit"):
        return pickle.dumps({"G_ema": net})


def repeated_tensor() -> bytes:
    """One parameter of a megabyte under 100 names."""
    with writing():
        net = module_of("Generator", {}, {})
        value = torch.nn.Parameter(torch.zeros(1 << 18))
        for i in range(100):
            net._parameters[f"p{i}"] = value
        return pickle.dumps({"G_ema": net})


def tensor_of_shape(shape: tuple[int, ...]) -> bytes:
    """One parameter that claims a shape."""
    with writing():
        net = module_of("Generator", {}, {})
        rebuild, (storage, *_) = torch.zeros(0).__reduce_ex__(4)
        net._buffers["p"] = Caller(rebuild, storage, 0, shape, (1,) * len(shape), False, None)
        return pickle.dumps({"G_ema": net})


def test_bombs(tmp_path):
    """Small files that would unpack to much, or take long. Peak memory is bounded, and so is the time."""
    head = b"\x80\x04"
    for content, words in (
        (nested_arguments(), "nested too deeply, or too many"),
        (modules_in_modules(60, 1), "nested more than 8 deep"),
        (modules_in_modules(7, 40), "or more than 10,000"),
        (repeated_tensor(), "it repeats one of them"),
        (file_of(nets(), augment_p=[0.1, 0.2]), "p has the shape (2,); expected a number"),
        (tensor_of_shape((1 << 47, 1 << 47, 0)), "overflow"),
        (head + b"}" * (1 << 18) + b".", "more than 262,144 opcodes"),
        (head + b"]a" * 10 + b".", "lacks something"),
        (head + b"(" * 20_000 + b".", "does not end with one value"),
        (head + b"]" + b"\x85" * 20_000 + b".", "a tuple of 1"),
        (head + b"]\x94" + b"h\x00a" * 1000 + b".", "it holds a list"),  # it holds itself
        (head + b"\x8e" + (1 << 62).to_bytes(8, "little") + b"x.", "expected"),
        (head + b"\x96" + (1 << 62).to_bytes(8, "little") + b"x.", "expected"),
        (head + b"\x8d" + (1 << 40).to_bytes(8, "little") + b"x.", "expected"),
        (head + b"\x95" + (1 << 62).to_bytes(8, "little") + b"N.", "NoneType"),
        (head + b"Nr\xff\xff\xff\x7f.", "NoneType"),
        (head + b"\x8b" + (10).to_bytes(4, "little") + bytes(10) + b".", "opcode LONG4"),
        (head + b"I" + b"9" * 20_000 + b"\n.", "."),
        (head + b"}(" + b")" + b"".join(b"q%c0h%ch%c\x86" % (i, i, i) for i in range(60)) + b"K\x01u.", "not text"),
    ):
        assert words in refused(content, tmp_path), words


def test_storages_hold_what_they_promise():
    """A promise of 2^60 numbers takes no memory, and bytes that nobody counted are refused."""
    (content,) = torch.zeros(3).__reduce_ex__(4)[1][0].__reduce__()[1]
    assert torch.equal(storage_of(content), torch.zeros(3))
    huge = content.replace(b"K\x03", b"\x8a\x08" + (1 << 60).to_bytes(8, "little"))
    for damaged in (content + b"\0", content[:-1], content.replace(b"K\x03", b"K\x7f"), huge):
        assert damaged != content
        with pytest.raises(ValueError, match=r"storage of \d+ numbers in \d+ bytes"):
            storage_of(damaged)


def test_damaged_files_are_refused_or_read(tmp_path):
    """Cut short anywhere, or with a changed byte: networks, or one line. Of bytes in the numbers nobody can tell."""
    whole = file_of(nets(), protocol=4)
    path, chance = tmp_path / "x.pkl", random.Random(0)
    path.write_bytes(whole)
    read_published(path)
    told = []
    for trial in range(300):
        content = bytearray(whole)
        if trial % 3:
            for _ in range(chance.choice((1, 1, 5))):
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        else:
            del content[chance.randrange(len(content)) :]
        path.write_bytes(bytes(content))
        try:
            read_published(path)
        except ValueError as error:
            told.append(str(error))
    assert len(told) > 150
    assert all("\n" not in message and message.startswith(str(path)) for message in told)
