"""Image files in a folder, a zip or tars, with their classes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import __version__ as pillow

from equipoise.core.types import ImageSpec

from .arrays import check_labels
from .broken import Broken, BrokenFilesError
from .decode import Fit, Shape, decode, endings, enlargement, fit, target_shape
from .kinds import left_out, outside
from .labels import LabelSource, read_labels, where
from .reading import read_ahead
from .regular import printable, reason
from .remarks import remark
from .sources import FileSource
from .survey import Survey, duplicates, survey

__all__ = ["ImageFiles"]

LOOKED_AT = 5000
"""Most files whose headers are read and whose bytes are compared when a set is opened, unless all have to be."""


class ImageFiles:
    """The images of a `FileSource`, decoded when they are read.

    Classes come from `labels.read_labels`: a table such as StyleGAN's `dataset.json`, class files of a WebDataset, or
    the top sub-folders, in alphabetical order. A sub-folder that holds everything does not count: a flat folder, or a
    folder within a folder, is unlabelled.

    resolution: None requires square images of one size; a number makes squares of that size, as `how` says.
    shape: (H, W) makes rectangles instead.
    channels: None is grey if every image is grey, else colour; 1 or 3 converts.
    how, labels: as `fit` and `labels` of `Images`.
    broken: "refuse" raises for files that cannot be read. "skip" decodes every file, and leaves the broken ones out.
        "defer" leaves them to `read`.
    thorough: look at every file, for remarks.

    sizes: number of the files looked at, by (width, height).  copies: those that hold the same bytes as others.

    The header of each file is read, once; of more than `LOOKED_AT` files only a sample where that is enough. Files left
    out, enlarged pictures and equal files are remarked on.

    Raises:
        ValueError: if there are no images, one cannot be read, sizes differ, or labels are incomplete.
    """

    spec: ImageSpec
    labels: NDArray[np.int64] | None
    class_names: Sequence[str] | None
    slow: bool = True
    sizes: Mapping[tuple[int, int], int]
    copies: int

    def __init__(
        self,
        source: FileSource,
        *,
        resolution: int | None = None,
        shape: Shape | None = None,
        channels: int | None = None,
        how: Fit = "crop",
        labels: LabelSource = "auto",
        broken: Literal["refuse", "skip", "defer"] = "refuse",
        thorough: bool = False,
    ):
        target = target_shape(resolution, shape, channels)
        self.source, self.how = source, how
        self.names, others = images_among(source)
        read = read_labels(source, self.names, others, labels)
        self.class_names = read.names
        self.labels, num_classes = check_labels(read.labels, len(self), read.names, str(source.path))
        rest = sorted(set(others).difference(read.tables))
        if rest:
            remark(f"{source.path}: {left_out(rest)}")
        every = 1 if thorough or target is None else -(-len(self) // LOOKED_AT)
        sample = self.names[::every]
        seen = survey(source, sample)
        if every > 1 and channels is None and seen.grey:
            sample, every = self.names, 1
            seen = survey(source, sample)
        unread = {i * every: Broken(*file) for i, file in enumerate(seen.broken) if file is not None}
        if not seen.sizes or (unread and broken == "refuse"):
            raise BrokenFilesError(source.path, unread, len(sample))
        if target is None:
            self.check_sizes(seen.sizes)
        height, width = target or next(iter(seen.sizes))
        self.spec = ImageSpec(height, channels or (1 if seen.grey else 3), num_classes, width)
        self.sizes = seen.count
        self.copies = self.remark_on(seen, sample if thorough or len(sample) <= LOOKED_AT else sample[:LOOKED_AT])
        if broken == "skip":
            self.leave_out(unread)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(n,) -> (n, C, H, W). Raises BrokenFilesError with all the files among them that cannot be decoded."""
        images = np.zeros((len(indices), *self.spec.image), np.uint8)
        broken: dict[int, Broken] = {}
        for i, index in enumerate(indices.tolist()):
            try:
                images[i] = self.load(self.names[index])
            except Exception as error:  # a damaged file makes Pillow raise nearly anything
                broken[index] = Broken(self.names[index], reason(error))
        if broken:
            raise BrokenFilesError(self.source.path, broken, len(indices), images)
        return images

    def load(self, name: str) -> NDArray[np.uint8]:
        with self.source.open(name) as file:
            data = file.read()
        return fit(decode(data), self.spec.shape, self.spec.channels, self.how)

    def leave_out(self, broken: Mapping[int, Broken]) -> None:
        """Decode all files but those known to be broken, and leave out all that are."""

        def why(index: int) -> str | None:
            try:
                self.load(self.names[index])
            except Exception as error:  # as in `read`
                return reason(error)
            return None

        rest = [i for i in range(len(self)) if i not in broken]
        reasons = zip(rest, read_ahead(why, rest), strict=True)
        files = {**broken, **{i: Broken(self.names[i], text) for i, text in reasons if text is not None}}
        if files:
            error = BrokenFilesError(self.source.path, files, len(self))
            if len(files) == len(self):
                raise error
            error.remark()
            kept = np.array([i for i in range(len(self)) if i not in files])
            self.names = [self.names[i] for i in kept]
            self.labels = None if self.labels is None else self.labels[kept]

    def check_sizes(self, sizes: Mapping[tuple[int, int], str]) -> None:
        fix = (
            'Images(path=..., resolution=R) crops the centre and resizes (fit="pad" or "stretch" keep the edges), as '
            f"does `equipoise data prepare {self.source.path} OUT --resolution R`, once for all; shape=(HEIGHT, WIDTH) "
            "makes rectangles"
        )
        (first, first_name), *others = sizes.items()
        if others:
            second, second_name = others[0]
            raise ValueError(
                f"{self.source.path} holds images of different sizes: {printable(first_name)} has "
                f"{first[0]}x{first[1]} pixels, {printable(second_name)} has {second[0]}x{second[1]}. {fix}"
            )
        if first[0] != first[1]:
            raise ValueError(
                f"{where(self.source, first_name)} has {first[0]}x{first[1]} pixels, which is not square. {fix}"
            )

    def remark_on(self, seen: Survey, sample: Sequence[str]) -> int:
        """Remark on enlarged pictures, and on files that hold the same bytes as others. Returns the number of these."""
        factors = {size: enlargement(size, self.spec.shape, self.how) for size in seen.sizes}
        small = [size for size, factor in factors.items() if factor > 1]
        if small:
            worst = max(small, key=factors.__getitem__)
            count = sum(seen.count[size] for size in small)
            remark(
                f"{self.source.path}: {count} of {sum(seen.count.values())} pictures looked at are enlarged to "
                f"{self.spec.size}, up to {factors[worst]:.3g} times, such as "
                f"{printable(seen.sizes[worst], 60)} of {worst[0]}x{worst[1]}: G learns the blur. Remove them, or "
                "take a smaller resolution"
            )
        twice = duplicates(self.source, sample)
        if twice:
            remark(
                f"{self.source.path}: {len(twice)} of {len(sample)} files hold the same bytes as others, such as "
                f"{printable(twice[0][0], 60)} and {printable(twice[0][1], 60)}: pictures that are there more often "
                "are generated more often. Remove the copies, unless you mean it"
            )
        return len(twice)

    def fingerprint(self) -> str:
        """A hash of all that the bytes of the images depend on: files with their sizes and times, settings, Pillow."""
        seen = hashlib.sha256(repr((self.spec, self.how, pillow, self.class_names)).encode())
        seen.update(b"" if self.labels is None else self.labels.tobytes())
        for name in self.names:
            seen.update(repr((name, state_of(self.source, name))).encode())
        return seen.hexdigest()


def images_among(source: FileSource) -> tuple[list[str], list[str]]:
    """Names of the images, and of the other files. Raises ValueError for no images."""
    names = source.names()
    pictures = endings()
    images = [name for name in names if name.lower().endswith(pictures) and not outside(name)]
    others = sorted(set(names).difference(images))
    if not images:
        found = f": {left_out(others)}" if others else ""
        raise ValueError(
            f"{source.path} holds no images: looked for .png, .jpg, .webp and {len(pictures) - 3} other endings that "
            f"Pillow reads, found {len(others)} other files{found}"
        )
    return images, others


def state_of(source: FileSource, name: str) -> tuple[int, int] | None:
    try:
        return source.state(name)
    except OSError:  # a broken link, which `read` will name
        return None
