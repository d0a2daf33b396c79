"""CIFAR-10: every published form of it gives the same images, bad files are refused, downloads are checked."""

from __future__ import annotations

import hashlib
import io
import pickle
import pickletools
import tarfile
from pathlib import Path

import numpy as np
import pytest
from loops import loop_over

from equipoise.core.types import ImageSpec
from equipoise.data import CIFAR10
from equipoise.data import cifar as module

GENERATOR = np.random.default_rng(0)
X = {s: GENERATOR.integers(0, 256, (n, 32, 32, 3), np.uint8) for s, n in (("train", 50), ("test", 20))}
Y = {split: np.arange(len(x)) * 3 % 10 for split, x in X.items()}
NAMES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}


def parts():
    """(file's name, channels first and flat (n, 3072), labels) of every batch."""
    for split, names in NAMES.items():
        for name, x, y in zip(names, np.split(X[split], len(names)), np.split(Y[split], len(names)), strict=True):
            yield name, x.transpose(0, 3, 1, 2).reshape(len(x), -1), y


def binary() -> dict[str, bytes]:
    return {f"{n}.bin": np.concatenate([y[:, None].astype(np.uint8), x], 1).tobytes() for n, x, y in parts()}


def pickled() -> dict[str, bytes]:
    """As Python 2 has written them: its text is bytes, and NumPy was at its old place."""
    files = {}
    for name, x, y in parts():
        content = bytearray(pickle.dumps({"batch_label": name, "data": x, "labels": y.tolist()}, protocol=3))
        for opcode, _, at in pickletools.genops(bytes(content)):
            if opcode.name in ("BINBYTES", "SHORT_BINBYTES"):
                content[at] = ord("T" if opcode.name == "BINBYTES" else "U")  # BINSTRING and SHORT_BINSTRING
        files[name] = bytes(content).replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray")
    return files


def folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def archive(path: Path, inside: str, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {"readme.html": b"", **files}.items():
            member = tarfile.TarInfo(f"{inside}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def npz(path: Path) -> Path:
    labels = {f"y_{split}": y[:, None] for split, y in Y.items()}  # a column, as Keras has them
    np.savez(path, **{f"x_{split}": x for split, x in X.items()}, **labels)
    return path


FORMS = {
    "binary archive": lambda p: archive(p / "cifar-10-binary.tar.gz", "cifar-10-batches-bin", binary()),
    "python archive": lambda p: archive(p / "cifar-10-python.tar.gz", "cifar-10-batches-py", pickled()),
    "binary folder": lambda p: folder(p / "cifar-10-batches-bin", binary()),
    "python folder": lambda p: folder(p / "cifar-10-batches-py", pickled()),
    "npz": lambda p: npz(p / "cifar10.npz"),
}


def check(dataset, split: str) -> None:
    assert dataset.spec == ImageSpec(resolution=32, channels=3, num_classes=10)
    np.testing.assert_array_equal(dataset.read(np.arange(len(dataset))).transpose(0, 2, 3, 1), X[split])
    np.testing.assert_array_equal(dataset.labels, Y[split])
    assert dataset.class_names[3] == "cat"


@loop_over("split", ["train", "test"])
@loop_over("form", FORMS)
def test_every_form_is_the_same_images(tmp_path, monkeypatch, form, split):
    place = FORMS[form](tmp_path / "cifar10") if form != "npz" else npz(tmp_path / "cifar10.npz")
    check(CIFAR10(path=place, split=split).build(), split)
    if form != "npz":
        check(CIFAR10(path=place.parent, split=split).build(), split)
        monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path))
        check(CIFAR10(split=split).build(), split)


class Caller:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class TestBadFiles:
    def fails(self, path: Path, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            CIFAR10(path=path).build()

    def test_nothing_there(self, tmp_path):
        self.fails(tmp_path, r"no CIFAR-10 at .*expected cifar-10-binary\.tar\.gz")
        self.fails(tmp_path / "gone", "no CIFAR-10 at .*gone")

    def test_no_pickle_calls_anything(self, tmp_path):
        made = tmp_path / "made"
        place = folder(tmp_path / "cifar-10-batches-py", pickled() | {"data_batch_2": pickle.dumps(Caller(made), 2)})
        self.fails(
            place, r"data_batch_2 of .* is not a batch of CIFAR-10.*it would call (io|_io|builtins|__builtin__)\.open"
        )
        assert not made.exists()

    @pytest.mark.parametrize(
        ("form", "content", "message"),
        [
            ("binary folder", b"\0" * 3072, r"data_batch_2\.bin of .*3072 bytes, no multiple of 3073"),
            ("binary folder", b"", r"data_batch_2\.bin of .*0 bytes"),
            ("python folder", b"no pickle", "data_batch_2 of .* damaged"),
            ("python folder", pickle.dumps({"labels": [1]}, 2), "data_batch_2 of .*'data'"),
            (
                "python folder",
                pickle.dumps({"data": [[1.0]], "labels": [1]}, 2),
                r"bytes of shape \(1, 3072\), got a list",
            ),
        ],
    )
    def test_damaged(self, tmp_path, form, content, message):
        place = FORMS[form](tmp_path)
        (place / ("data_batch_2.bin" if form == "binary folder" else "data_batch_2")).write_bytes(content)
        self.fails(place, message)

    def test_other_images(self, tmp_path):
        np.savez(tmp_path / "mnist.npz", x_train=np.zeros((20, 28, 28), np.uint8), y_train=np.arange(20) % 10)
        self.fails(tmp_path / "mnist.npz", r"images of shape \(1, 28, 28\), but CIFAR-10 has \(3, 32, 32\)")

    def test_missing_batch(self, tmp_path):
        place = FORMS["binary folder"](tmp_path)
        (place / "data_batch_4.bin").unlink()
        self.fails(place, r"lacks data_batch_4\[\.bin\]")

    def test_cut_archive(self, tmp_path):
        place = FORMS["binary archive"](tmp_path)
        place.write_bytes(place.read_bytes()[:5000])
        self.fails(place, "is not a readable .tar.gz file")


class TestDownload:
    @pytest.fixture
    def published(self, tmp_path, monkeypatch) -> Path:
        """An archive with its hash at a URL, and an empty cache."""
        path = FORMS["binary archive"](tmp_path / "mirror")
        monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(module, "URLS", (path.as_uri(),))
        monkeypatch.setattr(module, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
        return path

    def test_once(self, tmp_path, published):
        check(CIFAR10().build(), "train")
        published.unlink()
        check(CIFAR10(split="test").build(), "test")
        assert [p.name for p in (tmp_path / "cache" / "cifar10").iterdir()] == ["cifar-10-binary.tar.gz"]

    def test_a_wrong_file_is_never_kept(self, tmp_path, published):
        published.write_bytes(b"<html>please log in</html>")
        with pytest.raises(ValueError, match=r"(?s)neither here nor within reach.*wrong SHA-256.*by hand, or pass"):
            CIFAR10().build()
        assert not any((tmp_path / "cache" / "cifar10").iterdir())
