"""The file of a generator: equal generators give equal bytes, and a damaged file draws no images."""

from __future__ import annotations

import json
import shutil
import struct

import pytest
import torch
from commands import run
from fixtures import fixture
from safetensors.numpy import load_file
from safetensors.torch import save, save_file

from equipoise.core.tensorfile import pack, unpack
from equipoise.core.types import ImageSpec
from equipoise.generate import Generator, save_generator
from equipoise.models import MLPGenerator


@pytest.fixture
def generator():
    config, spec = MLPGenerator(z_dim=4, width=4, depth=2), ImageSpec(8, 1)
    return Generator(config.build(spec).eval().requires_grad_(False), config, spec, nimg=64)


@pytest.fixture
def path(generator, tmp_path):
    save_generator(generator, tmp_path / "g.safetensors")
    return tmp_path / "g.safetensors"


def parts(content: bytes) -> tuple[dict, bytes]:
    """Header and data, as the format's specification has them."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: object, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_equal_generators_give_equal_bytes_that_others_can_read(generator, path):
    contents = set()
    for _ in range(8):
        save_generator(generator, path)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    header, _ = parts(path.read_bytes())
    assert struct.unpack("<Q", path.read_bytes()[:8])[0] % 8 == 0
    assert list(header["__metadata__"]) == ["generator", "nimg", "sha256", "spec"]
    state = generator.net.state_dict()
    weights = load_file(path)
    assert weights.keys() == state.keys()
    assert all(torch.equal(torch.from_numpy(weights[name]), state[name]) for name in state)
    assert (Generator.from_pretrained(path).sample(5) == generator.sample(5)).all()
    assert Generator.from_pretrained(path).about == generator.about


def test_every_byte_that_changes_is_noticed(path):
    """A flip in the data, in a name, a shape, a text or the checksum."""
    whole = path.read_bytes()
    key = whole.index(b"sha256")  # without which the file would pass for one of version 0.1
    nimg = whole.index(b'"nimg":"64"') + 8  # which any other number would do for
    for i in [*range(0, len(whole), 7), *range(key, key + 6), nimg, nimg + 1]:
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(ValueError, match=r"g\.safetensors") as e:
            Generator.from_pretrained(path)
        assert "\n" not in str(e.value)
    for i in (0, 7, 100, len(whole) - 1):
        path.write_bytes(whole[:i])
        with pytest.raises(ValueError, match=r"g\.safetensors is damaged"):
            Generator.from_pretrained(path)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_draw_nothing(value, old, generator, path):
    """In a file with a checksum, and in one of version 0.1."""
    state = generator.net.state_dict()
    name = list(state)[-1]
    state[name].flatten()[-1] = value
    if old:
        save_file(state, path, generator.about)
    else:
        save_generator(generator, path)
    with pytest.raises(ValueError, match=rf"g\.safetensors holds NaN or Inf in '{name}': its run diverged"):
        Generator.from_pretrained(path)


def test_a_file_of_version_0_1_is_read(generator, path):
    save_file(generator.net.state_dict(), path, generator.about)
    assert (Generator.from_pretrained(path).sample(5) == generator.sample(5)).all()


def test_types_that_numpy_does_not_know_are_checked_too(tmp_path):
    weights = {
        "half": torch.ones(2, 3, dtype=torch.bfloat16).T,
        "float8": torch.ones(3).to(torch.float8_e4m3fn),
        "flag": torch.tensor(True),
        "none": torch.zeros(0, 4),
        "count": torch.tensor(3),
    }
    path = tmp_path / "x.safetensors"
    path.write_bytes(pack(weights, {"a": "ä"}))
    found, about = unpack(path)
    assert about == {"a": "ä"}
    assert all(torch.equal(found[name].float(), value.float()) for name, value in weights.items())
    path.write_bytes(save({"float8": torch.tensor([float("nan")]).to(torch.float8_e4m3fn)}))
    with pytest.raises(ValueError, match="holds NaN or Inf in 'float8'"):
        unpack(path)


def test_a_spec_that_is_no_json_names_the_file():
    file = fixture("faults/05_spec_not_json.safetensors")
    assert f"{file}: its spec holds no JSON" in run("sample", file, code=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            ({"spec": text}, "its spec ")
            for text in (
                *("", "[]", "null", "5", '{"resolution": 8}', "[" * 100_000, '{"a":' * 100_000),
                *(
                    json.dumps({"resolution": 8, "channels": 1, "num_classes": 0} | other)
                    for other in ({"more": 1}, *({"channels": wrong} for wrong in ("1", True, 0, 1.0)))
                ),
                *(f'{{"resolution": {n}, "channels": 1, "num_classes": 0}}' for n in (2**40, 10**400, "1" * 5000, -8)),
            )
        ),
        ({"spec": '{"resolution": 1000000, "channels": 1000000, "num_classes": 0}'}, "Storage size"),
        *(({"nimg": text}, "its nimg is") for text in ("", "x", "-1", "²", "1" * 5000, "1.5")),
        *(({"truncation": text}, "its truncation is") for text in ("x", "nan", "0", "-1", "x" * 10**6)),
        ({"generator": "MLPGenerator(z_dim=1000000000,width=1000000000,depth=2)"}, "do not fit|Storage size"),
        (
            {"generator": "MLPGenerator(z_dim=5,width=4,depth=2)"},
            r"do not fit its architecture.*\(4, 4\) and not \(4, 5\)",
        ),
    ],
)
def test_texts_of_any_shape_are_one_line_that_names_the_file(change, message, generator, path):
    """In files with a checksum that fits."""
    path.write_bytes(pack(generator.net.state_dict(), generator.about | change))
    with pytest.raises(ValueError, match=rf"g\.safetensors: .*({message})") as e:
        Generator.from_pretrained(path)
    assert str(e.value).isprintable()
    assert len(str(e.value)) < 700 + len(str(path))


@pytest.mark.parametrize(
    "header",
    [
        *(
            b"",
            b"[]",
            b"null",
            b"[" * 100_000,
            b'{"__metadata__":' + b"[" * 100_000,
            b"\xff\xfe",
            b'{"__metadata__": []}',
        ),
        {"__metadata__": {"spec": 5}},
        {"a": {"dtype": "F32", "shape": [2**63, 0], "data_offsets": [0, 0]}},
        {"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 2**64]}},
        {"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}},
    ],
)
def test_headers_of_any_shape_are_one_line_that_names_the_file(header, path):
    end = header.get("a", {}).get("data_offsets", [0, 0])[1] if isinstance(header, dict) else 0
    path.write_bytes(joined(header, bytes(end % 2**32)))
    with pytest.raises(ValueError, match=r"g\.safetensors is damaged") as e:
        Generator.from_pretrained(path)
    assert "\n" not in str(e.value)


def test_best_and_exported_folders_are_checked_too(path, tmp_path):
    whole = path.read_bytes()
    for place, file in (("run/best", "generator/generator.safetensors"), ("hub", "model.safetensors")):
        (tmp_path / place / file).parent.mkdir(parents=True)
        shutil.copy(path, tmp_path / place / file)
        run("sample", tmp_path / place, "--num", 2, "--out", tmp_path / "out.png")
        (tmp_path / place / file).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        said = run("sample", tmp_path / place, "--num", 2, code=2)
        assert f"{tmp_path / place / file} is damaged (it does not match its checksum)" in said
