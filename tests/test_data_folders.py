"""Folders of one's own: tables of labels, shapes, broken files, tars, and preparing that continues."""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from equipoise.cli.app import app
from equipoise.data import DataWarning, Images, decode, files, open_dataset, prepare, prepared


def picture(path: Path, seed: int, size: tuple[int, int] = (16, 16), **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path, **options)


def pictures(folder: Path, count: int, name: str = "{:02d}.png") -> Path:
    for i in range(count):
        picture(folder / name.format(i), i)
    return folder


def everything(dataset) -> np.ndarray:
    return dataset.read(np.arange(len(dataset)))


def said(build) -> list[str]:
    """Warnings about data of `build`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build()
    assert all(warning.category is DataWarning for warning in caught)
    return [str(warning.message) for warning in caught]


def matching(*words: str) -> str:
    return "(?s)" + ".*".join(map(re.escape, words))


# ---- what is read, and what is said ------------------------------------------------------------------------------


def test_every_ending_that_pillow_reads(tmp_path):
    """Formats that Pillow can write here; each is read whatever its case, and nothing is left out."""
    saved = []
    for ending, kind in sorted(Image.registered_extensions().items()):
        if kind in decode.formats() and kind in Image.SAVE and kind not in ("XBM", "MPO") and ending != ".pfm":
            picture(tmp_path / f"a{len(saved)}{ending.upper()}", len(saved), format=kind)
            saved.append(ending)
    assert {".jfif", ".jpe", ".jp2", ".ico", ".avif", ".tga", ".pcx"} <= set(saved) <= set(decode.endings())
    assert {".psd", ".mpo"} <= set(decode.endings())
    assert not {".eps", ".ps", ".pdf"} & set(decode.endings())
    dataset = Images(tmp_path, resolution=16).build()
    assert everything(dataset).shape == (len(saved), 3, 16, 16)
    assert said(lambda: open_dataset(tmp_path, resolution=16)) == []


def test_the_composite_of_a_psd(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 4), np.uint8)
    head = b"8BPS" + (1).to_bytes(2, "big") + bytes(6)
    head += b"".join(n.to_bytes(size, "big") for n, size in ((3, 2), (4, 4), (4, 4), (8, 2), (3, 2)))
    (tmp_path / "a.psd").write_bytes(head + bytes(12) + bytes(2) + pixels.tobytes())
    np.testing.assert_array_equal(everything(Images(tmp_path).build())[0], pixels)


def test_heic_is_read_where_its_package_is(tmp_path, monkeypatch):
    """A stand-in that reads PNG under another name: its opener has to be registered before files are chosen."""

    def register():
        Image.register_open(
            "HEIF", lambda file, name: Image.open(file, formats=("PNG",)), lambda head: head[1:4] == b"PNG"
        )
        Image.register_extension("HEIF", ".heic")

    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    for table in ("OPEN", "EXTENSION"):
        monkeypatch.setattr(Image, table, dict(getattr(Image, table)))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    picture(tmp_path / "a.HEIC", 0, format="PNG")
    for cached in (decode.formats, decode.endings):
        cached.cache_clear()
    try:
        assert open_dataset(tmp_path).names == ["a.HEIC"]
    finally:
        for cached in (decode.formats, decode.endings):
            cached.cache_clear()


def test_left_out_files_are_counted_and_named(tmp_path):
    pictures(tmp_path, 2)
    for i in range(248):
        (tmp_path / f"{i}.svg").write_text("<svg/>")
    for name in ("notes.TXT", "LICENSE"):
        (tmp_path / name).write_text("x")
    assert said(lambda: open_dataset(tmp_path)) == [
        f"{tmp_path}: left out 250 files: 248 .svg (0.svg, ...), 1 without an ending (LICENSE), 1 .txt (notes.TXT). "
        "Drawings have no pixels: export them as PNG"
    ]
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a.svg").write_text("<svg/>")
    with pytest.raises(ValueError, match=matching("holds no images", "found 1 other files: left out 1 file: 1 .svg")):
        open_dataset(tmp_path / "x")


def test_warnings_of_small_sets(tmp_path):
    """One, few and enough; folders and arrays alike; enlarged ones by the side that counts."""
    for count, words in ((1, "a single picture"), (99, "99 pictures, fewer than 100"), (100, None)):
        np.savez(tmp_path / f"{count}.npz", x=np.zeros((count, 8, 8), np.uint8))
        texts = said(Images(tmp_path / f"{count}.npz").build)
        assert len(texts) == (words is not None)
        assert not texts or words in texts[0]
    picture(tmp_path / "set/a.png", 0, (30, 20))
    for fit, resolution, factor in (("crop", 20, None), ("crop", 30, "1.5"), ("pad", 30, None), ("stretch", 30, "1.5")):
        texts = said(lambda fit=fit, size=resolution: open_dataset(tmp_path / "set", resolution=size, fit=fit))
        assert len(texts) == (factor is not None)
        assert not texts or f"up to {factor} times, such as a.png of 30x20" in texts[0]
    assert "8x8 pixels are enlarged 2 times" in said(lambda: open_dataset(tmp_path / "1.npz", resolution=16))[0]


def test_equal_files_are_found_by_content(tmp_path):
    """Equal sizes, equal ends and another middle are no copy."""
    for name, middle in (("a.bmp", 0), ("b.bmp", 9), ("c.bmp", 0)):
        pixels = np.zeros((120, 120, 3), np.uint8)
        pixels[60, 60] = middle
        Image.fromarray(pixels).save(tmp_path / name)
    assert (
        "1 of 3 files hold the same bytes as others, such as c.bmp and a.bmp" in said(lambda: open_dataset(tmp_path))[0]
    )


def test_one_process_warns_once_at_the_callers_line(tmp_path, monkeypatch):
    pictures(tmp_path, 1)
    with pytest.warns(DataWarning) as caught:
        Images(tmp_path).build()
    assert caught[0].filename == __file__
    monkeypatch.setattr("equipoise.data.remarks.rank", lambda: 1)
    assert said(Images(tmp_path).build) == []


# ---- labels ------------------------------------------------------------------------------------------------------

TABLES = [
    ("labels.csv", "file,label\n00.png,b\n01.png,a\n02.png,b\n", [1, 0, 1], ["a", "b"]),
    ("labels.csv", "\ufeffclass;Filename\r\n10;02.png\r\n9;01.png\r\n9;00.png\r\n", [0, 0, 1], ["9", "10"]),
    ("labels.csv", "00.png\tdog\n01.png\tcat\n02.png\tcat\n", [1, 0, 0], ["cat", "dog"]),
    ("metadata.csv", 'file_name,text,label\n00.png,"a, b",x\n01.png,,y\n02.png,,y\n', [0, 1, 1], ["x", "y"]),
    (
        "metadata.jsonl",
        "".join(json.dumps({"file_name": f"0{i}.png", "label": label}) + "\n" for i, label in enumerate((2, 0, 2))),
        [1, 0, 1],
        ["0", "2"],
    ),
]


def test_tables_of_labels(tmp_path):
    for i, (name, text, labels, names) in enumerate(TABLES):
        folder = pictures(tmp_path / str(i) / "in", 3)
        (folder / name).write_text(text, "utf-8")
        for place in (folder, folder.parent):  # names are relative to the table
            dataset = open_dataset(place)
            assert (dataset.labels.tolist(), list(dataset.class_names)) == (labels, names), name
            assert said(lambda place=place: open_dataset(place)) == []
        assert open_dataset(folder, labels="none").labels is None
        assert open_dataset(folder, labels="folders").labels is None


def test_tables_that_are_wrong(tmp_path):
    folder = pictures(tmp_path, 2)
    head = "file,label\n"
    for name, text, words in (
        ("labels.csv", f"{head}00.png,a\n", ["1 of the 2 images are without a label (01.png"]),
        ("labels.csv", f"{head}00.png,a\n01.png,a\n2.png,a\n", ["1 of the labels without an image (2.png"]),
        ("labels.csv", f"{head}00.png,a\n01.png,a\n00.png,b\n", ["gives 00.png two classes, a and b"]),
        ("labels.csv", f"{head}00.png,a\n01.png\n", ["row 2 below the header has 1 cells", "labels=none"]),
        ("labels.csv", f"{head}00.png,a\n01.png, \n", ["row 2 holds no label"]),
        ("labels.csv", "x,y,z\n1,2,3\n", ["below the header file_name,label", "its header is x,y,z"]),
        ("labels.csv", "file,caption\n00.png,a\n", ["no column named label"]),
        ("labels.csv", "", ["it is empty"]),
        ("metadata.jsonl", '{"file_name": "00.png", "label": 0}\n{"label": 1}\n', ["line 2 is"]),
        ("metadata.jsonl", '{"file_name": "00.png", "label": true}\n', ["line 1 is"]),
        ("metadata.jsonl", "[\n", ["line 1 holds no JSON"]),
    ):
        (folder / name).write_text(text)
        with pytest.raises(ValueError, match=matching(name, *words)):
            open_dataset(folder)
        (folder / name).unlink()


def test_a_table_that_is_not_used_is_named(tmp_path):
    """Captions are no labels, and of two tables the first counts."""
    folder = pictures(tmp_path, 2)
    (folder / "metadata.jsonl").write_text('{"file_name": "00.png", "text": "a cat"}\n')
    assert "has no column of labels" in said(lambda: open_dataset(folder))[0]
    (folder / "labels.csv").write_text("file,label\n00.png,0\n01.png,1\n")
    (folder / "dataset.json").write_text('{"labels": [["00.png", 1], ["01.png", 0]]}')
    assert open_dataset(folder).labels.tolist() == [1, 0]
    assert "labels.csv is not read: dataset.json holds the labels" in said(lambda: open_dataset(folder))[0]


def test_folders_that_are_parts_of_a_set(tmp_path):
    """Only if all of them have such names, whatever their case, and there are two."""
    for i, (names, refused) in enumerate(
        [(("Train", "VAL"), True), (("train", "val", "cats"), False), (("train",), False), (("test", "dev"), True)]
    ):
        for name in names:
            pictures(tmp_path / str(i) / name, 1, f"{name}{{}}.png")
        if refused:
            with pytest.raises(ValueError, match="look like parts of a set and not like classes"):
                open_dataset(tmp_path / str(i))
        else:
            open_dataset(tmp_path / str(i))


# ---- shapes ------------------------------------------------------------------------------------------------------


def test_crop_pad_stretch(tmp_path):
    """A white picture of 40x20 at 8: cropped and stretched it is white, padded it has bars of two rows, as arrays."""
    white = np.full((20, 40, 3), 255, np.uint8)
    white[:, :20, 0] = 0  # the left half is cyan
    Image.fromarray(white).save(tmp_path / "a.png")
    np.savez(tmp_path / "a.npz", x=white[None])
    (tmp_path / "tall").mkdir()
    Image.fromarray(white.transpose(1, 0, 2).copy()).save(tmp_path / "tall/a.png")
    for fit in ("crop", "pad", "stretch"):
        (tmp_path / "one").mkdir(exist_ok=True)
        Image.fromarray(white).save(tmp_path / "one/a.png")
        image = everything(Images(tmp_path / "one", resolution=8, fit=fit).build())[0]
        np.testing.assert_array_equal(image, everything(Images(tmp_path / "a.npz", resolution=8, fit=fit).build())[0])
        tall = everything(Images(tmp_path / "tall", resolution=8, fit=fit).build())[0]
        np.testing.assert_array_equal(image, tall.transpose(0, 2, 1))
        rows = np.flatnonzero(image[1].min(1) == 255)
        assert rows.tolist() == ([2, 3, 4, 5] if fit == "pad" else list(range(8)))
        assert image[1, [0, 1, 6, 7]].max() == (0 if fit == "pad" else 255)
        red = image[0, 3]  # a row of the picture: dark to the left, bright to the right
        assert (red[:3] < 60).all()
        assert (red[5:] > 200).all()
    out = prepare(tmp_path / "one", tmp_path / "out", resolution=8, fit="pad")
    np.testing.assert_array_equal(
        everything(out), everything(Images(tmp_path / "one", resolution=8, fit="pad").build())
    )


# ---- broken files ------------------------------------------------------------------------------------------------


def broken(folder: Path) -> Path:
    """Twenty pictures in two classes, twelve of them broken: six without a header, six cut short."""
    for i in range(20):
        picture(folder / "ab"[i % 2] / f"{i:02d}.png", i)
    for i in range(12):
        path = folder / "ab"[i % 2] / f"{i:02d}.png"
        path.write_bytes(b"text" if i < 6 else path.read_bytes()[:300])
    return folder


def test_all_broken_files_in_one_message(tmp_path, monkeypatch):
    """Of prepare, which decodes everything: in order, ten of them by name."""
    monkeypatch.setattr(prepared, "MOST", 3)
    source = broken(tmp_path / "in")
    names = [rf"{name}\.png \(" for name in ("00", "02", "04", "06", "08", "10", "01", "03", "05", "07")]
    pattern = r"a/00\.png cannot be read as an image \(it is text.*nor can 11 more of 20 files: a/" + ".*".join(
        names[1:]
    )
    with pytest.raises(ValueError, match=f"{pattern}.*, \\.\\.\\.\\. Repair .*--skip-broken") as caught:
        prepare(source, tmp_path / "out", resolution=16)
    assert "09.png" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_all_broken_headers_when_a_set_is_opened(tmp_path):
    with pytest.raises(ValueError, match=r"a/00\.png .*nor can 5 more of 20 files: a/02\.png .*b/05\.png \(it is text"):
        open_dataset(broken(tmp_path), resolution=16)


def test_broken_files_are_skipped_when_asked(tmp_path, monkeypatch):
    """Directly or prepared: the same eight pictures with their labels, and a warning."""
    source = broken(tmp_path / "in")
    with pytest.warns(DataWarning, match=r"left out 12 broken files of 20: a/00\.png \(it is text.*, \.\.\.$"):
        direct = Images(source, skip_broken=True).build()
    assert [Path(name).name for name in direct.names] == [f"{i}.png" for i in (12, 14, 16, 18, 13, 15, 17, 19)]
    assert direct.labels.tolist() == [0] * 4 + [1] * 4
    monkeypatch.setattr(prepared, "MOST", 3)
    with pytest.warns(DataWarning, match="left out 12 broken files of 20: a/00"):
        made = prepare(source, tmp_path / "out", skip_broken=True, shard_gb=2000e-9)
    np.testing.assert_array_equal(everything(made), everything(direct))
    assert (made.labels.tolist(), list(made.class_names)) == (direct.labels.tolist(), ["a", "b"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_nothing_but_broken_files_is_an_error(tmp_path):
    (tmp_path / "in").mkdir()
    picture(tmp_path / "in/a.png", 0)
    (tmp_path / "in/a.png").write_bytes((tmp_path / "in/a.png").read_bytes()[:300])
    for build in (
        Images(tmp_path / "in", skip_broken=True).build,
        lambda: prepare(tmp_path / "in", tmp_path / "out", skip_broken=True),
    ):
        with pytest.raises(ValueError, match=r"a\.png cannot be read as an image"):
            build()


def test_on_the_command_line(tmp_path):
    source = broken(tmp_path / "in")
    (source / "a/logo.svg").write_text("<svg/>")
    asked = [
        "data",
        "prepare",
        str(source),
        str(tmp_path / "out"),
        "--labels",
        "none",
        "--fit",
        "stretch",
        "--resolution",
        "8",
    ]
    assert CliRunner().invoke(app, asked).exit_code == 2
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = CliRunner().invoke(app, [*asked, "--skip-broken"])
    assert result.exit_code == 0, result.output
    for words in ("left out 1 file: 1 .svg", "left out 12 broken files of 20", "8 pictures, fewer than 100"):
        assert re.search(rf"^warning: .*{words}", result.output, re.MULTILINE)
    assert "DataWarning" not in result.output
    assert open_dataset(tmp_path / "out").labels is None
    wrong = CliRunner().invoke(app, [*asked[:3], str(tmp_path / "x"), "--fit", "squeeze"])
    assert "error: --fit takes crop, pad or stretch, got 'squeeze'" in wrong.output


# ---- preparing continues -----------------------------------------------------------------------------------------


class TestContinuing:
    @pytest.fixture(autouse=True)
    def chunks_of_two(self, monkeypatch):
        monkeypatch.setattr(prepared, "MOST", 2)

    def stop(self, monkeypatch, source: Path, out: Path, at: str, **options) -> None:
        """Ctrl-C when the file `at` is decoded."""
        load = files.ImageFiles.load

        def stopping(self, name):
            if name.endswith(at):
                raise KeyboardInterrupt
            return load(self, name)

        with monkeypatch.context() as patch:
            patch.setattr(files.ImageFiles, "load", stopping)
            with pytest.raises(KeyboardInterrupt):
                prepare(source, out, **options)

    def loaded(self, monkeypatch, source: Path, out: Path, **options) -> set[str]:
        """The files that `prepare` decodes."""
        load, names = files.ImageFiles.load, set()
        with monkeypatch.context() as patch:
            patch.setattr(files.ImageFiles, "load", lambda self, name: names.add(name) or load(self, name))
            prepare(source, out, **options)
        return names

    def test_only_what_is_missing_is_decoded(self, tmp_path, monkeypatch):
        source, out = pictures(tmp_path / "in", 20), tmp_path / "out"
        self.stop(monkeypatch, source, out, "15.png", shard_gb=5000e-9)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".out.part", "in"]
        names = self.loaded(monkeypatch, source, out, shard_gb=5000e-9)
        assert {"14.png", "15.png"} <= names <= {f"{i:02d}.png" for i in range(6, 20)}
        np.testing.assert_array_equal(everything(open_dataset(out)), everything(open_dataset(source)))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]

    def test_damaged_chunks_are_written_again(self, tmp_path, monkeypatch):
        """A crash may lose what was not on disk yet."""
        source, out = pictures(tmp_path / "in", 20), tmp_path / "out"
        self.stop(monkeypatch, source, out, "15.png")
        part = tmp_path / ".out.part"
        content = bytearray((part / "all/images.npy").read_bytes())
        content[128 + 5] ^= 1  # in the first image
        (part / "all/images.npy").write_bytes(content)
        with (part / "journal").open("a") as journal:
            journal.write("18 2")  # cut short
        assert {"00.png", "01.png"} <= self.loaded(monkeypatch, source, out)
        np.testing.assert_array_equal(everything(open_dataset(out)), everything(open_dataset(source)))

    @pytest.mark.parametrize("change", ["settings", "file", "labels"])
    def test_other_work_starts_anew(self, tmp_path, monkeypatch, change):
        source, out = pictures(tmp_path / "in", 20), tmp_path / "out"
        self.stop(monkeypatch, source, out, "15.png")
        if change == "file":
            picture(source / "00.png", 99)
        elif change == "labels":
            lines = "".join(f"{i:02d}.png,{i % 2}\n" for i in range(20))
            (source / "labels.csv").write_text(f"file,label\n{lines}")
        options = {"fit": "pad"} if change == "settings" else {}
        assert len(self.loaded(monkeypatch, source, out, **options)) == 20
        np.testing.assert_array_equal(everything(open_dataset(out)), everything(open_dataset(source)))

    def test_a_second_stop_and_broken_files(self, tmp_path, monkeypatch):
        source, out = pictures(tmp_path / "in", 20), tmp_path / "out"
        (source / "03.png").write_bytes((source / "03.png").read_bytes()[:200])
        for at in ("08.png", "17.png"):
            self.stop(monkeypatch, source, out, at, skip_broken=True, resolution=16)
        with pytest.warns(DataWarning, match=r"left out 1 broken file of 20: 03\.png"):
            prepare(source, out, skip_broken=True, resolution=16)
        assert len(open_dataset(out)) == 19
        with pytest.warns(DataWarning):
            direct = open_dataset(source, skip_broken=True, resolution=16)
        np.testing.assert_array_equal(everything(open_dataset(out)), everything(direct))

    def test_two_at_once(self, tmp_path, monkeypatch):
        source, out = pictures(tmp_path / "in", 4), tmp_path / "out"
        load = files.ImageFiles.load

        def again(self, name):
            with pytest.raises(ValueError, match=r"another process is writing .*out: wait for it"):
                prepare(source, out)
            return load(self, name)

        with monkeypatch.context() as patch:
            patch.setattr(files.ImageFiles, "load", again)
            prepare(source, out)
        assert len(open_dataset(out)) == 4


# ---- tars --------------------------------------------------------------------------------------------------------


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def shards(folder: Path) -> Path:
    folder.mkdir()
    for shard in range(2):
        members = {}
        for i in range(3):
            members |= {f"{i}.jpg.png": png(3 * shard + i), f"{i}.cls": b" %d\n" % (7 + i), f"{i}.json": b"{}"}
        tar(folder / f"data-{shard}.tar", members)
    return folder


def test_shards_of_a_web_dataset(tmp_path):
    """Equal keys in two shards are two samples; labels are those of the class files."""
    folder = shards(tmp_path / "set")
    assert "left out 6 files: 6 .json (data-0.tar/0.json, ...)" in said(lambda: open_dataset(folder))[0]
    dataset = open_dataset(folder)
    assert (dataset.labels.tolist(), list(dataset.class_names)) == ([0, 1, 2] * 2, ["7", "8", "9"])
    order = np.array([5, 0, 4])
    expected = np.stack([np.asarray(Image.open(io.BytesIO(png(i)))).transpose(2, 0, 1) for i in order])
    np.testing.assert_array_equal(dataset.read(order), expected)
    assert open_dataset(folder / "data-1.tar").labels.tolist() == [0, 1, 2]
    assert open_dataset(folder, labels="none").labels is None
    np.testing.assert_array_equal(everything(prepare(folder, tmp_path / "out")), everything(dataset))


def test_class_folders_in_tars(tmp_path):
    """The shards are no classes."""
    (tmp_path / "set").mkdir()
    for shard in range(2):
        tar(tmp_path / f"set/{shard}.tar", {f"{kind}/{shard}.png": png(shard) for kind in ("cat", "dog")})
    assert list(open_dataset(tmp_path / "set").class_names) == ["cat", "dog"]
    (tmp_path / "one").mkdir()
    tar(tmp_path / "one/x.tar", {"a.png": png(0), "a.cls": b"1", "b.png": png(1)})
    with pytest.raises(ValueError, match=r"1 class files \(\.cls\), and 1 of the 2 images are without one \(b\.png"):
        open_dataset(tmp_path / "one")


def test_tars_of_strangers(tmp_path):
    good = {"a.png": png(0), "b.png": png(1), "../c.png": png(2)}
    path = tar(tmp_path / "a.tar", good)
    assert open_dataset(path).names == ["a.png", "b.png"]
    assert "1 that point outside (../c.png)" in said(lambda: open_dataset(path))[0]
    content = path.read_bytes()
    second = content.index(b"b.png")
    damaged = bytearray(content)
    damaged[second + 150] ^= 1  # the checksum of its header
    for data, words in (
        (content[:700], "cut short|unexpected end"),
        (bytes(damaged), f"damaged at byte {second}"),
        (content + content, "several archives were joined: unpack it"),
        (b"no archive" * 100, "is not a readable .tar file"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"a\.tar is not a readable \.tar file.*({words})|{words}"):
            open_dataset(path)
    tar(path, {"a.png": png(0)})
    with tarfile.open(path, "a") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(ValueError, match=r"holds two files of the name a\.png"):
        open_dataset(path)
