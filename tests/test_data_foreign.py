"""Data sets of torch and of Hugging Face, and the messages for what is no data set."""

from __future__ import annotations

import io
import sys
import types
import warnings
from dataclasses import make_dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torch.utils.data import Subset as TorchSubset

from equipoise.core.types import ImageSpec
from equipoise.data import DataWarning, Digits, HuggingFace, Images, InfiniteBatches, TorchImages

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
FIRST = PIXELS.transpose(0, 3, 1, 2)  # (N, C, H, W)
LABELS = [1, 0, 2, 1, 0, 2]


class Items(Dataset):
    """Anything by index; counts how often it is asked."""

    def __init__(self, items, **attributes):
        self.items, self.asked = items, 0
        vars(self).update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.asked += 1
        return self.items[index]


def everything(dataset) -> np.ndarray:
    return dataset.read(np.arange(len(dataset)))


def test_every_form_of_an_image():
    """The same bytes, whatever holds them, alone and with a label."""
    forms = {
        "Pillow": [Image.fromarray(x) for x in PIXELS],
        "uint8 tensors": [torch.from_numpy(x) for x in FIRST.copy()],
        "float tensors": [torch.from_numpy(x).float() / 255 for x in FIRST.copy()],
        "arrays": list(PIXELS),
    }
    for name, images in forms.items():
        for items in (
            images,
            list(zip(images, LABELS, strict=True)),
            [{"image": x, "label": torch.tensor(y)} for x, y in zip(images, LABELS, strict=True)],
        ):
            dataset = TorchImages(Items(items))
            np.testing.assert_array_equal(everything(dataset), FIRST, err_msg=name)
            if items is images:
                assert (dataset.spec, dataset.labels) == (ImageSpec(8, 3), None)
            else:
                assert (dataset.spec, dataset.labels.tolist()) == (ImageSpec(8, 3, 3), LABELS)
    grey = [torch.from_numpy(x[:1]) for x in FIRST.copy()]
    for items in (grey, [x[0] for x in grey], [Image.fromarray(x[0].numpy()) for x in grey]):
        np.testing.assert_array_equal(everything(TorchImages(Items(items))), FIRST[:, :1])


def test_a_picture_is_turned_in_a_copy():
    """Orientation 6 is a quarter turn. The data set's own picture stays as it is."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS[0, :4]).save(content := io.BytesIO(), "JPEG", exif=exif)
    with Image.open(content) as picture:
        assert picture.size == (8, 4)
        images = TorchImages([picture], resolution=4, fit="stretch")
        first = images.read(np.arange(1))
        assert picture.size == (8, 4)
        np.testing.assert_array_equal(images.read(np.arange(1)), first)
        turned = picture.transpose(Image.Transpose.ROTATE_270).resize((4, 4), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(first[0], np.asarray(turned).transpose(2, 0, 1))


def test_labels_without_reading_all_items():
    """`targets`, if they are the labels of the items: a transform may change them. Names are `classes`."""
    pairs = list(zip(PIXELS, LABELS, strict=True))
    for targets in (LABELS, torch.tensor(LABELS), np.array(LABELS)):
        items = Items(pairs, targets=targets, classes=["a", "b", "c"])
        dataset = TorchImages(items)
        assert (dataset.labels.tolist(), list(dataset.class_names), items.asked) == (LABELS, ["a", "b", "c"], 1)
    for targets in ([2, 1, 0, 2, 1, 0], LABELS[:-1], None, [[1]] * 6):
        assert TorchImages(Items(pairs, targets=targets)).labels.tolist() == LABELS
    assert TorchImages(TorchSubset(Items(pairs), [0, 1, 2])).labels.tolist() == [1, 0, 2]
    assert TorchImages(Items(pairs, targets=LABELS), labels=None).labels is None
    assert TorchImages(Items(list(PIXELS)), labels=LABELS, class_names="xyz").spec.num_classes == 3
    captions = TorchImages(Items([(x, "a cat") for x in PIXELS]))
    assert (captions.labels, captions.spec.num_classes) == (None, 0)


def test_batches_and_settings():
    items = Items([(Image.fromarray(x[:6]), y) for x, y in zip(PIXELS, LABELS, strict=True)])
    with pytest.raises(ValueError, match=r"item 0 has 8x6 pixels, which is not square: give .*resolution=R"):
        TorchImages(items)
    for fit in ("crop", "pad", "stretch"):
        dataset = TorchImages(items, resolution=4, channels=1, fit=fit)
        assert everything(dataset).shape == (6, 1, 4, 4)
    with InfiniteBatches(TorchImages(items, resolution=4), 4, seed=0) as batches:
        batch = next(batches)
    assert (batch.x.shape, batch.y.shape) == ((4, 3, 4, 4), (4,))
    assert -1 <= batch.x.min() < -0.5 < 0.5 < batch.x.max() <= 1
    with pytest.warns(DataWarning, match="enlarged 2.67 times"):
        TorchImages(items, resolution=16)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([torch.zeros(3, 8, 8) - 1], r"item 0 holds floats from -1 to -1: expected \[0, 1\]. Leave Normalize out"),
        ([torch.full((3, 8, 8), torch.nan)], "item 0 holds floats from nan"),
        ([torch.zeros(3, 8, 8, dtype=torch.int64)], "item 0 holds int64: expected uint8"),
        ([torch.zeros(8, 8, 3)], r"shape \(8, 8, 3\): expected a tensor \(C, H, W\)"),
        ([np.zeros((3, 8, 8), np.uint8)], r"shape \(3, 8, 8\)"),
        (["a.png"], "item 0 is of type str: expected a Pillow image"),
        ([{"text": "a"}], "an item has the columns text: expected one of image"),
        ([], "Items holds no images"),
        ([(PIXELS[0], 0), (PIXELS[1], "b")], "item 1 has the label 'b', and item 0 a whole number: give labels=None"),
        ([(PIXELS[0], 1), (PIXELS[1], 2)], "labels reach 2 but only 2 classes have images"),
        ([PIXELS[0], PIXELS[1][:4, :4]], r"item 1 has 4x4 pixels, and item 0 has 8x8: give .*resolution=R"),
    ],
)
def test_items_of_another_form(items, message):
    with pytest.raises(ValueError, match=message):
        everything(TorchImages(Items(items)))


class Endless(IterableDataset):
    def __iter__(self):
        return iter(())


def test_what_is_no_data_set():
    with pytest.raises(ValueError, match="a data set with a length and items by index, and Endless lacks them"):
        TorchImages(Endless())
    for given, fix in (
        (Digits(), r"got a Digits: open it, InfiniteBatches\(Digits\(...\).build\(\)"),
        ("photos", r"got a str: open the path, InfiniteBatches\(Images\(path=...\).build\(\)"),
        (PIXELS, r"got a ndarray: .*ArrayDataset\(images\)"),
        (torch.zeros(2, 3, 8, 8), r"got a Tensor: .*ArrayDataset\(images\)"),
        (Items(list(PIXELS)), r"got a Items: .*TorchImages\(dataset\)"),
        (list(PIXELS), r"got a list: .*TorchImages\(dataset\)"),
        (DataLoader(Items(list(PIXELS))), r"got a DataLoader: .*TorchImages\(loader.dataset\)"),
        (Endless(), "got a Endless: .*methods of equipoise.data.Dataset"),
        (None, "got a NoneType: "),
    ):
        with pytest.raises(ValueError, match=f"InfiniteBatches reads a data set of equipoise.data, and {fix}"):
            InfiniteBatches(given, 4, seed=0)


# ---- Hugging Face: a stand-in for the package, with the parts of its interface that are used ------------------------

Feature = make_dataclass("Feature", ["names"])
Plain = make_dataclass("Plain", [])


class Table:
    def __init__(self, columns, features):
        self.columns, self.features = columns, features

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        return self.columns[key] if isinstance(key, str) else {k: column[key] for k, column in self.columns.items()}


@pytest.fixture
def tables(monkeypatch):
    """Sets by name; what `load_dataset` was asked for, in "asked"."""
    known: dict[str, object] = {}

    def load_dataset(name, config, *, split, data_dir):
        known["asked"] = (name, config, split, data_dir)
        return known[name]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return known


def test_hugging_face(tables):
    images = [Image.fromarray(x) for x in PIXELS]
    tables["me/six"] = Table({"image": images, "label": LABELS}, {"image": Plain(), "label": Feature(["a", "b", "c"])})
    dataset = HuggingFace("me/six", split="test", config="small", folder="here").build()
    assert tables["asked"] == ("me/six", "small", "test", "here")
    np.testing.assert_array_equal(everything(dataset), FIRST)
    assert (dataset.labels.tolist(), list(dataset.class_names)) == (LABELS, ["a", "b", "c"])
    tables["odd"] = Table(
        {"photo": images, "kind": LABELS, "label": ["x"] * 6}, {"photo": Plain(), "kind": Plain(), "label": Plain()}
    )
    assert HuggingFace("odd", image="photo", label="kind", resolution=4).build().spec == ImageSpec(4, 3, 3)
    with pytest.raises(
        ValueError, match=r"odd has the columns photo, kind, label: .*HuggingFace\('odd', image='photo'\)"
    ):
        HuggingFace("odd").build()
    with pytest.raises(ValueError, match=r"column label holds 'x', ...: expected whole numbers"):
        HuggingFace("odd", image="photo").build()
    with pytest.raises(ValueError, match="and not label='sort'"):
        HuggingFace("odd", image="photo", label="sort").build()
    with pytest.warns(DataWarning, match="me/six holds 6 pictures, fewer than 100"):
        HuggingFace("me/six").build()


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install -c constraints.txt '\.\[hf\]'"):
        HuggingFace("me/six").build()


def test_the_text_of_the_settings():
    """A config is saved as text, and read back."""
    for value in (HuggingFace("a/b", split="train[:10]"), Images("x", fit="pad", labels="none", skip_broken=True)):
        assert eval(repr(value)) == value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="fit"):
            Images("x", fit="squeeze")
