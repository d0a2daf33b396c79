"""The public API. `__init__.py` reads this list, and imports a name when it is first used."""

from .augment import NoAugment as NoAugment
from .config import TrainConfig as TrainConfig
from .constraints import ClipWeights as ClipWeights
from .data import MNIST as MNIST
from .data import Digits as Digits
from .data import FashionMNIST as FashionMNIST
from .data import Images as Images
from .data import InfiniteBatches as InfiniteBatches
from .ema import EMA as EMA
from .ema import EMAConfig as EMAConfig
from .heads import Discriminator as Discriminator
from .heads import Head as Head
from .heads import LinearHead as LinearHead
from .heads import PerClass as PerClass
from .heads import Projection as Projection
from .heads import SANHead as SANHead
from .heads import Unconditional as Unconditional
from .losses import GANLoss as GANLoss
from .losses import Hinge as Hinge
from .losses import LeastSquares as LeastSquares
from .losses import NonSaturating as NonSaturating
from .losses import RelativisticPairing as RelativisticPairing
from .losses import Saturating as Saturating
from .losses import SoftLeastSquares as SoftLeastSquares
from .losses import Wasserstein as Wasserstein
from .normalizers import NoNormalizer as NoNormalizer
from .normalizers import SpectralNorm as SpectralNorm
from .objective import direction_loss as direction_loss
from .objective import discriminator_loss as discriminator_loss
from .objective import generator_loss as generator_loss
from .optim import Adam as Adam
from .optim import RMSprop as RMSprop
from .penalties import R1 as R1
from .penalties import R2 as R2
from .penalties import GradientPenalty as GradientPenalty
from .san import sanify as sanify
from .schedules import Cosine as Cosine
from .schedules import Linear as Linear
from .types import Batch as Batch
from .types import ImageSpec as ImageSpec
from .types import Logits as Logits

__version__: str
