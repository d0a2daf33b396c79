"""Sources of real images: bundled digits, MNIST, folders, zips, arrays; endless batches; toy distributions."""

from .arrays import ArrayDataset
from .base import Dataset, DatasetConfig
from .batches import InfiniteBatches
from .cifar import CIFAR10
from .foreign import HuggingFace, TorchImages
from .handed import handedness
from .images import Images, open_dataset, prepare
from .limited import Few, few
from .mirror import mirrored
from .mnist import MNIST, Digits, FashionMNIST
from .padded import Padded
from .pixels import to_float, to_uint8
from .remarks import DataWarning
from .split import Subset, hold_out
from .stacked import StackedDigits
from .toy import Density, Dirac, Distribution, Grid, Line, Mixture, Mixture1D, Points, Ring, SwissRoll

__all__ = [
    "CIFAR10",
    "MNIST",
    "ArrayDataset",
    "DataWarning",
    "Dataset",
    "DatasetConfig",
    "Density",
    "Digits",
    "Dirac",
    "Distribution",
    "FashionMNIST",
    "Few",
    "Grid",
    "HuggingFace",
    "Images",
    "InfiniteBatches",
    "Line",
    "Mixture",
    "Mixture1D",
    "Padded",
    "Points",
    "Ring",
    "StackedDigits",
    "Subset",
    "SwissRoll",
    "TorchImages",
    "few",
    "handedness",
    "hold_out",
    "mirrored",
    "open_dataset",
    "prepare",
    "to_float",
    "to_uint8",
]
