"""Hostile input: damaged files, files that lie about their content, and settings from a fuzzer."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save

__all__ = ["DAMAGES", "INPUTS", "damaged", "make_input", "override"]

DEEP = "[" * 100_000

# ---- damage to a file ------------------------------------------------------------------------------------


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def flipped(content: bytes, chance: random.Random) -> bytes:
    if not content:
        return b"\xff"
    changed = bytearray(content)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def overwritten(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content) + 1)
    return content[:start] + chance.randbytes(64) + content[start + 64 :]


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "emptied": lambda *_: b"",
    "cut": cut,
    "a bit flipped": flipped,
    "64 bytes overwritten": overwritten,
    "noise": lambda content, chance: chance.randbytes(max(len(content), 1)),
    "zeros": lambda content, _: bytes(len(content)),
    "doubled": lambda content, _: content + content,
    "nested": lambda *_: DEEP.encode(),
    "a number": lambda *_: b"5\n",
    "null": lambda *_: b"null\n",
    "a list": lambda *_: b'[{"nimg": "x"}, NaN, -1e999]\n',
    "objects in objects": lambda *_: b'{"a": ' * 50_000 + b"1" + b"}" * 50_000,
}


def damaged(path: Path, kind: str, chance: random.Random) -> None:
    """Damage the file at `path`: a kind of `DAMAGES`, "deleted", "a folder" or "a loop" (a link to itself)."""
    content = path.read_bytes()
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a loop":
        path.symlink_to(path.name)
    elif kind != "deleted":
        path.write_bytes(DAMAGES[kind](content, chance))


# ---- inputs ----------------------------------------------------------------------------------------------


def png(size: int = 8, value: int = 90) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), (value, 2 * value % 256, 7)).save(file, "PNG")
    return file.getvalue()


def npz(**arrays: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def archive(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        for name, content in members.items():
            out.writestr(name, content)
    return file.getvalue()


def lying_npy(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    """An .npy file whose header promises more than the file holds."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(64)


def idx(shape: tuple[int, ...], content: bytes) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + content


def bomb() -> bytes:
    """A PNG of a few kilobytes and 20,000 x 20,000 pixels."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


def folder(place: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)


def pictures(place: Path, _: random.Random) -> None:
    folder(place, {f"{label}/{i}.png": png(8, 40 * i + 1) for label in ("a", "b") for i in range(3)})


def one_damaged(place: Path, chance: random.Random) -> None:
    pictures(place, chance)
    damaged(chance.choice(sorted(place.rglob("*.png"))), chance.choice([*DAMAGES, "a folder", "a loop"]), chance)


def with_a_pipe(place: Path, chance: random.Random) -> None:
    pictures(place, chance)
    os.mkfifo(place / "a" / chance.choice(["pipe.png", "dataset.json", "x.npz"]))


def pipe_alone(place: Path, chance: random.Random) -> None:
    place.mkdir()
    os.mkfifo(place / chance.choice(["dataset.json", "info.json", "train-images-idx3-ubyte", "images.npy", "a.png"]))


def loops(place: Path, chance: random.Random) -> None:
    pictures(place, chance)
    for i in range(3):
        (place / f"loop{i}").symlink_to(place if chance.random() < 0.5 else ".", target_is_directory=True)


def device(place: Path, chance: random.Random) -> None:
    place.mkdir()
    (place / chance.choice(["a.png", "dataset.json", "x.npz"])).symlink_to(chance.choice(["/dev/zero", "/dev/full"]))


LABELS: tuple[object, ...] = (
    5, None, [], "x", {"labels": 5}, {"labels": [[1, 2]]}, {"labels": [["a.png", "x"]]}, {"labels": {"a.png": 0}},
    {"labels": [["a.png", 0]], "class_names": 5}, {"labels": [["a.png", 10**30]]}, {"labels": [["a.png", -1]]},
    {"labels": [["a.png", 0.5]]}, {"labels": [["a.png", True]]}, {"labels": [[["a.png"], 0]]}, {"labels": [None]},
    {"labels": [["/etc/passwd", 0]]}, {"labels": [["../a.png", 0]]}, {"labels": [["", 0]]},
    {"labels": [["a.png", None]]},
)  # fmt: skip


def labels_of_a_stranger(place: Path, chance: random.Random) -> None:
    text = chance.choice([*map(json.dumps, LABELS), DEEP, '{"labels": ' + DEEP, "\x00", '{"labels": [["a.png", NaN]]}'])
    folder(place, {"a.png": png(), "dataset.json": text.encode()})


def zipped(place: Path, chance: random.Random) -> None:
    names = ["a.png", "/b.png", "../c.png", "d/e.png", "d\\f.png", "C:/g.png", "a" * 300 + ".png", "h\n.png", "./a.png"]
    files = {name: png() for name in chance.sample(names, chance.randrange(1, 5))}
    if chance.random() < 0.5:
        files["dataset.json"] = json.dumps(chance.choice(LABELS)).encode()
    place.with_suffix(".zip").write_bytes(archive(files))


def zip_damaged(place: Path, chance: random.Random) -> None:
    whole = archive({f"{i}.png": png(8, i) for i in range(4)})
    place.with_suffix(".zip").write_bytes(DAMAGES[chance.choice(list(DAMAGES))](whole, chance))


def bombs(place: Path, chance: random.Random) -> None:
    """Write a huge picture, or a gigabyte of zeros in a zip of a thousandth of the size."""
    if chance.random() < 0.5:
        folder(place, {"a.png": png(), "bomb.png": bomb()})
        return
    file, name = io.BytesIO(), chance.choice(["a.png", "dataset.json", "x.npy"])
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out,
        out.open(name, "w", force_zip64=True) as member,
    ):
        for _ in range(1024):
            member.write(bytes(2**20))
    place.with_suffix(chance.choice([".zip", ".npz"])).write_bytes(file.getvalue())


def arrays(place: Path, chance: random.Random) -> None:
    x = np.arange(5 * 8 * 8 * 3, dtype=np.uint8).reshape(5, 8, 8, 3)
    makers: list[Callable[[], bytes]] = [
        lambda: npz(x=x, y=np.arange(3)),
        lambda: npz(x=x, y=np.array(["a"] * 5)),
        lambda: npz(x=x, y=np.full(5, np.nan)),
        lambda: npz(x=x, y=np.full(5, -(2**62))),
        lambda: npz(x=x, y=np.zeros((5, 2**5))),
        lambda: npz(x=x, y=np.arange(5), class_names=np.array(5)),
        lambda: npz(x=np.full((5, 8, 8, 3), np.inf, np.float32)),
        lambda: npz(x=x.astype("datetime64[s]")),
        lambda: npz(x=np.zeros((5, 0, 0), np.uint8)),
        lambda: npz(x=np.zeros((0, 8, 8, 3), np.uint8)),
        lambda: npz(x=np.zeros((), np.uint8)),
        lambda: npz(x=x[..., :2]),
        lambda: npz(y=x),
        lambda: archive({"x.npy": lying_npy((10**9, 64, 64, 3))}),
        lambda: archive({"x.npy": lying_npy((2**40, 2**40))}),
        lambda: archive({"x.npy": lying_npy((4,), "|O")}),
        lambda: archive({"x.npy": lying_npy((-1, 8, 8))}),
        lambda: archive({"x.npy": b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535}),
        lambda: archive({"x.txt": b"no array"}),
        lambda: archive({}),
    ]
    place.with_suffix(".npz").write_bytes(chance.choice(makers)())


def arrays_damaged(place: Path, chance: random.Random) -> None:
    whole = npz(x=np.zeros((4, 8, 8, 3), np.uint8), y=np.arange(4))
    place.with_suffix(".npz").write_bytes(DAMAGES[chance.choice(list(DAMAGES))](whole, chance))


def digits_like(place: Path, chance: random.Random) -> None:
    shape = chance.choice([(3, 4, 4), (2**31, 2**31, 2**31), (0, 4, 4), (3, 0, 4), (3,), (2**32 - 1, 1, 1), (3, 4, 5)])
    labels = chance.choice([idx((3,), bytes(3)), idx((2**32 - 1,), b""), b"", idx((4,), bytes(4))])
    images = idx(shape, bytes(48))
    if chance.random() < 0.5:
        images = DAMAGES[chance.choice(list(DAMAGES))](images, chance)
    folder(place, {"train-images-idx3-ubyte": images, "train-labels-idx1-ubyte": labels})


def prepared(place: Path, chance: random.Random) -> None:
    about: dict[str, object] = {
        "format": 1, "images": 4, "resolution": 8, "channels": 3, "num_classes": 0, "class_names": None, "source": "x",
    }  # fmt: skip
    about[chance.choice(list(about))] = chance.choice([5, None, [], {}, "x", -1, 10**30, 1.5, True, "\x00"])
    text = chance.choice([json.dumps(about)] * 6 + [DEEP, "5", "[]", "\xff", ""])
    held = lying_npy((10**9, 3, 8, 8)) if chance.random() < 0.3 else npy(np.zeros((4, 3, 8, 8), np.uint8))
    folder(place, {"info.json": text.encode("latin-1"), "images.npy": held})


def npy(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


ABOUT: tuple[object, ...] = (
    [], None, 5, {}, {"resolution": -1}, {"resolution": 10**9, "channels": 3},
    {"resolution": 28, "channels": 1, "x": 1},
    {"resolution": "28", "channels": 1, "num_classes": 0}, {"resolution": 28, "channels": 1, "num_classes": 10**30},
    {"resolution": 28, "channels": 1, "num_classes": 0},
)  # fmt: skip


def generator(place: Path, chance: random.Random) -> None:
    metadata = {
        "generator": chance.choice(["SANDigitsGenerator(width=4)", "-" * 10_000 + "1", DEEP, "", "R1()", "5", "x.y.z"]),
        "spec": chance.choice([*map(json.dumps, ABOUT), DEEP, "NaN", ""]),
        "nimg": chance.choice(["0", "x", "-1", "9" * 5000, "1e999"]),
        "truncation": chance.choice(["1.0", "x", "nan", "-1", "1e999"]),
    }
    kept = chance.sample(sorted(metadata), chance.randrange(1, 5))
    content = save({"weight": np.full(chance.choice([3, 0]), np.nan, np.float32)}, {key: metadata[key] for key in kept})
    if chance.random() < 0.3:
        content = DAMAGES[chance.choice(list(DAMAGES))](content, chance)
    place.with_suffix(".safetensors").write_bytes(content)


INPUTS: dict[str, Callable[[Path, random.Random], None]] = {
    f.__name__.replace("_", " "): f
    for f in (
        one_damaged, with_a_pipe, pipe_alone, loops, device, labels_of_a_stranger, zipped, zip_damaged, bombs, arrays,
        arrays_damaged, digits_like, prepared, generator,
    )
}  # fmt: skip


def make_input(kind: str, place: Path, chance: random.Random) -> Path:
    """Make an input of a kind of `INPUTS` at `place`, a path that does not exist. Returns the path of the input."""
    INPUTS[kind](place, chance)
    return next(path for path in place.parent.iterdir() if path.stem == place.name)


# ---- settings --------------------------------------------------------------------------------------------

NAMES = (
    "loss", "penalties", "terms", "terms.0.gamma", "terms.5", "d_normalizer", "augment", "growth", "head", "head.san",
    "head.conditioning", "head.nothing", "g_optim.lr", "g_optim.betas", "d_optim", "ema.halflife_kimg", "batch_size",
    "compute.micro_batch", "total_kimg", "report.snapshot_kimg", "seed", "compute.precision", "compute.device",
    "generator", "generator.width",
    "generator.z_dim", "discriminator.width", "data", "data.path", "start", "report.evaluation", "d_steps", "__class__",
    "generator.__init__", "a.a.a.a", "", ".", "loss.", "0", "g_optim.betas.7", "constraints", "report.log_kimg",
)  # fmt: skip
VALUES = (
    "1", "-1", "0", "true", "none", "1e999", "-1e999", "nan", "9" * 5000, "[1,1]", "[]", "{}", "()", "Hinge", "R1",
    "R1(gamma=nan)", "R1(gamma=-1)", "R1(R1(R1))", "Hinge(", "Hinge)", "'x", "\"\"\"", "\x00", "\ud800",
    "-" * 10_000 + "1",
    DEEP, "(" * 100_000, "1+" * 20_000 + "1", "a." * 20_000 + "a", "__import__('os').system('true')", "lambda: 1",
    "Hinge if 1 else 2", "[R1 for _ in range(9)]", "R1(*[1])", "R1(**{})", "ADA(target=2)", "Images(path=5)",
    "Images(path='/dev/zero')", "FreezeD(run='/nowhere')", "f'{1}'", "1_0", "0x10", "1j", "b'1'", "...", "Adam(lr=inf)",
    "Adam(betas=[1,1])", "After(1,2)", "After(After(After(1,2),3),4)", "=", "==1", "# x", "Few(of=Digits,num=10**9)",
    "1000000000", "100000000000000000000", "0.1", "'", "\\", "\n", "Hinge\n", "日本語", "ProgressiveGrowing(initial=0)",
)  # fmt: skip


def override(chance: random.Random) -> str:
    """A ``key=value`` that a fuzzer might give: known names and values, joined and mutilated."""
    value = chance.choice(VALUES)
    if chance.random() < 0.3 and len(value) < 100:
        at = chance.randrange(len(value) + 1)
        value = (
            value[:at] + chance.choice(["(", ")", "[", "]", ",", "=", "-", ".", "9", "R1", "'", " ", "é"]) + value[at:]
        )
    if chance.random() < 0.2:
        value = f"[{value},{chance.choice(VALUES)[:200]}]"
    return chance.choice(NAMES) + chance.choice(["=", "=", "=", "=", "=", "", ":", " = "]) + value
