"""Decode one image: from a file's bytes to 8-bit grey or colour, at a given resolution."""

from __future__ import annotations

import io
import os
import re
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from .limits import PIXELS, limit
from .regular import printable

__all__ = [
    "Fit",
    "Shape",
    "decode",
    "endings",
    "enlargement",
    "fit",
    "fit_array",
    "is_grey",
    "open_image",
    "target_shape",
    "upright",
]

FORMATS = (
    *("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "HEIF", "JPEG2000", "ICO", "PSD", "MPO", "DIB"),
    *("PCX", "DDS", "ICNS", "QOI", "SGI", "XBM", "XPM", "TGA"),
)
"""Formats to read, whatever the file's name. Pillow decides by content, and would run PostScript in an interpreter."""

Fit = Literal["crop", "pad", "stretch"]
"""How a rectangle becomes a square: "crop" to the centre; "pad", in black; "stretch", each side by itself."""

SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
GREY = ("1", "L", "LA", *SIXTEEN_BIT)


@cache
def formats() -> tuple[str, ...]:
    """The `FORMATS` that this Pillow has; HEIF if pillow-heif, the extra `heic`, is installed."""
    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    Image.init()
    # A picture's text may take as much alone as Pillow allows all its texts: cameras write megabytes.
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def endings() -> tuple[str, ...]:
    """Endings of the files that `formats` reads, in lower case."""
    readable = formats()
    registered = {ending for ending, kind in Image.registered_extensions().items() if kind in readable}
    return tuple(sorted(registered | {".mpo"}))  # a JPEG with a second picture, which Pillow registers no ending for


def open_image(file: IO[bytes]) -> Image.Image:
    """Open the image in `file`, reading only its header.

    Raises:
        Exception: whatever Pillow raises for a file that is broken or not an image.
        ValueError: for more pixels than the limit: Pillow's own, or the environment variable named by `PIXELS`.
    """
    most = limit(PIXELS, 178_956_970)
    readable = formats()
    if PIXELS in os.environ:
        Image.MAX_IMAGE_PIXELS = most  # Pillow warns above it, and refuses above twice it
    try:
        image = Image.open(file, formats=readable)
        count = image.width * image.height
    except Image.DecompressionBombError as error:
        count = max(int(number) for number in re.findall(r"\d+", str(error)))  # "(N pixels) exceeds limit of ..."
    except UnidentifiedImageError:
        raise ValueError(unidentified(file)) from None
    if count > most:
        raise ValueError(
            f"it has {count} pixels, more than {most}: make it smaller, or, if you trust it, set {PIXELS}={count}"
        )
    return image


def unidentified(file: IO[bytes]) -> str:
    """Why the content of `file` is not a picture."""
    file.seek(0)
    head = file.read(300)
    if not head:
        return "it is empty, 0 bytes"
    if head.isascii() and not any(byte < 32 and byte not in b"\t\n\f\r" for byte in head):
        return f"it is text, and begins with '{printable(head[:40].decode())}'"
    return "it cannot be identified: its content fits none of the known formats"


def is_grey(image: Image.Image) -> bool:
    """Whether the pixel format is grey. A palette counts as colour."""
    return image.mode in GREY


def decode(data: bytes) -> Image.Image:
    """Decode the bytes of an image file to an upright Pillow image of mode L (grey) or RGB.

    Transparency becomes white. 16-bit grey is scaled to 8 bits (Pillow's own `convert` would clip it). EXIF orientation
    is applied. An animation gives its first frame.

    Raises:
        Exception: whatever Pillow raises for a file that is broken or not an image.
        ValueError: for pixels of unknown range (32-bit).
    """
    with open_image(io.BytesIO(data)) as image:
        return upright(image)


def upright(image: Image.Image) -> Image.Image:
    """A Pillow image in the form of `decode`, which says how. `image` itself may be turned."""
    ImageOps.exif_transpose(image, in_place=True)
    grey = is_grey(image)
    if image.mode in SIXTEEN_BIT:
        return Image.fromarray(sixteen_to_eight(np.asarray(image)))
    if image.mode == "F":
        raise ValueError("its pixels are 32-bit floats, whose range is unknown: save it with 8 or 16 bits")
    if image.mode in ("LA", "RGBA", "PA", "RGBa") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("L" if grey else "RGB")
    return image.convert("L" if grey else "RGB")


def sixteen_to_eight(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """round(v / 257), so that 0 -> 0 and 65535 -> 255."""
    return np.stack([row_to_eight(row) for row in pixels])  # row by row: int64 takes eight times the memory


def row_to_eight(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    wide = pixels.astype(np.int64)
    if wide.min() < 0 or wide.max() > 65535:
        raise ValueError("its pixels are 32-bit integers, whose range is unknown: save it with 8 or 16 bits")
    return ((wide + 128) // 257).astype(np.uint8)


Shape = tuple[int, int]
"""(H, W) in pixels."""


def target_shape(resolution: int | None, shape: Shape | None, channels: int | None) -> Shape | None:
    """The shape (H, W) that `resolution` or `shape` asks for; None if neither is given.

    Raises:
        ValueError: if both are given, or a number is none that `fit` supports.
    """
    if resolution is not None and shape is not None:
        raise ValueError(
            f"got {resolution=} and {shape=}: give resolution for squares, or shape=(HEIGHT, WIDTH) for rectangles"
        )
    if (resolution is not None and resolution < 1) or channels not in (None, 1, 3):
        raise ValueError(
            f"expected resolution >= 1 and channels 1 (grey) or 3 (colour), got {resolution=}, {channels=}"
        )
    if shape is not None and (len(shape) != 2 or min(shape) < 1):
        raise ValueError(f"expected shape=(HEIGHT, WIDTH), both at least 1 pixel, got {shape=}")
    return shape if resolution is None else (resolution, resolution)


def fit(image: Image.Image, shape: Shape, channels: int, how: Fit = "crop") -> NDArray[np.uint8]:
    """Bring a picture to `shape` with Lanczos' filter, in grey or colour -> (C, *shape)."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    target = shape[1], shape[0]  # Pillow's order
    if image.size != target:
        if how == "pad":
            width, height = scaled(image.size, target)
            inner = image.resize((width, height), Image.Resampling.LANCZOS)
            image = Image.new(mode, target)
            image.paste(inner, ((target[0] - width) // 2, (target[1] - height) // 2))
        else:
            if how == "crop":
                width, height = scaled(target, image.size)
                left, top = (image.width - width) // 2, (image.height - height) // 2
                image = image.crop((left, top, left + width, top + height))
            image = image.resize(target, Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def scaled(size: tuple[int, int], inside: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the proportions of `size` within `inside`, to the nearest pixel, at least 1."""
    if size[0] * inside[1] >= size[1] * inside[0]:  # relatively wider: its width is the limit
        return inside[0], max(round(size[1] * inside[0] / size[0]), 1)
    return max(round(size[0] * inside[1] / size[1]), 1), inside[1]


def fit_array(pixels: NDArray[np.uint8], shape: Shape, channels: int, how: Fit = "crop") -> NDArray[np.uint8]:
    """`fit` for an image that is already an array, (C, H, W) -> (channels, *shape)."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return fit(image, shape, channels, how)


def enlargement(size: tuple[int, int], shape: Shape, how: Fit) -> float:
    """The largest factor by which `fit` enlarges a side of a picture of this size (width, height)."""
    factors = shape[1] / size[0], shape[0] / size[1]
    return min(factors) if how == "pad" else max(factors)
