"""Strips, GIFs and films, read back."""

import json
import stat
import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence

from equipoise.core.types import RunError
from equipoise.generate import require_writable, write_frames, write_grid

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)


def test_a_strip_is_the_frames_side_by_side(tmp_path):
    write_frames(FRAMES, tmp_path / "new" / "a.png")
    with Image.open(tmp_path / "new" / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.concatenate(FRAMES[..., 0], axis=1))


def test_a_grid_has_the_columns_asked_for(tmp_path):
    write_grid(FRAMES[:4], 2, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture)[28:, :28], FRAMES[2, ..., 0])
    with pytest.raises(ValueError, match=r"cannot write \.gif here: give NAME\.png"):
        write_grid(FRAMES, 2, tmp_path / "a.gif")


def test_a_gif_has_every_frame_enlarged_by_a_whole_factor(tmp_path):
    write_frames(FRAMES, tmp_path / "a.gif", fps=10)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.info["duration"] == 100
        assert film.info["loop"] == 0
        found = np.stack([np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(film)])
    assert found.shape == (5, 140, 140)
    np.testing.assert_array_equal(found[:, 2::5, 2::5], FRAMES[..., 0])
    np.testing.assert_array_equal(found[:, ::5, ::5], found[:, 4::5, 4::5])


FFMPEG = """#!{python}
import json, sys
from pathlib import Path
raw = sys.stdin.buffer.read()
if "640x640" in sys.argv:
    sys.exit("no such codec")
Path(sys.argv[-1]).write_bytes(raw)
Path({log!r}).write_text(json.dumps(sys.argv[1:]))
"""


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """A program of that name, which writes what it was given; returns what it was called with."""
    folder, log = tmp_path / "bin", tmp_path / "log.json"
    folder.mkdir()
    program = folder / "ffmpeg"
    program.write_text(FFMPEG.format(python=sys.executable, log=str(log)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))
    return lambda: json.loads(log.read_text())


def test_ffmpeg_is_given_raw_colour_frames_and_their_size(tmp_path, ffmpeg):
    write_frames(FRAMES, tmp_path / "a.mp4", fps=12.5)
    arguments = ffmpeg()
    for option, value in (("-video_size", "140x140"), ("-framerate", "12.5"), ("-pixel_format", "rgb24")):
        assert arguments[arguments.index(option) + 1] == value
    raw = np.frombuffer((tmp_path / "a.mp4").read_bytes(), np.uint8).reshape(5, 140, 140, 3)
    for channel in range(3):
        np.testing.assert_array_equal(raw[:, ::5, ::5, channel], FRAMES[..., 0])


@pytest.mark.usefixtures("ffmpeg")
def test_what_ffmpeg_says_is_passed_on(tmp_path):
    with pytest.raises(RunError, match="ffmpeg could not make the film: no such codec"):
        write_frames(np.zeros((1, 640, 640, 3), np.uint8), tmp_path / "a.mp4")
    assert not (tmp_path / "a.mp4").exists()


def test_formats_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"needs the program ffmpeg, which is not on the PATH"):
        require_writable(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"cannot write \.jpg here"):
        require_writable(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="cannot write folders here"):
        require_writable(tmp_path / "a")
