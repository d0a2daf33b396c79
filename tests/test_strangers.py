"""Data sets that strangers made: one line that names the file, in bounded time and memory."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import runpy
import socket
import struct
import sys
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fixtures import fixture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loops import loop_over
from PIL import Image
from test_data_cifar import pickled
from test_data_mnist import FILES
from typer.testing import CliRunner

from equipoise.cli.app import app
from equipoise.cli.options import raised_here
from equipoise.core.files import read_json
from equipoise.data import CIFAR10, Images, open_dataset, prepare, tars
from equipoise.data.shards import Shards

pytestmark = pytest.mark.timeout(60)  # the old code waits for ever

IDX = "train-images-idx3-ubyte"


def picture(mode: str = "RGB", kind: str = "PNG", size: int = 8) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(file := io.BytesIO(), kind)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    np.save(file := io.BytesIO(), array, allow_pickle=True)
    return file.getvalue()


def claiming(shape: str, dtype: str = "|u1", data: bytes = b"") -> bytes:
    """An .npy file whose header says anything."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + data


def zipped(members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    return gzip.compress(
        b"".join(info.tobuf() + content + bytes(-len(content) % 512) for info, content in members) + bytes(1024)
    )


def described(**about) -> bytes:
    usual = {"format": "equipoise images 1", "images": 4, "resolution": 6, "channels": 3, "num_classes": 2}
    return json.dumps(usual | {"class_names": ["a", "b"], "source": "x"} | about).encode()


PIXELS = np.arange(4 * 6 * 6 * 3).astype(np.uint8).reshape(4, 6, 6, 3)
LABELS = np.array([0, 1, 0, 1])
NPZ = {"x.npy": npy(PIXELS), "y.npy": npy(LABELS)}
PREPARED = {
    "images.npy": npy(PIXELS.transpose(0, 3, 1, 2).copy()),
    "labels.npy": npy(LABELS),
    "info.json": described(),
}
TABLE = {
    "a.png": picture(),
    "b.png": picture(),
    "dataset.json": json.dumps({"labels": [["a.png", 0], ["b.png", 1]], "class_names": ["x", "y"]}).encode(),
}


def folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def everything(dataset) -> np.ndarray:
    return dataset.read(np.arange(len(dataset)))


def refuses(build: Callable[[], object], *words: str) -> None:
    """`build` raises a ValueError of this package, one line with all the words, in order."""
    with pytest.raises(ValueError, match="(?s)" + ".*".join(re.escape(word) for word in words)) as caught:
        build()
    assert raised_here(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500


def refuses_to_open(place: Path, *words: str) -> None:
    refuses(lambda: everything(open_dataset(place)), *words)


# ---- the files of tests/data/faults --------------------------------------------------------------------------------


def no_bytes(part: object) -> str | None:
    """The name of a case: compressed bytes hold the time, and workers must find the same cases."""
    return "bytes" if isinstance(part, bytes) else None


@loop_over(
    ("name", "message"),
    [
        ("07_member_no_array.npz", r"07_member_no_array\.npz is not a readable \.npz file .*not a plain NumPy array"),
        ("08_zero_size.npz", r"08_zero_size\.npz holds images without pixels: 0x0"),
        ("09_class_names_number.zip", r"dataset\.json should hold .*class_names must be a list of text.* got 5"),
    ],
)
def test_faults(tmp_path, name, message):
    result = CliRunner().invoke(app, ["data", "prepare", str(fixture(f"faults/{name}")), str(tmp_path / "out")])
    assert result.exit_code == 2
    assert re.fullmatch(rf"error: .*{message}.*\n", result.output)
    assert list(tmp_path.iterdir()) == []


def test_names_with_and_without_a_slash_are_of_one_flat_set(tmp_path):
    dataset = prepare(fixture("faults/06_mixed_paths.zip"), tmp_path / "out")
    assert (len(dataset), dataset.labels) == (2, None)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["images.npy", "info.json", "out"]


def test_a_slash_is_no_class(tmp_path):
    """Unzip drops it, so that /a/1.png and b/1.png are of the classes a and b."""
    (tmp_path / "x.zip").write_bytes(zipped({f"{top}/{i}.png": picture() for top in ("/a", "b") for i in (0, 1)}))
    dataset = open_dataset(tmp_path / "x.zip")
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert list(dataset.class_names) == ["a", "b"]


# ---- what may be opened --------------------------------------------------------------------------------------------


@loop_over(
    ("files", "hostile", "source"),
    [
        ({}, "pipe", "pipe"),
        ({}, "x.npz", "x.npz"),
        ({}, "x.zip", "x.zip"),
        ({"a.png": picture()}, "b.png", ""),
        (TABLE, "dataset.json", ""),
        *((PREPARED, name, "") for name in ("labels.npy", "info.json")),
        ({"info.json": described()}, "images-00000.npy", ""),
    ],
)
@loop_over("kind", ["pipe", "socket", "device"])
def test_regular_files_only(tmp_path, files, hostile, source, kind):
    place = folder(tmp_path / "set", {name: content for name, content in files.items() if name != hostile})
    if kind == "pipe":
        os.mkfifo(place / hostile)
    elif kind == "device":
        (place / hostile).symlink_to("/dev/null")  # and not /dev/zero, whose bytes the old code would read for ever
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.relpath(place / hostile))  # an absolute path may be too long for a socket
    said = {"pipe": "a named pipe", "socket": "a socket", "device": "a device"}[kind]
    refuses_to_open(place / source, hostile, f"is {said}: expected a regular file")


def test_a_pipe_in_the_place_of_an_archive(tmp_path):
    os.mkfifo(tmp_path / "cifar.tar.gz")
    refuses(CIFAR10(tmp_path / "cifar.tar.gz").build, "cifar.tar.gz", "is a named pipe: expected a regular file")


def test_links_to_themselves(tmp_path, monkeypatch):
    """Fault 10: two links to the folder, which were followed 40 deep, have 2^40 paths."""
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "set")])
    runpy.run_path(str(fixture("faults/10_links_to_itself.py")))
    start = time.perf_counter()
    dataset = open_dataset(tmp_path / "set")
    assert time.perf_counter() - start < 1
    assert dataset.names == ["a.png", "b.png"]


def test_a_directory_is_read_once_under_its_own_name(tmp_path):
    """Whatever the order of names: links come after all real directories. Links out of the folder are followed."""
    for place in ("set/m/deep", "set/z", "elsewhere/more"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "1.png").write_bytes(picture())
    (tmp_path / "set/a").symlink_to("z")
    (tmp_path / "set/m/deep/a").symlink_to("../../z")
    (tmp_path / "set/b").symlink_to("../elsewhere")
    (tmp_path / "set/c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path)
    names = open_dataset(tmp_path / "set").names
    assert names == ["b/more/1.png", "m/deep/1.png", "z/1.png"]


def test_a_link_to_itself_is_named(tmp_path):
    folder(tmp_path / "set", {"a.png": picture()})
    (tmp_path / "set" / "core").symlink_to("core")
    assert len(open_dataset(tmp_path / "set")) == 1
    (tmp_path / "set" / "b.png").symlink_to("b.png")
    refuses_to_open(tmp_path / "set", "b.png cannot be read as an image", "symbolic links")


def test_a_sub_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "set" / "cats").mkdir(parents=True)
    folder(tmp_path / "set" / "dogs", {"a.png": picture()})
    scandir = os.scandir

    def locked(path):
        if Path(path).name == "cats":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)  # root may read everything
    refuses_to_open(tmp_path / "set", "set/cats cannot be read (Permission denied): allow it, or move it out of")


def test_hidden_folders_are_not_looked_into(tmp_path, monkeypatch):
    folder(tmp_path / "set", {"a.png": picture()})
    for name in (".cache", "__MACOSX"):
        (tmp_path / "set" / name).mkdir()
    scandir, looked = os.scandir, set()
    monkeypatch.setattr(os, "scandir", lambda path: looked.add(str(path)) or scandir(path))
    assert open_dataset(tmp_path / "set").names == ["a.png"]
    assert looked == {str(tmp_path / "set")}


def test_a_home_that_nobody_has():
    refuses(lambda: open_dataset("~nobody-of-this-name/set"), "cannot find ~nobody-of-this-name/set", "without ~")
    refuses(lambda: prepare("digits", "~nobody-of-this-name/set"), "cannot find ~nobody-of-this-name/set")


# ---- arrays --------------------------------------------------------------------------------------------------------


class TestArrays:
    @pytest.mark.parametrize(
        ("member", "words"),
        [
            (claiming("(10000000000,)", data=bytes(100)), ["x.npy promises uint8", "10000000000 bytes, and holds 100"]),
            (claiming(f"({2**40}, {2**40})", data=bytes(9)), ["x.npy promises", "and holds 9: it is damaged"]),
            (claiming(f"({2**32}, {2**32})"), ["x.npy promises", "and holds 0: it is damaged"]),  # 0 in 64 bits
            (claiming(f"(5, 4, {2**64 // 4}, 0)"), ["cannot reshape"]),
            (claiming("(-3, 4, 4)", data=bytes(48)), ["not a plain NumPy array"]),
            (claiming("(True, 4, 4)", data=bytes(16)), ["not a plain NumPy array"]),
            (claiming("((3,), 4)", data=bytes(12)), ["not a plain NumPy array"]),
            (claiming("(2, 4, 4)", "|O", bytes(256)), ["holds Python objects, which are pickled"]),
            (npy(np.array([None, 1])), ["holds Python objects, which are pickled"]),
            (claiming("(2, 4, 4)", "no such type"), ["not a plain NumPy array"]),
            (claiming("-" * 1900 + "1"), ["not a plain NumPy array"]),
            (claiming("(" * 9000), ["not a plain NumPy array"]),
            (claiming(f"({10**12}, 2, 2)", "|V0"), ["must be uint8", "got |V0"]),
            (npy(PIXELS)[:-1], ["x.npy promises uint8 of shape (4, 6, 6, 3), 432 bytes, and holds 431"]),
            (npy(PIXELS).replace(b"\x93NUMPY\x01", b"\x93NUMPY\x02"), ["not a plain NumPy array", "version (2, 0)"]),
            (b"", ["not a plain NumPy array"]),
            (pickle.dumps({"x": 1}), ["not a plain NumPy array"]),
            (npy(np.zeros((3, 0, 4), np.uint8)), ["holds images without pixels: 4x0 in 1 channels"]),
            (npy(np.zeros((0, 4, 4), np.uint8)), ["holds no images"]),
        ],
    )
    def test_members_that_lie(self, tmp_path, member, words):
        (tmp_path / "x.npz").write_bytes(zipped({"x.npy": member}, zipfile.ZIP_DEFLATED))
        tracemalloc.start()
        try:
            refuses_to_open(tmp_path / "x.npz", "x.npz", *words)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
    @pytest.mark.parametrize("content", [claiming("(4, 10, 10, 10)"), claiming("(4,)", "|O", bytes(32)), b"", b"text"])
    def test_prepared_sets_that_lie(self, tmp_path, name, content):
        place = folder(tmp_path / "set", PREPARED | {name: content})
        refuses_to_open(place, "set is not a complete prepared set", name, "prepare it again")

    @pytest.mark.parametrize(
        ("about", "words"),
        [
            ({"images": 5}, "info.json promises"),
            ({"images": "x" * 5000}, "info.json promises"),
            ({"format": ["x"] * 5000}, "info.json promises"),
            ({"channels": None}, "info.json promises"),
            ({"class_names": 5}, "class_names must be a list of text, a name per class, got 5"),
            ({"class_names": [1, 2]}, "class_names must be a list of text, a name per class, got [1, 2]"),
            ({"class_names": {"a": 0}}, "class_names must be a list of text"),
        ],
    )
    def test_descriptions_that_lie(self, tmp_path, about, words):
        place = folder(tmp_path / "set", PREPARED | {"info.json": described(**about)})
        refuses_to_open(place, "set is not a complete prepared set", words, "prepare it again")

    def test_two_channels_are_no_image(self, tmp_path):
        images = npy(np.zeros((4, 2, 6, 6), np.uint8))
        place = folder(tmp_path / "set", PREPARED | {"images.npy": images, "info.json": described(channels=2)})
        refuses_to_open(place, "set is not a complete prepared set", "4, 2, 6, 6")

    @pytest.mark.parametrize("names", [np.array(5), np.array([["a"], ["b"]]), np.array([0.5, 1]), np.array(b"a")])
    def test_class_names_that_are_none(self, tmp_path, names):
        np.savez(tmp_path / "x.npz", x=PIXELS, y=LABELS, class_names=names)
        refuses_to_open(tmp_path / "x.npz", "x.npz: class_names must be a list of text, a name per class")

    @pytest.mark.parametrize("names", [claiming(f"({10**9},)", "<U0"), claiming("(1,)", "<U1", b"\xff\xff\xff\x7f")])
    def test_class_names_that_no_text_has(self, tmp_path, names):
        (tmp_path / "x.npz").write_bytes(zipped(NPZ | {"class_names.npy": names}))
        refuses_to_open(tmp_path / "x.npz", "x.npz", "class_names")

    def test_names_of_bytes_and_fortrans_order_are_read(self, tmp_path):
        np.savez(tmp_path / "x.npz", x=np.asfortranarray(PIXELS), y=LABELS, class_names=np.array([b"a", b"bc"]))
        dataset = open_dataset(tmp_path / "x.npz")
        np.testing.assert_array_equal(everything(dataset), PIXELS.transpose(0, 3, 1, 2))
        assert list(dataset.class_names) == ["a", "bc"]

    def test_fortrans_order_is_no_shard(self, tmp_path):
        (tmp_path / "0.npy").write_bytes(npy(np.asfortranarray(PIXELS)))
        refuses(lambda: Shards([tmp_path / "0.npy"]), "0.npy should hold uint8", "in Fortran's order")

    @pytest.mark.parametrize(
        ("sizes", "said"),
        [
            ((2**31, 2**31, 4), "2147483648x2147483648x4"),  # 2^64 bytes, which is 0 in 64 bits
            ((2**32 - 1,) * 3, "4294967295x4294967295x4294967295"),
            ((30, 28, 27), "30x28x27 bytes and holds more"),
        ],
    )
    @pytest.mark.parametrize("packed", [False, True])
    def test_idx_sizes_that_overflow_or_lie(self, tmp_path, sizes, said, packed):
        data = FILES[IDX][:4] + struct.pack(">3I", *sizes) + FILES[IDX][16:]
        name = f"{IDX}.gz" if packed else IDX
        files = {k: v for k, v in FILES.items() if k != IDX} | {name: gzip.compress(data) if packed else data}
        bomb = ["would unpack to"] if max(sizes) > 100 else ["should hold", said]
        refuses_to_open(folder(tmp_path / "set", files), name, *bomb)


# ---- bombs ---------------------------------------------------------------------------------------------------------


class TestBombs:
    """Small files that become large. The limit is 1 MB here, and 3.6 MB are asked for."""

    @pytest.fixture(autouse=True)
    def one_megabyte(self, monkeypatch):
        monkeypatch.setenv("EQUIPOISE_UNPACK_MB", "1")

    black = npy(np.zeros((1000, 60, 60), np.uint8))

    def refused_until_allowed(self, place: Path, monkeypatch, *words: str) -> None:
        tracemalloc.start()
        try:
            refuses_to_open(place, *words, "more than 1 MB and more than 100 times", "set EQUIPOISE_UNPACK_MB=")
            assert tracemalloc.get_traced_memory()[1] < 2 << 20
        finally:
            tracemalloc.stop()
        monkeypatch.setenv("EQUIPOISE_UNPACK_MB", "4")
        open_dataset(place)

    def test_an_array(self, tmp_path, monkeypatch):
        (tmp_path / "x.npz").write_bytes(zipped({"x.npy": self.black}, zipfile.ZIP_DEFLATED))
        self.refused_until_allowed(tmp_path / "x.npz", monkeypatch, "x.npz", "x.npy holds", "would unpack to 3600128")

    def test_what_is_a_hundred_times_as_large_at_most_is_read(self, tmp_path):
        x = np.random.default_rng(0).integers(0, 2, (300, 60, 60), np.uint8)  # random bits take an eighth
        np.savez_compressed(tmp_path / "x.npz", x=x)
        assert len(open_dataset(tmp_path / "x.npz")) == 300

    def test_gzipped_idx(self, tmp_path, monkeypatch):
        data = gzip.compress(FILES[IDX][:4] + struct.pack(">3I", 1000, 60, 60) + bytes(3_600_000))
        labels = gzip.compress(FILES["train-labels-idx1-ubyte"][:4] + struct.pack(">I", 1000) + bytes(1000))
        place = folder(tmp_path / "set", {f"{IDX}.gz": data, "train-labels-idx1-ubyte.gz": labels})
        self.refused_until_allowed(place, monkeypatch, IDX, "would unpack to 3600000")

    @pytest.mark.parametrize("name", ["a.png", "dataset.json"])
    def test_a_file_in_a_zip(self, tmp_path, monkeypatch, name):
        files = {"a.png": picture(), "dataset.json": b'{"labels": null}'}
        files[name] += b" " * 3_000_000
        (tmp_path / "x.zip").write_bytes(zipped(files, zipfile.ZIP_DEFLATED))
        self.refused_until_allowed(tmp_path / "x.zip", monkeypatch, f"x.zip/{name}", "would unpack to 30")

    @pytest.mark.parametrize("name", ["data_batch_1", "skipped"])
    def test_an_archive(self, tmp_path, name):
        info = header(name, 6000 * 512)
        (tmp_path / "cifar.tar.gz").write_bytes(tarred([(info, bytes(info.size))]))
        refuses(CIFAR10(tmp_path / "cifar.tar.gz").build, "cifar.tar.gz", "would unpack to", "EQUIPOISE_UNPACK_MB=")

    @pytest.mark.parametrize("limit", ["many", "0", "-5", "1.5", "9" * 5000])
    def test_a_limit_that_is_no_number(self, tmp_path, monkeypatch, limit):
        monkeypatch.setenv("EQUIPOISE_UNPACK_MB", limit)
        (tmp_path / "x.npz").write_bytes(zipped(NPZ))
        refuses_to_open(tmp_path / "x.npz", "a positive whole number in the environment variable EQUIPOISE_UNPACK_MB")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("options", [{}, {"resolution": 8, "channels": 3}])
def test_pictures_of_too_many_pixels(tmp_path, monkeypatch, options):
    """A limit of ours that the user sets, and Pillow's, which is far above what a small picture may have."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # the limit raises it, for this test alone
    place = folder(tmp_path / "set", {"a.png": picture(size=40), "b.png": picture(size=40)})
    for limit in ("1500", "700"):  # Pillow refuses what has more than twice as many
        monkeypatch.setenv("EQUIPOISE_MAX_PIXELS", limit)
        refuses(
            lambda: everything(Images(place, **options).build()),
            f"a.png cannot be read as an image (it has 1600 pixels, more than {limit}: make it smaller",
            "set EQUIPOISE_MAX_PIXELS=1600",
        )
    monkeypatch.setenv("EQUIPOISE_MAX_PIXELS", "1600")
    assert len(everything(Images(place, **options).build())) == 2


def test_a_bomb_among_pictures():
    """20,000 x 20,000 pixels in 48 KB."""
    tracemalloc.start()
    try:
        refuses_to_open(fixture("images/bomb"), "bomb.png", "400000000 pixels", "set EQUIPOISE_MAX_PIXELS=400000000")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_sixteen_bits_take_little_memory(tmp_path):
    """1,000 x 1,000 pixels of 16 bits are 2 MB, and 8 MB for each step in 64 bits."""
    Image.fromarray(np.zeros((1000, 1000), np.uint16)).save(tmp_path / "a.png")
    dataset = open_dataset(tmp_path)
    tracemalloc.start()
    try:
        everything(dataset)
        assert tracemalloc.get_traced_memory()[1] < 6e6
    finally:
        tracemalloc.stop()


def test_postscript_is_not_run(tmp_path):
    """Pillow goes by the content of a file, and would start Ghostscript for this one, which would never end."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{} loop\n")
    refuses_to_open(tmp_path, "a.png cannot be read as an image (it is text, and begins with '%!PS-Adobe")


# ---- zips, tables and archives -------------------------------------------------------------------------------------


def encrypted(content: bytes) -> bytes:
    """The same zip with the bit of encryption set, in each header of a file and of the directory."""
    data = bytearray(content)
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark)
        while at >= 0:
            data[at + flags] |= 1
            at = data.find(mark, at + 1)
    return bytes(data)


PAIR = {"a.png": picture(), "b.png": picture()}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zipped(PAIR)[:-30], ["is not a readable zip file"]),
        (zipped({"é.png": picture()}).replace("é".encode(), b"\xff\xff"), ["is not a readable zip file", "codec"]),
        (encrypted(zipped(TABLE)), ["is encrypted (a.png): unpack it with its password first"]),
        (zipped(PAIR).replace(b"b.png", b"a.png"), ["holds two files of the name a.png"]),
        (zipped({"inner.zip": zipped(PAIR)}), ["holds no images", "1 other files"]),
        (zipped({"a\nb\x1b[31m.png": b"?"}), ["a\\nb\\x1b[31m.png cannot be read as an image"]),
        (zipped({f"{'a' * 60_000}.png": b"?"}), ["aaa cannot be read as an image"]),
        (zipped(TABLE | {"dataset.json": b"[" * 100_000}), ["dataset.json should hold", "nested too deeply"]),
        (zipped(TABLE | {"dataset.json": b'"\xff'}), ["dataset.json should hold", "codec"]),
        (zipped(TABLE | {"dataset.json": b"null"}), ["dataset.json should hold", "a JSON NoneType"]),
        (zipped(TABLE | {"dataset.json": b"1" * 5000}), ["dataset.json should hold", "4300 digits"]),
        (zipped(TABLE | {"dataset.json": b'{"labels": 5}'}), ["dataset.json should hold"]),
        (zipped(TABLE | {"dataset.json": b'{"labels": [[5, 3]]}'}), ["dataset.json should hold"]),
        (zipped(TABLE | {"dataset.json": b'{"labels": [[["a"], 3]]}'}), ["dataset.json should hold"]),
        (zipped(TABLE | {"dataset.json": TABLE["dataset.json"].replace(b"1]", b"9" * 30 + b"]")}), ["one integer per"]),
    ],
    ids=no_bytes,
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zips(tmp_path, content, words):
    (tmp_path / "x.zip").write_bytes(content)
    refuses_to_open(tmp_path / "x.zip", "x.zip", *words)


def test_json_of_the_right_type():
    assert read_json(b'{"a": [1]}', "a.json") == {"a": [1]}
    assert read_json("[1]", "a.json", list) == [1]


def test_an_unreadable_table_in_a_zip(tmp_path):
    """Of a kind of compression that Python does not know."""
    data = zipped(TABLE)
    at = data.rfind(b"PK\x01\x02", 0, data.rfind(b"dataset.json"))
    (tmp_path / "x.zip").write_bytes(data[: at + 10] + b"\x63" + data[at + 11 :])
    refuses_to_open(tmp_path / "x.zip", "x.zip/dataset.json should hold", "compression")


def test_a_tiff_in_a_zip_is_unpacked_once(tmp_path, monkeypatch):
    """Each of its tags may lie anywhere, and each step back in compressed data unpacks all before it again."""
    (tmp_path / "x.zip").write_bytes(zipped({"a.tif": picture(kind="TIFF")}, zipfile.ZIP_DEFLATED))
    monkeypatch.setattr(zipfile.ZipExtFile, "seek", lambda *_: pytest.fail("a step in compressed data"))
    assert len(open_dataset(tmp_path / "x.zip")) == 1


def nested_keys() -> bytes:
    """{((..., ...), (..., ...)): 1} 60 deep, whose hash takes 2^60 steps; the file has 200 bytes."""
    return b"\x80\x02}(" + b")" + b"".join(b"q%c0h%ch%c\x86" % (i, i, i) for i in range(60)) + b"K\x01u."


@loop_over(
    ("content", "words"),
    [
        (nested_keys(), ["its keys are not text"]),
        (b"\x80\x02]r\xff\xff\xff\x0f.", ["list indices"]),  # number 2^28 - 1 of a table: 4 GB
        (
            b"\x80\x02}(X\x04\x00\x00\x00dataK\x01X\x06\x00\x00\x00labels]" + b"]a" * 9 + b"u.",
            ["its labels are not a list"],
        ),
        (pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1]}, 3), ["its images are f8 and not bytes"]),
        (pickle.dumps({"data": np.zeros(5, np.uint8), "labels": [10**30]}, 3), ["int too large"]),
        (pickle.dumps([1], 2), ["list indices"]),
        (b"(" * 5000 + b".", ["it does not end with one value"]),
    ],
    ids=no_bytes,
)
def test_pickles(tmp_path, content, words):
    place = folder(tmp_path / "set", pickled() | {"data_batch_1": content})
    tracemalloc.start()
    try:
        refuses(CIFAR10(place).build, "data_batch_1 of", "is not a batch of CIFAR-10", *words)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, name
    return info


def backwards() -> bytes:
    """An archive whose first member ends where it begins."""
    block = bytearray(header("a", 0).tobuf())
    block[124:136] = b"\xff" * 10 + b"\xfc\x00"  # -1024 in base 256
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return gzip.compress(bytes(block) + bytes(2048))


@loop_over(
    ("content", "words"),
    [
        (backwards(), ["its parts overlap"]),
        (tarred([(header("data_batch_1", 0, tarfile.SYMTYPE), b"")]), ["lacks data_batch_1"]),
        (tarred([(header("long", 50_000, tarfile.XHDTYPE), b"1" * 50_000)]), ["a header of 50176 bytes"]),
        (tarred([(header("many", 0), b"")] * 21), ["more than 20 members"]),
        (tarred([(header("x", 600, tarfile.GNUTYPE_LONGNAME), b"a" * 600)] * 1000), ["recursion"]),
        (b"no archive", ["is not a readable .tar.gz file"]),
    ],
    ids=no_bytes,
)
def test_archives(tmp_path, monkeypatch, content, words):
    monkeypatch.setattr(tars, "MOST", 20)
    (tmp_path / "cifar.tar.gz").write_bytes(content)
    refuses(CIFAR10(tmp_path / "cifar.tar.gz").build, "cifar.tar.gz", *words)


# ---- any bytes -----------------------------------------------------------------------------------------------------

CIFAR = pickled()
WHOLE = {  # files of a set, and which of them is changed
    "npz": ({"x.npz": zipped(NPZ)}, "x.npz"),
    "compressed npz": ({"x.npz": zipped(NPZ, zipfile.ZIP_DEFLATED)}, "x.npz"),
    "zip": ({"x.zip": zipped(TABLE, zipfile.ZIP_DEFLATED)}, "x.zip"),
    "table": (TABLE, "dataset.json"),
    **{name: (PREPARED, name) for name in PREPARED},
    "idx": (FILES, IDX),
    "idx.gz": ({f"{name}.gz": gzip.compress(data) for name, data in FILES.items()}, f"{IDX}.gz"),
    "pickle": (CIFAR, "data_batch_2"),
    "tar": ({"cifar.tar.gz": tarred([(header(n, len(c)), c) for n, c in CIFAR.items()])}, "cifar.tar.gz"),
    **{kind: ({"a.png": picture(kind=kind)}, "a.png") for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM")},
}


def opened(name: str, place: Path):
    if name in ("pickle", "tar"):
        return CIFAR10(place if name == "pickle" else place / "cifar.tar.gz").build()
    return open_dataset(place / f"x.{name.split()[-1]}" if name.endswith(("npz", "zip")) else place)


@loop_over("name", WHOLE)
def test_the_sets_open_as_they_are(tmp_path, name):
    everything(opened(name, folder(tmp_path / "set", WHOLE[name][0])))


def complaint(name: str, place: Path) -> ValueError | None:
    try:
        dataset = opened(name, place)
        if dataset.spec.resolution < 1000:
            everything(dataset)
    except ValueError as error:
        return error
    return None


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """Other bytes, fewer, or the same with some replaced, where headers are more often than elsewhere."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=40) | st.integers(0, len(content)).map(lambda size: content[:size]))
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(300, len(data) - 1)) | st.integers(0, len(data) - 1))
        new = draw(st.binary(min_size=1, max_size=4) | st.sampled_from([b"\xff" * 8, b"[" * 3, b"9" * 9, b"\0" * 4]))
        data[at : at + draw(st.integers(0, 4))] = new
    return bytes(data)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.filterwarnings("ignore")  # of Pillow and zipfile, of damage that they can read past
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_bytes_are_a_data_set_or_a_message(tmp_path, name, data):
    files, changed = WHOLE[name]
    folder(tmp_path / "set", files | {changed: data.draw(damaged(files[changed]))})
    error = complaint(name, tmp_path / "set")
    assert error is None or (raised_here(error) and "\n" not in str(error))
