"""Images on disk: every format is recognised, read right, and refused with a useful message when it is wrong."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image

from equipoise.core.types import ImageSpec
from equipoise.data import Images


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, pixels: np.ndarray | Image.Image, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)


def zipped(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder))


def read(path: Path, **options) -> np.ndarray:
    dataset = Images(path, **options).build()
    return dataset.read(np.arange(len(dataset)))


def fails(path: Path, *words: str, **options) -> None:
    """Opening or reading everything fails, and the message has all the words, in order."""
    with pytest.raises(ValueError, match="(?s)" + ".*".join(re.escape(word) for word in words)):
        read(path, **options)


# ---- folders and zips ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [lambda folder: folder, zipped])
class TestClasses:
    def test_a_class_per_top_sub_folder(self, tmp_path, pack):
        pixels = {f"a/{name}": noise(i, 8, 8, 3) for i, name in enumerate(["2.png", "deep/er/1.png", "z.png"])}
        pixels |= {"b/0.PNG": noise(3, 8, 8, 3), "c/9.bmp": noise(4, 8, 8, 3)}
        for name, image in pixels.items():
            save(tmp_path / "set" / name, image)
        (tmp_path / "set" / "a" / "notes.txt").write_text("no image")
        for name in (".hidden/1.png", "__MACOSX/._1.png", "a/.DS_Store", ".thumb.png"):
            (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "set" / name).write_text("hidden")
        dataset = Images(pack(tmp_path / "set")).build()
        assert dataset.spec == ImageSpec(resolution=8, channels=3, num_classes=3)
        assert list(dataset.class_names) == ["a", "b", "c"]
        assert dataset.labels.tolist() == [0, 0, 0, 1, 2]
        assert dataset.labels.dtype == np.int64
        expected = np.stack([image.transpose(2, 0, 1) for image in pixels.values()])
        order = np.array([4, 0, 0, 2])
        np.testing.assert_array_equal(dataset.read(order), expected[order])
        assert dataset.read(order).flags.c_contiguous

    def test_a_flat_folder_has_no_labels(self, tmp_path, pack):
        for i in range(3):
            save(tmp_path / "set" / f"{i}.png", noise(i, 8, 8))
        dataset = Images(pack(tmp_path / "set")).build()
        assert dataset.spec == ImageSpec(resolution=8, channels=1, num_classes=0)
        assert (dataset.labels, dataset.class_names, len(dataset)) == (None, None, 3)

    @pytest.mark.parametrize("inside", [["x/1.png", "y/1.png"], ["1.png", "2.png"]])
    def test_a_folder_that_wraps_everything_is_no_class(self, tmp_path, pack, inside):
        for name in inside:
            save(tmp_path / "set" / "wrapper" / name, noise(0, 8, 8))
        dataset = Images(pack(tmp_path / "set")).build()
        assert dataset.spec.num_classes == (2 if "/" in inside[0] else 0)

    def test_images_beside_class_folders_are_refused(self, tmp_path, pack):
        for name in ("cat/1.png", "dog/1.png", "stray.png"):
            save(tmp_path / "set" / name, noise(0, 8, 8))
        fails(pack(tmp_path / "set"), "class folders (cat, ...)", "images beside them (stray.png, ...)", "move each")


class TestStyleGAN:
    names = ("00000/img0.png", "00000/img1.png", "00001/img2.png")

    def make(self, tmp_path: Path, content: object) -> Path:
        for i, name in enumerate(self.names):
            save(tmp_path / "set" / name, noise(i, 8, 8, 3))
        (tmp_path / "set" / "dataset.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path / "set"

    @pytest.mark.parametrize("pack", [lambda folder: folder, zipped])
    def test_labels_by_name(self, tmp_path, pack):
        table = {"labels": [[self.names[2], 0], [self.names[0], 1], [self.names[1], 0]], "class_names": ["x", "y", "z"]}
        dataset = Images(pack(self.make(tmp_path, table))).build()
        assert dataset.labels.tolist() == [1, 0, 0]
        assert list(dataset.class_names) == ["x", "y", "z"]
        assert dataset.spec == ImageSpec(8, 3, num_classes=3)
        np.testing.assert_array_equal(dataset.read(np.array([2]))[0], noise(2, 8, 8, 3).transpose(2, 0, 1))

    def test_names_are_relative_to_the_table(self, tmp_path):
        folder = self.make(tmp_path, {"labels": [[name, i] for i, name in enumerate(self.names)]})
        folder.rename(tmp_path / "inner")
        (tmp_path / "outer").mkdir()
        (tmp_path / "inner").rename(tmp_path / "outer" / "inner")
        assert Images(zipped(tmp_path / "outer")).build().labels.tolist() == [0, 1, 2]

    @pytest.mark.parametrize("table", [{"labels": None}, {}])
    def test_null_means_unlabelled_whatever_the_folders(self, tmp_path, table):
        dataset = Images(self.make(tmp_path, table)).build()
        assert (dataset.labels, dataset.class_names, dataset.spec.num_classes) == (None, None, 0)

    @pytest.mark.parametrize(
        ("table", "words"),
        [
            ({"labels": [[names[0], 0], [names[2], 1]]}, ["1 of the 3 images are without a label (00000/img1.png"]),
            ({"labels": [[n, 0] for n in (*names, "gone.png")]}, ["1 of the labels without an image (gone.png"]),
            ({"labels": [[n, -1] for n in names]}, ["numbered from 0", "-1"]),
            ({"labels": [[n, c] for n, c in zip(names, (0, 1, 3), strict=True)]}, ["reach 3", "class 2 has none"]),
            ({"labels": [[n, 2] for n in names], "class_names": ["a", "b"]}, ["label 2 has no name", "2 class names"]),
            ({"labels": [[n, 0.5] for n in names]}, ["must be a whole number"]),
            ({"labels": [[n, True] for n in names]}, ["must be a whole number"]),
            ({"labels": [[n, [0, 1]] for n in names]}, ["must be a whole number"]),
            ({"labels": [0, 1, 0]}, ["dataset.json should hold", "labels"]),
            ([], ["dataset.json should hold"]),
            ("{", ["dataset.json should hold"]),
        ],
    )
    def test_bad_tables(self, tmp_path, table, words):
        fails(self.make(tmp_path, table), *words)


# ---- pixels ----------------------------------------------------------------------------------------------


class TestDecoding:
    def one(self, tmp_path: Path, image: Image.Image | np.ndarray, suffix: str = "png", **options) -> np.ndarray:
        save(tmp_path / f"image.{suffix}", image, **options)
        return read(tmp_path)[0]

    def test_sixteen_bits_are_scaled_not_clipped(self, tmp_path):
        values = np.array([[0, 128, 129], [257, 32896, 65535], [300, 65406, 65407]], np.uint16)
        expected = np.rint(values / 257).astype(np.uint8)
        assert expected.tolist() == [[0, 0, 1], [1, 128, 255], [1, 254, 255]]
        for suffix in ("png", "tif"):
            np.testing.assert_array_equal(self.one(tmp_path, values, suffix)[0], expected)
            (tmp_path / f"image.{suffix}").unlink()

    def test_unknown_ranges_are_refused(self, tmp_path):
        save(tmp_path / "a" / "wide.tif", np.full((4, 4), 70000, np.int32))
        fails(tmp_path / "a", "wide.tif", "32-bit integers")
        save(tmp_path / "b" / "float.tif", np.full((4, 4), 0.5, np.float32))
        fails(tmp_path / "b", "float.tif", "32-bit floats")

    def test_palettes_are_looked_up(self, tmp_path):
        image = Image.new("P", (2, 2))
        image.putpalette([10, 20, 30, 200, 100, 0])
        image.putdata([0, 1, 1, 0])
        first, second = (10, 20, 30), (200, 100, 0)
        assert self.one(tmp_path, image).transpose(1, 2, 0).tolist() == [
            [list(first), list(second)],
            [list(second), list(first)],
        ]

    def test_transparency_is_laid_on_white(self, tmp_path):
        alpha = np.array([[0, 51], [102, 255]])
        pixels = np.zeros((2, 2, 4), np.uint8)
        pixels[..., 0], pixels[..., 3] = 100, alpha
        got = self.one(tmp_path, pixels).astype(int)
        for channel, value in enumerate((100, 0, 0)):
            exact = value * alpha / 255 + 255 * (1 - alpha / 255)
            np.testing.assert_allclose(got[channel], exact, atol=1)

    def test_transparent_grey_stays_grey(self, tmp_path):
        pixels = np.array([[[40, 255], [40, 0]], [[0, 51], [255, 9]]], np.uint8)
        got = self.one(tmp_path, Image.fromarray(pixels))
        assert got.shape == (1, 2, 2)
        np.testing.assert_allclose(got[0].astype(int), [[40, 255], [204, 255]], atol=1)

    def test_transparent_palette_entry_becomes_white(self, tmp_path):
        image = Image.new("P", (2, 2))
        image.putpalette([10, 20, 30, 200, 100, 0])
        image.putdata([0, 1, 0, 0])
        got = self.one(tmp_path, image, transparency=0)
        assert got[:, 0, 0].tolist() == [255, 255, 255]
        assert got[:, 0, 1].tolist() == [200, 100, 0]

    def test_one_bit(self, tmp_path):
        assert self.one(tmp_path, np.eye(2, dtype=bool)).tolist() == [[[255, 0], [0, 255]]]

    def test_exif_orientation_is_applied(self, tmp_path):
        pixels = np.zeros((16, 16), np.uint8)
        pixels[:, 8:] = 255  # left half black
        exif = Image.Exif()
        exif[0x0112] = 6  # to be shown turned clockwise by a quarter: the left half comes to the top
        got = self.one(tmp_path, pixels, "jpg", exif=exif, quality=95)[0]
        assert got[:8].max() < 8
        assert got[8:].min() > 247

    @pytest.mark.parametrize(
        ("modes", "channels", "expected"),
        [
            (["L", "L"], None, 1),
            (["L", "1", "LA"], None, 1),
            (["L", "RGB", "L"], None, 3),
            (["L", "P"], None, 3),
            (["L", "L"], 3, 3),
            (["RGB", "L"], 1, 1),
        ],
    )
    def test_grey_or_colour(self, tmp_path, modes, channels, expected):
        for i, mode in enumerate(modes):
            save(tmp_path / f"{i}.png", Image.new(mode, (4, 4)))
        assert Images(tmp_path, channels=channels).build().spec.channels == expected
        assert read(tmp_path, channels=channels).shape == (len(modes), expected, 4, 4)
        assert Images(tmp_path, channels=channels, resolution=2).build().spec == ImageSpec(2, expected)

    def test_colour_becomes_luma(self, tmp_path):
        pixels = noise(0, 6, 6, 3)
        save(tmp_path / "a.png", pixels)
        luma = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
        np.testing.assert_allclose(read(tmp_path, channels=1)[0, 0], luma, atol=0.6)


def lanczos(size: int, new: int) -> np.ndarray:
    """(new, size) weights of the windowed sinc with three lobes, widened for reduction, in float64."""
    scale = size / new
    stretch = max(scale, 1.0)
    x = (np.arange(size) + 0.5 - (np.arange(new)[:, None] + 0.5) * scale) / stretch
    weights = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
    return weights / weights.sum(1, keepdims=True)


class TestResolution:
    @pytest.mark.parametrize("new", [8, 11, 24])
    def test_the_centre_square_is_resized_with_lanczos(self, tmp_path, new):
        smooth = np.asarray(Image.fromarray(noise(0, 6, 10, 3) // 2 + 64).resize((30, 16)))  # nothing will clip
        save(tmp_path / "wide.png", smooth)
        save(tmp_path / "tall.png", smooth.transpose(1, 0, 2).copy())
        centre = smooth[:, 7:23].astype(np.float64)  # 16 of 30 columns
        weights = lanczos(16, new)
        expected = np.clip(np.einsum("ih,hwc,jw->cij", weights, centre, weights), 0, 255)
        tall, wide = read(tmp_path, resolution=new)
        np.testing.assert_allclose(wide, expected, atol=1.5)  # Pillow rounds to 8 bits between the two passes
        np.testing.assert_allclose(tall, expected.transpose(0, 2, 1), atol=1.5)

    def test_cropping_is_enough_when_the_short_side_fits(self, tmp_path):
        pixels = noise(0, 8, 12)
        save(tmp_path / "a.png", pixels)
        np.testing.assert_array_equal(read(tmp_path, resolution=8)[0, 0], pixels[:, 2:10])

    def test_arrays_follow_the_same_rules(self, tmp_path):
        x = noise(0, 3, 12, 20, 3)
        np.savez(tmp_path / "x.npz", x=x, y=np.array([0, 1, 0]))
        for i, image in enumerate(x):
            save(tmp_path / "files" / f"{i}.png", image)
        for options in ({"resolution": 12}, {"resolution": 7, "channels": 1}):
            np.testing.assert_array_equal(
                read(tmp_path / "x.npz", **options), read(tmp_path / "files", **options), strict=True
            )
        fails(tmp_path / "x.npz", "20x12 pixels", "not square", "resolution=")

    @pytest.mark.parametrize("pack", [lambda folder: folder, zipped])
    def test_mixed_sizes_name_two_files_and_the_fix(self, tmp_path, pack):
        for name, side in (("a", 8), ("b", 8), ("c", 9)):
            save(tmp_path / "set" / f"{name}.png", noise(0, side, side))
        path = pack(tmp_path / "set")
        fails(
            path, "a.png has 8x8", "c.png has 9x9", "resolution=", f"equipoise data prepare {path} OUT --resolution R"
        )
        assert read(path, resolution=6).shape == (3, 1, 6, 6)

    def test_not_square(self, tmp_path):
        save(tmp_path / "flat.png", noise(0, 8, 10))
        fails(tmp_path, "flat.png has 10x8", "not square", "resolution=")

    @pytest.mark.parametrize("options", [{"resolution": 0}, {"resolution": 2.5}, {"channels": 2}])
    def test_settings_are_checked_when_made(self, options):
        with pytest.raises(ValueError, match=next(iter(options))):
            Images("anywhere", **options)


# ---- arrays ----------------------------------------------------------------------------------------------

SHAPES = st.one_of(
    st.tuples(st.integers(1, 4), st.integers(1, 5)).map(lambda t: (t[0], t[1], t[1])),
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.sampled_from([1, 3])).map(lambda t: (t[0], t[1], t[1], t[2])),
)


class TestNpz:
    @given(x=st_numpy.arrays(np.uint8, SHAPES))
    @settings(max_examples=40, deadline=None)
    def test_any_bytes_come_back(self, tmp_path_factory, x):
        path = tmp_path_factory.mktemp("npz") / "x.npz"
        np.savez(path, x=x)
        expected = x[:, None] if x.ndim == 3 else np.moveaxis(x, 3, 1)
        np.testing.assert_array_equal(read(path), expected, strict=True)
        assert read(path).flags.c_contiguous
        assert Images(path).build().labels is None

    def test_labels_and_names(self, tmp_path):
        np.savez(tmp_path / "a.npz", x=noise(0, 3, 4, 4), y=np.array([1, 0, 1], np.uint8), class_names=["no", "yes"])
        dataset = Images(tmp_path / "a.npz").build()
        assert dataset.labels.tolist() == [1, 0, 1]
        assert dataset.labels.dtype == np.int64
        assert list(dataset.class_names) == ["no", "yes"]
        assert dataset.spec == ImageSpec(4, 1, 2)

    def test_the_training_half_of_a_split_file(self, tmp_path):
        train, test = noise(0, 3, 4, 4), noise(1, 2, 4, 4)
        np.savez(tmp_path / "a.npz", x_train=train, y_train=[0, 1, 1], x_test=test, y_test=[0, 1])
        np.testing.assert_array_equal(read(tmp_path / "a.npz")[:, 0], train)
        assert Images(tmp_path / "a.npz").build().labels.tolist() == [0, 1, 1]

    @pytest.mark.parametrize(
        ("arrays", "words"),
        [
            ({"data": noise(0, 2, 4, 4), "z": 1}, ["holds the arrays data, z", "'x_train' and 'y_train'"]),
            ({}, ["holds the arrays none"]),
            ({"x": np.zeros((2, 4, 4))}, ["must be uint8", "float64"]),
            ({"x": noise(0, 4, 4)}, ["(N, H, W)", "(4, 4)"]),
            ({"x": noise(0, 2, 3, 8, 8)}, ["(2, 3, 8, 8)", "x.transpose(0, 2, 3, 1)"]),
            ({"x": noise(0, 2, 8, 8, 4)}, ["(2, 8, 8, 4)"]),
            ({"x": noise(0, 0, 4, 4)}, ["holds no images"]),
            ({"x": noise(0, 2, 4, 4), "y": [0, 1, 1]}, ["one integer per image", "(2,)", "(3,)"]),
            ({"x": noise(0, 2, 4, 4), "y": [0.0, 1.0]}, ["one integer per image", "float64"]),
            ({"x": noise(0, 2, 4, 4), "y": [1, 2]}, ["reach 2", "class 0 has none", "0 to 1"]),
            ({"x": noise(0, 2, 4, 4), "y": [0, -1]}, ["numbered from 0", "-1"]),
            ({"x": np.array([None])}, ["not a readable .npz"]),
        ],
    )
    def test_bad_arrays(self, tmp_path, arrays, words):
        np.savez(tmp_path / "bad.npz", **arrays)
        fails(tmp_path / "bad.npz", "bad.npz", *words)

    def test_damaged_files(self, tmp_path):
        path = tmp_path / "bad.npz"
        path.write_bytes(b"nothing of the kind")
        fails(path, "bad.npz is not a readable .npz")
        with path.open("wb") as file:
            np.save(file, noise(0, 2, 4, 4))
        fails(path, "bad.npz is not a readable .npz")
        np.savez_compressed(path, x=noise(0, 20, 40, 40))
        data = bytearray(path.read_bytes())
        data[2000:2100] = bytes(100)
        path.write_bytes(data)
        fails(path, "bad.npz is not a readable .npz")


# ---- everything else that can be wrong -------------------------------------------------------------------


class TestBadInput:
    def test_missing_path(self, tmp_path):
        fails(tmp_path / "nowhere", "no file or directory", "nowhere")

    def test_empty_folder(self, tmp_path):
        (tmp_path / "readme.txt").write_text("hello")
        fails(tmp_path, str(tmp_path), "holds no images", ".png", "1 other files")

    def test_unknown_file(self, tmp_path):
        save(tmp_path / "one.png", noise(0, 4, 4))
        fails(tmp_path / "one.png", "one.png is not a data set", "folder of images", ".npz")

    def test_damaged_zip(self, tmp_path):
        (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 cut short")
        fails(tmp_path / "a.zip", "a.zip is not a readable zip")

    @pytest.mark.parametrize("known", [{}, {"resolution": 32, "channels": 1}])
    @pytest.mark.parametrize("pack", [lambda folder: folder, zipped])
    def test_no_image_behind_the_name(self, tmp_path, known, pack):
        save(tmp_path / "set" / "a.png", noise(0, 32, 32))
        (tmp_path / "set" / "b.png").write_text("no image at all")
        fails(pack(tmp_path / "set"), "b.png cannot be read as an image", "repair it or remove it", **known)

    @pytest.mark.parametrize("suffix", ["png", "jpg"])
    def test_image_cut_short(self, tmp_path, suffix):
        save(tmp_path / f"a.{suffix}", noise(0, 32, 32, 3))
        data = (tmp_path / f"a.{suffix}").read_bytes()
        (tmp_path / f"a.{suffix}").write_bytes(data[: len(data) // 2])
        assert Images(tmp_path).build().spec == ImageSpec(32, 3)  # the header is whole
        fails(tmp_path, f"a.{suffix} cannot be read as an image")

    def test_damage_inside_a_zip_names_the_member(self, tmp_path):
        save(tmp_path / "set" / "a.png", noise(0, 32, 32))
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(tmp_path / "set" / "a.png", "a.png")
        data = bytearray((tmp_path / "a.zip").read_bytes())
        data[600] ^= 0xFF
        (tmp_path / "a.zip").write_bytes(data)
        fails(tmp_path / "a.zip", "a.zip/a.png cannot be read as an image")
