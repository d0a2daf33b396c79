"""A sequence of images on disk: a strip (PNG), or a moving picture (GIF, WebP, MP4)."""

from __future__ import annotations

import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from equipoise.core.files import replace_file, writing
from equipoise.core.types import RunError

from .pictures import grid, png

__all__ = ["require_writable", "write_frames", "write_grid"]

Frames = NDArray[np.uint8]

COLUMNS = 20
"""Frames in a row of a strip; further frames go to the next row."""

HEIGHT = 128
"""Least height of a moving picture, in pixels. The least integer factor that reaches it enlarges smaller frames."""


def require_writable(out: Path) -> None:
    """Raise ValueError for a format that cannot be written here. Call this before the work."""
    if out.suffix not in (".png", ".gif", ".webp", ".mp4"):
        raise ValueError(
            f"cannot write {out.suffix or 'folders'} here: give NAME.png for a strip, NAME.gif, NAME.webp or NAME.mp4"
        )
    if out.suffix == ".webp" and not features.check("webp"):
        raise ValueError("this Pillow is built without WebP: install Pillow's own wheel, or give NAME.gif")
    if out.suffix == ".mp4" and shutil.which("ffmpeg") is None:
        raise ValueError(
            "NAME.mp4 needs the program ffmpeg, which is not on the PATH: install it (apt install ffmpeg, brew install "
            "ffmpeg), or give NAME.gif"
        )


def write_frames(frames: Frames, out: Path, *, fps: float = 20) -> None:
    """Write frames (N, H, W, C) to `out`: NAME.png a strip; a film at `fps` frames a second with any other ending.

    NAME.gif repeats for ever, has at most 256 colours, and rounds the time of a frame to hundredths of a second.
    NAME.webp repeats for ever, in full colour, and rounds to thousandths. NAME.mp4 is made by ffmpeg.

    Raises:
        ValueError: for another ending, or for NAME.mp4 without ffmpeg.
        RunError: if the file cannot be written.
    """
    require_writable(out)
    if out.suffix == ".png":
        write_grid(frames, COLUMNS, out)
        return
    content = {".gif": gif, ".webp": webp, ".mp4": mp4}[out.suffix](enlarged(frames), fps)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, content)


def write_grid(pixels: Frames, columns: int, out: Path) -> None:
    """Write images (N, H, W, C) as one picture, row by row. Raises ValueError unless `out` ends in .png."""
    if out.suffix != ".png":
        raise ValueError(f"cannot write {out.suffix or 'folders'} here: give NAME.png")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, png(grid(pixels, columns)))


def enlarged(frames: Frames) -> Frames:
    factor = -(-HEIGHT // frames.shape[1]) if frames.shape[1] < HEIGHT else 1
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def gif(frames: Frames, fps: float) -> bytes:
    return animated(frames, "GIF", duration=round(100 / fps) * 10)


def webp(frames: Frames, fps: float) -> bytes:
    return animated(frames, "WEBP", duration=round(1000 / fps), quality=90, method=4)


def animated(frames: Frames, form: str, **settings: int) -> bytes:
    """A film that repeats for ever, in a format of Pillow's. duration: of a frame, in milliseconds."""
    file = BytesIO()
    first, *others = (Image.fromarray(x[..., 0] if x.shape[2] == 1 else x) for x in frames)
    first.save(file, format=form, save_all=True, append_images=others, loop=0, **settings)
    return file.getvalue()


def mp4(frames: Frames, fps: float) -> bytes:
    """Encode raw frames with ffmpeg, padded to the even width and height that MP4's codecs want."""
    colour = np.broadcast_to(frames, (*frames.shape[:3], 3))
    height, width = frames.shape[1:3]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "out.mp4"
        raw = ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}", "-framerate", f"{fps:g}"]
        even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"]
        command = ["ffmpeg", "-loglevel", "error", *raw, "-i", "-", *even, str(path)]
        done = subprocess.run(command, input=colour.tobytes(), capture_output=True, check=False)
        if done.returncode:
            raise RunError(f"ffmpeg could not make the film: {done.stderr.decode(errors='replace').strip()}")
        return path.read_bytes()
