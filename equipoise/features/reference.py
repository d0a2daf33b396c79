"""Activations of a set of images, batch by batch, with a cache on disk for reference sets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from equipoise.compute.distributed import from_rank_0
from equipoise.compute.shares import share, together
from equipoise.core.files import replace_file, writing
from equipoise.data.base import PathLike
from equipoise.data.download import cache_directory
from equipoise.metrics import GaussianStats

from .base import Activations, FeatureNet

__all__ = ["Reference", "activations", "joined", "reference"]

Images = NDArray[np.uint8]


class Reference(NamedTuple):
    """Statistics of a reference set, to compare other sets with.

    stats: mean and covariance of the features, for the Fréchet distance.
    features: (N, F), for metrics that need the features of every image.
    probabilities: (N, K), or None if the network is not a classifier.
    """

    stats: GaussianStats
    features: NDArray[np.float64]
    probabilities: NDArray[np.float64] | None


def activations(net: FeatureNet, batches: Iterable[Images]) -> Activations:
    """Activations for all batches, uint8 (n, H, W, C), concatenated: (N, F) and (N, K).

    Batches may differ in size. The division into batches makes no difference beyond rounding. Several processes divide
    the batches among themselves, and each gets the full result.

    Raises:
        ValueError: if there are no images, or the network cannot take them.
    """
    return joined(together(lambda: (net(images) for images in share(batches))))


def joined(parts: Sequence[Activations]) -> Activations:
    """Concatenate the activations of batches. Raises ValueError if there are none."""
    if not parts:
        raise ValueError("there are no images to take features of")
    features = np.concatenate([part.features for part in parts])
    probabilities = [part.probabilities for part in parts if part.probabilities is not None]
    return Activations(features, np.concatenate(probabilities) if probabilities else None)


def reference(net: FeatureNet, batches: Iterable[Images], *, cache: PathLike | None = None) -> Reference:
    """`activations` of a reference set and their `GaussianStats`, from the cache if they were computed before.

    batches: uint8 (n, H, W, C). They are read once to hash them and, if they are new, a second time to compute
        features. So give a list or an object with `__iter__`, not a generator.
    cache: a directory. None is `features` in $EQUIPOISE_CACHE or ~/.cache/equipoise.

    Several processes divide the work among themselves. Rank 0 reads and writes the cache.

    The cache key is a SHA-256 over the network's name and hash, and over the bytes, sizes and order of the images. So
    neither a path nor a date can mislead it. A damaged cache file is replaced.

    Raises:
        ValueError: as `activations`, or for batches that can be read only once.
        RunError: if the cache cannot be written.
    """
    if iter(batches) is batches:
        raise ValueError("batches can be read only once: give a list or an object with __iter__, not a generator")
    folder = cache_directory() / "features" if cache is None else Path(cache).expanduser()
    path = folder / f"{from_rank_0(lambda: key(net, batches))}.safetensors"
    cached = from_rank_0(lambda: read(path))
    if cached is not None:
        return cached
    advice = "Set EQUIPOISE_CACHE to choose where statistics are kept"

    def prepare() -> None:
        with writing(folder, advice):
            folder.mkdir(parents=True, exist_ok=True)

    def keep(made: Reference) -> None:
        with writing(folder, advice):
            replace_file(path, packed(made))

    from_rank_0(prepare)  # fails before the work, not after it
    computed = activations(net, batches)
    made = Reference(from_rank_0(lambda: GaussianStats(computed.features)), *computed)
    from_rank_0(lambda: keep(made))
    return made


def key(net: FeatureNet, batches: Iterable[Images]) -> str:
    """Cache key of the network and the images. It does not depend on the division into batches."""
    sha256 = hashlib.sha256(f"{net.name}\n{net.sha256}\n".encode())
    for image in (image for images in batches for image in images):
        sha256.update(f"{image.dtype} {image.shape}\n".encode())
        sha256.update(image.tobytes())
    return sha256.hexdigest()


def packed(made: Reference) -> bytes:
    """Encode as a safetensors file. Features of float32 networks are stored in float32: half as large, no loss."""
    arrays = {"mean": made.stats.mean, "factor": made.stats.factor, "features": compact(made.features)}
    if made.probabilities is not None:
        arrays["probabilities"] = made.probabilities
    return save(arrays, metadata={"sha256": checksum(arrays)})


def compact(x: NDArray[np.float64]) -> NDArray[np.floating]:
    with np.errstate(over="ignore"):  # overflow gives inf, which is not equal
        single = x.astype(np.float32)
    return single if (single == x).all() else x


def read(path: Path) -> Reference | None:
    """Read a cache file; None if it is missing or damaged."""
    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if (file.metadata() or {}).get("sha256") != checksum(arrays):
                return None
    except (OSError, SafetensorError):
        return None
    stats = object.__new__(GaussianStats)
    features = arrays["features"].astype(np.float64)
    stats.count, stats.mean, stats.factor = len(features), arrays["mean"], arrays["factor"]
    return Reference(stats, features, arrays.get("probabilities"))


def checksum(arrays: Mapping[str, NDArray[np.floating]]) -> str:
    sha256 = hashlib.sha256()
    for name in sorted(arrays):
        sha256.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
        sha256.update(np.ascontiguousarray(arrays[name]).data)
    return sha256.hexdigest()
