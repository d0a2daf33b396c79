"""Pictures and folders as people have them: each case of fixtures/images is read, remarked on, or refused in a line."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from fixtures import ALL, COPIED
from PIL import Image, ImageOps

from equipoise.data import DataWarning, Images

pytestmark = pytest.mark.timeout(60)  # a named pipe may wait for ever


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 40)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", quality=95)


def several(folder: Path, *names: str) -> None:
    for i, name in enumerate(names):
        picture(folder / name, i + 10)


def file(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def labels_twice(folder: Path) -> None:
    several(folder, "a.jpg", "b.jpg")
    table = {"labels": [["a.jpg", 0], ["b.jpg", 1], ["a.jpg", 1]]}
    (folder / "dataset.json").write_text(json.dumps(table))


def synology(folder: Path) -> None:
    for i, name in enumerate(
        ("@eaDir/x@SynoEAStream", "@eaDir/t.jpg", ".@__thumb/t.jpg", "lost+found/x.jpg", "Thumbs.db")
    ):
        picture(folder / name, i)
    picture(folder / "__MACOSX" / "._ok.jpg", 9)


def equal(folder: Path) -> None:
    for i in range(5):
        picture(folder / f"{i}.jpg", 1)
    (folder / "ok.jpg").unlink()


MADE: dict[str, Callable[[Path], object]] = {
    "one": lambda folder: None,
    "empty_folder": lambda folder: (folder / "ok.jpg").unlink(),
    "zero_byte": file("empty.jpg", b""),
    "text_as_jpg": file("readme.jpg", b"hello, I am a text\n"),
    "svg": file("logo.svg", b"<svg/>"),
    "raw_cr2": file("IMG_1.CR2", b"II*\0\x10\0\0\0CR"),
    "pipe": lambda folder: os.mkfifo(folder / "pipe.jpg"),
    "eadir": synology,
    "ds_store": file(".DS_Store", b"\0\0\0\1Bud1"),
    "symlink_self": lambda folder: (folder / "self.jpg").symlink_to("self.jpg"),
    "symlink_loop": lambda folder: (folder / "loop").symlink_to("."),
    "unicode_name": lambda folder: picture(folder / "日本語 – été 😀.jpg", 1),
    "space_newline": lambda folder: several(folder, " lead.jpg", "a picture\nof me.jpg"),
    "duplicates": equal,
    "imagefolder_train_val": lambda folder: (
        (folder / "ok.jpg").unlink(),
        several(folder, *(f"{split}/{kind}/1.jpg" for split in ("train", "val") for kind in "ab")),
    ),
    "classes_ds_store": lambda folder: (
        (folder / "ok.jpg").unlink(),
        several(folder, "cat/0.jpg", "cat/1.jpg", "dog/2.jpg"),
        file("cat/.DS_Store", b"Bud1")(folder),
        file(".DS_Store", b"Bud1")(folder),
    ),
    "labels_twice": lambda folder: ((folder / "ok.jpg").unlink(), labels_twice(folder)),
    "nchw.npz": lambda folder: np.savez(folder / "set.npz", x=np.zeros((5, 3, 28, 28), np.uint8)),
}
"""Cases that are no files of a kind that Git, or every system, can hold."""


def place_of(name: str, tmp_path: Path) -> Path | None:
    """A copy of the case `name`; None if this checkout lacks it."""
    place = tmp_path / name
    if name in MADE:
        place.mkdir()
        picture(place / "ok.jpg")
        MADE[name](place)
        return place / "set.npz" if name.endswith(".npz") else place
    there = next((path for root in (COPIED, ALL) if (path := root / "images" / name).exists()), None)
    if there is not None:
        (shutil.copytree if there.is_dir() else shutil.copyfile)(there, place)
    return place if there is not None else None


class Case(NamedTuple):
    """What reading at 28 pixels does.

    images: their number; None for an error.
    says: words in order, of the error, or of a warning beside that of few pictures; "": there is none.
    check: of the images, (N, 3, 28, 28), by name of their files, and the folder.
    """

    images: int | None
    says: tuple[str, ...] = ()
    check: Callable[[dict[str, np.ndarray], Path], object] = lambda images, place: None


def reference(image: Image.Image) -> np.ndarray:
    """The centre square at 28 pixels, (3, 28, 28)."""
    return np.asarray(ImageOps.fit(image.convert("RGB"), (28, 28), Image.Resampling.LANCZOS)).transpose(2, 0, 1)


def like(image: np.ndarray, other: np.ndarray) -> None:
    assert np.abs(image.astype(int) - other).mean() < 3


def upright(images, place):
    with Image.open(place / "rot.jpg") as image:
        like(images["rot.jpg"], reference(Image.fromarray(np.rot90(np.asarray(image), -1))))


def first_of(name: str) -> Callable[[dict[str, np.ndarray], Path], object]:
    def check(images, place):
        with Image.open(place / name) as image:
            like(images[name], reference(image))
            image.seek(1)
            assert np.abs(images[name].astype(int) - reference(image)).mean() > 3

    return check


def scaled(images, place):
    with Image.open(place / "g16.png") as image:
        pixels = np.asarray(image, np.float64) / 257
    like(images["g16.png"][0], reference(Image.fromarray(np.rint(pixels).astype(np.uint8)))[0])


def on_white(images, place):
    with Image.open(place / "pal.png") as image:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    assert (alpha == 0).any()
    assert (images["pal.png"] == 255).all(0).any()


def ordinary_colours(images, place):
    with Image.open(place / "cmyk.jpg") as image:
        ink = 255 - np.asarray(image, np.float64)  # Pillow undoes Photoshop's inversion
        rgb = ink[..., :3] * ink[..., 3:] / 255
    like(images["cmyk.jpg"], reference(Image.fromarray(rgb.astype(np.uint8))))


CASES = {
    "cmyk_jpeg": Case(2, check=ordinary_colours),
    "png16_grey": Case(2, check=scaled),
    "palette_transparent": Case(2, check=on_white),
    "exif_rotated": Case(2, check=upright),
    "animated_gif": Case(2, check=first_of("anim.gif")),
    "webp": Case(2),
    "tiff_multipage": Case(2, check=first_of("m.tif")),
    "tiff_float": Case(None, ("f.tiff", "32-bit floats", "save it with 8 or 16 bits")),
    "tiff_lab": Case(2),
    "bmp": Case(2),
    "svg": Case(1, ("left out 1 file: 1 .svg (logo.svg)", "export them as PNG")),
    "heic": Case(1, ("left out 1 file: 1 .heic (IMG_0001.HEIC)", "pip install -c constraints.txt '.[heic]'")),
    "jfif_ext": Case(2),
    "raw_cr2": Case(1, ("left out 1 file: 1 .cr2 (IMG_1.CR2)", "developed")),
    "zero_byte": Case(None, ("empty.jpg", "it is empty, 0 bytes", "skip_broken")),
    "truncated_jpeg": Case(None, ("cut.jpg", "truncated", "skip_broken=True")),
    "text_as_jpg": Case(None, ("readme.jpg", "it is text, and begins with 'hello, I am a text\\n'")),
    "png_as_jpg": Case(2),
    "p3_icc_png_text": Case(2),
    "unicode_name": Case(2),
    "space_newline": Case(3),
    "one_pixel": Case(2, ("1 of 2 pictures", "enlarged to 28x28, up to 28 times, such as tracking.gif of 1x1")),
    "bomb": Case(None, ("bomb.png", "400000000 pixels", "EQUIPOISE_MAX_PIXELS=400000000")),
    "mixed_sizes": Case(3),
    "ds_store": Case(1),
    "eadir": Case(1),
    "symlink_loop": Case(1),
    "symlink_self": Case(None, ("self.jpg", "symbolic links")),
    "all_16x9": Case(6),
    "nested_one_folder": Case(6),
    "classes_ds_store": Case(3),
    "imagefolder_train_val": Case(
        None, ("folders train, val", "path of one", "/train", "labels=folders", "labels=none")
    ),
    "duplicates": Case(5, ("4 of 5 files hold the same bytes as others, such as 1.jpg and 0.jpg",)),
    "csv_labels": Case(4),
    "one": Case(1),
    "empty_folder": Case(None, ("holds no images", "looked for .png", "found 0 other files")),
    "pipe": Case(None, ("pipe.jpg", "is a named pipe")),
    "labels_twice": Case(None, ("dataset.json gives a.jpg two classes, 0 and 1", "keep one")),
    "zip_flat.zip": Case(4),
    "zip_macosx.zip": Case(4),
    "zip_password.zip": Case(None, ("is encrypted", "unpack it with its password first")),
    "zip_slip.zip": Case(1, ("left out 1 file: 1 that point outside (../../evil.jpg)",)),
    "pics.tar.gz": Case(None, ("pics.tar.gz is packed", "unpack it (mkdir FOLDER && tar -xf")),
    "nchw.npz": Case(None, ("channels-first", "x.transpose(0, 2, 3, 1)")),
}


def found(say: tuple[str, ...], text: str) -> bool:
    return re.search("(?s)" + ".*".join(map(re.escape, say)), text) is not None


def outcome(place: Path) -> tuple[dict[str, np.ndarray] | ValueError, list[str]]:
    """Images by name, or the error; and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        try:
            dataset = Images(place, resolution=28).build()
            result = dict(zip(dataset.names, dataset.read(np.arange(len(dataset))), strict=True))
        except ValueError as error:
            result = error
    return result, [str(warning.message) for warning in caught]


def right(case: Case, place: Path) -> None:
    result, said = outcome(place)
    if case.images is None:
        assert found(case.says, str(result)), result
        assert "\n" not in str(result)
        assert "object at 0x" not in str(result)
        return
    assert not isinstance(result, ValueError), result
    assert [image.shape for image in result.values()] == [(3, 28, 28)] * case.images
    few = [text for text in said if re.search("fewer than 100|a single picture", text)]
    others = [text for text in said if text not in few]
    assert len(few) == 1
    assert len(others) == bool(case.says), others
    assert not case.says or found(case.says, others[0]), others
    case.check(result, place)


def test_every_case(tmp_path):
    wrong = {}
    for name, case in CASES.items():
        place = place_of(name, tmp_path)
        if place is not None:
            try:
                right(case, place)
            except AssertionError as error:
                wrong[name] = error
    assert not wrong
    assert not list(tmp_path.rglob("evil*"))


def test_the_table_has_every_case():
    """Of fixtures/images, where it is there."""
    there = {path.name for path in (ALL / "images").glob("*")} - {"README.md"}
    assert there <= CASES.keys()


def test_labels_of_the_cases(tmp_path):
    for name, labels, names in (
        ("csv_labels", [0, 1, 0, 1], ["a", "b"]),
        ("classes_ds_store", [0, 0, 1], ["cat", "dog"]),
    ):
        dataset = Images(place_of(name, tmp_path), resolution=28).build()
        assert (dataset.labels.tolist(), list(dataset.class_names)) == (labels, names)
    place = place_of("imagefolder_train_val", tmp_path)
    as_classes = Images(place, resolution=28, labels="folders").build()
    assert (as_classes.labels.tolist(), list(as_classes.class_names)) == ([0, 0, 1, 1], ["train", "val"])
    assert Images(place, resolution=28, labels="none").build().labels is None
    assert list(Images(place / "train", resolution=28).build().class_names) == ["a", "b"]


def test_rectangles_without_a_resolution_name_every_way_out(tmp_path):
    for name, words in (("all_16x9", "64x36 pixels, which is not square"), ("mixed_sizes", "different sizes")):
        with pytest.raises(ValueError, match=rf'{words}.*resolution=R\).*fit="pad" or "stretch".*data prepare .* OUT'):
            Images(place_of(name, tmp_path)).build()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    several(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "b.jpg").chmod(0)
    with pytest.raises(ValueError, match=r"b\.jpg cannot be read as an image .*Permission denied"):
        Images(tmp_path, resolution=28).build()
