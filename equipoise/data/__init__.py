"""Where real images come from: bundled digits, MNIST, folders, zips, arrays, a few of these; and endless batches."""

from .arrays import ArrayDataset
from .base import Dataset, DatasetConfig
from .batches import InfiniteBatches
from .images import Images, open_dataset, prepare
from .limited import Few, few
from .mnist import MNIST, Digits, FashionMNIST
from .pixels import to_float, to_uint8
from .split import Subset, hold_out

__all__ = [
    "MNIST",
    "ArrayDataset",
    "Dataset",
    "DatasetConfig",
    "Digits",
    "FashionMNIST",
    "Few",
    "Images",
    "InfiniteBatches",
    "Subset",
    "few",
    "hold_out",
    "open_dataset",
    "prepare",
    "to_float",
    "to_uint8",
]
