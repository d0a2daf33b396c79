"""Digits, MNIST and Fashion-MNIST: where they are looked for, how they are read, and how they are downloaded."""

from __future__ import annotations

import gzip
import hashlib
import re
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import equipoise.data
from equipoise.core.types import ImageSpec
from equipoise.data import MNIST, Digits, FashionMNIST, Images
from equipoise.data import mnist as mnist_module

X = {
    split: np.random.default_rng(n).integers(0, 256, (n, 28, 28), np.uint8)
    for split, n in (("train", 30), ("test", 20))
}
Y = {split: (np.arange(len(x)) * 7 % 10).astype(np.uint8) for split, x in X.items()}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


FILES = {
    "train-images-idx3-ubyte": idx(X["train"]),
    "train-labels-idx1-ubyte": idx(Y["train"]),
    "t10k-images-idx3-ubyte": idx(X["test"]),
    "t10k-labels-idx1-ubyte": idx(Y["test"]),
}


def write(folder: Path, *, zipped: bool = True, dotted: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in FILES.items():
        name = name.replace("-idx", ".idx") if dotted else name
        (folder / f"{name}.gz").write_bytes(gzip.compress(data)) if zipped else (folder / name).write_bytes(data)
    return folder


def write_npz(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{f"{k}_{s}": a[s] for k, a in (("x", X), ("y", Y)) for s in ("train", "test")})
    return path


def check(dataset, split: str) -> None:
    assert dataset.spec == ImageSpec(resolution=28, channels=1, num_classes=10)
    np.testing.assert_array_equal(dataset.read(np.arange(len(dataset)))[:, 0], X[split])
    np.testing.assert_array_equal(dataset.labels, Y[split])


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, no system folders, no mirrors."""
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    for name in ("MNIST_FILES", "FASHION_FILES"):
        monkeypatch.setattr(mnist_module, name, replace(getattr(mnist_module, name), folders=(), mirrors=()))
    return tmp_path / "cache"


class TestDigits:
    def test_a_thousand_of_each(self):
        digits = Digits().build()
        assert digits.spec == ImageSpec(28, 1, 10)
        assert np.bincount(digits.labels).tolist() == [1000] * 10
        assert list(digits.class_names) == list("0123456789")
        assert not digits.slow

    def test_they_are_the_bytes_of_the_file(self):
        with np.load(Path(equipoise.data.__file__).parent / "digits.npz") as file:
            x, y = file["x"], file["y"]
        digits, some = Digits().build(), np.array([9999, 0, 123])
        np.testing.assert_array_equal(digits.read(some), x[some][:, None], strict=True)
        np.testing.assert_array_equal(digits.labels, y)

    def test_labels_match_the_pictures(self):
        """Nearest class mean classifies MNIST at 82 %; shuffled labels or pixels would give 10 %."""
        digits = Digits().build()
        x = digits.read(np.arange(len(digits))).reshape(len(digits), -1) / 255.0
        means = np.stack([x[::2][digits.labels[::2] == c].mean(0) for c in range(10)])
        guess = (x[1::2] @ means.T - 0.5 * (means**2).sum(1)).argmax(1)
        assert 0.75 < (guess == digits.labels[1::2]).mean() < 0.9


@pytest.mark.parametrize("config", [MNIST, FashionMNIST])
@pytest.mark.parametrize("split", ["train", "test"])
class TestPlaces:
    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("dotted", [True, False])
    def test_idx_files(self, tmp_path, config, split, zipped, dotted):
        check(config(write(tmp_path, zipped=zipped, dotted=dotted), split).build(), split)

    def test_npz_file_or_its_directory(self, tmp_path, config, split):
        name = {MNIST: "mnist", FashionMNIST: "fashion_mnist"}[config]
        path = write_npz(tmp_path / f"{name}.npz")
        check(config(str(path), split).build(), split)
        check(config(tmp_path, split).build(), split)

    def test_cache(self, cache, config, split):
        write(cache / {MNIST: "mnist", FashionMNIST: "fashion_mnist"}[config])
        check(config(split=split).build(), split)


def test_fashion_mnist_of_the_system_comes_first(cache, tmp_path, monkeypatch):
    files = replace(mnist_module.FASHION_FILES, folders=(tmp_path / "absent", write(tmp_path / "system")))
    monkeypatch.setattr(mnist_module, "FASHION_FILES", files)
    (cache / "fashion_mnist").mkdir(parents=True)
    (cache / "fashion_mnist" / "train-images-idx3-ubyte").write_bytes(b"must not be read")
    check(FashionMNIST().build(), "train")


def test_class_names():
    assert mnist_module.FASHION_FILES.class_names[9] == "Ankle boot"
    assert len(mnist_module.FASHION_FILES.class_names) == 10


def test_images_opens_idx_directories(tmp_path):
    check(Images(write(tmp_path)).build(), "train")


@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="dataset-fashion-mnist not installed"
)
def test_checksums_and_debian_package():
    folder = Path("/usr/share/datasets/fashion-mnist")
    for name, sha256 in mnist_module.FASHION_FILES.sha256.items():
        assert hashlib.sha256(gzip.decompress((folder / f"{name}.gz").read_bytes())).hexdigest() == sha256
    assert len(FashionMNIST().build()) == 60000


class TestBadFiles:
    def fails(self, config, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            config.build()

    def test_nothing_there(self, tmp_path):
        self.fails(MNIST(tmp_path), r"no MNIST \(train\) at .*train-images-idx3-ubyte\[\.gz\].*mnist\.npz")
        self.fails(FashionMNIST(tmp_path / "gone", "test"), r"no Fashion-MNIST \(test\) at .*gone")

    def test_no_labels(self, tmp_path):
        (write(tmp_path) / "t10k-labels-idx1-ubyte.gz").unlink()
        check(MNIST(tmp_path).build(), "train")
        self.fails(MNIST(tmp_path, "test"), r"t10k-images-idx3-ubyte\.gz has no labels beside it: add t10k-labels-idx1")
        np.savez(tmp_path / "x.npz", x_train=X["train"])
        self.fails(MNIST(tmp_path / "x.npz"), "holds images of MNIST but no y_train")
        self.fails(MNIST(tmp_path / "x.npz", "test"), "holds the arrays x_train; expected 'x_test' and 'y_test'")

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (FILES["train-images-idx3-ubyte"][:-5], "should hold 30x28x28 bytes and holds 23515"),
            (FILES["train-images-idx3-ubyte"][:9], "not an IDX file"),
            (FILES["train-labels-idx1-ubyte"], "not an IDX file of bytes in 3 dimensions"),
            (b"<html>not found</html>", "not an IDX file"),
            (gzip.compress(FILES["train-images-idx3-ubyte"])[:-500], "damaged gzip file"),
            (b"\x1f\x8b" + bytes(50), "damaged gzip file"),
        ],
    )
    def test_damaged(self, tmp_path, data, message):
        write(tmp_path, zipped=False)
        (tmp_path / "train-images-idx3-ubyte").write_bytes(data)
        self.fails(MNIST(tmp_path), f"train-images-idx3-ubyte .*{message}")

    def test_more_labels_than_images(self, tmp_path):
        write(tmp_path, zipped=False)
        (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(31, np.uint8)))
        self.fails(MNIST(tmp_path), r"MNIST: labels must be one integer per image, shape \(30,\), got .*\(31,\)")

    def test_unknown_split(self):
        with pytest.raises(ValueError, match="'train', 'test'"):
            MNIST(split="validation")


# ---- download --------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Serves `content` by path and remembers what was asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content: dict[str, bytes] = {}
        self.asked: list[str] = []

    def url(self, folder: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{folder}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        data = self.server.content.get(self.path)
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *args):
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.content = {f"/good/{name}.gz": gzip.compress(data) for name, data in FILES.items()}
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def mirrors(cache, server, monkeypatch):
    """Sets the mirrors of MNIST to folders of the local server."""
    sha256 = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}

    def use(*folders: str) -> None:
        files = replace(mnist_module.MNIST_FILES, mirrors=tuple(server.url(f) for f in folders), sha256=sha256)
        monkeypatch.setattr(mnist_module, "MNIST_FILES", files)

    return use


class TestDownload:
    def test_four_files_once_from_the_first_mirror_that_works(self, cache, server, mirrors):
        mirrors("gone", "good")
        check(MNIST().build(), "train")
        assert sorted(p.name for p in (cache / "mnist").iterdir()) == sorted(f"{name}.gz" for name in FILES)
        assert server.asked == [f"/{where}/{name}.gz" for name in FILES for where in ("gone", "good")]
        check(MNIST(split="test").build(), "test")
        assert len(server.asked) == 8  # nothing was asked for again

    def test_a_recompressed_mirror_is_as_good(self, cache, server, mirrors):
        server.content |= {f"/other/{n}.gz": gzip.compress(data, 1, mtime=5) for n, data in FILES.items()}
        mirrors("other")
        check(MNIST().build(), "train")

    @pytest.mark.parametrize(
        ("wrong", "why"),
        [
            (gzip.compress(FILES["t10k-images-idx3-ubyte"][:-1] + b"!"), "wrong SHA-256"),
            (gzip.compress(FILES["t10k-images-idx3-ubyte"])[:-20], "ended before the end-of-stream"),
            (b"<html>please log in</html>", "Not a gzipped file"),
            (None, "404"),
        ],
    )
    def test_a_wrong_file_is_never_kept(self, cache, server, mirrors, wrong, why):
        name = "t10k-images-idx3-ubyte.gz"
        server.content[f"/good/{name}"] = wrong
        mirrors("good")
        with pytest.raises(ValueError, match=f"(?s)could not download {name}.*/good/{name}: .*{why}.*into .*by hand"):
            MNIST().build()
        names = {path.name for path in (cache / "mnist").iterdir()}
        assert names == {"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"}

    def test_no_network(self, cache, monkeypatch):
        closed = ("http://127.0.0.1:9/",)
        monkeypatch.setattr(mnist_module, "MNIST_FILES", replace(mnist_module.MNIST_FILES, mirrors=closed))
        folder = re.escape(str(cache / "mnist"))
        with pytest.raises(
            ValueError,
            match=f"(?s)MNIST is neither here nor within reach.*{closed[0]}train-images.*refused"
            f".*Put train-images-idx3-ubyte.gz, .*into {folder} by hand, or pass path=",
        ):
            MNIST().build()
        assert not cache.exists()
