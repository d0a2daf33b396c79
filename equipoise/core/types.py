"""Types that every module shares.

Letters used for shapes in every docstring of the library:
    N images in a batch;  C, H, W image channels, height, width;
    F features entering a head;  K logits per image (1, or one per patch or scale).

Sign convention: a higher logit means "more real", and every loss is minimised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, NoReturn, TypeVar, cast, dataclass_transform

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from torch import Tensor

from .first_calls import warm_up
from .mistakes import explain

__all__ = [
    "NONE_IS_A_WORD",
    "Batch",
    "Condition",
    "Critic",
    "Generated",
    "ImageSpec",
    "Logits",
    "RunError",
    "Told",
    "component",
    "label_of",
]

warm_up()  # here because every module that computes imports this one: no large tensor comes earlier

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def component(cls: type[T]) -> type[T]:
    """Class decorator: a value of the library (a loss, a penalty, a recipe's settings, ...).

    A frozen dataclass that checks its fields when it is made. Types are strict: ``batch_size=0.5`` and
    ``batch_size=True`` are not integers, ``lr=1`` is a float. Ranges come from ``pydantic.Field``, numbers must be
    finite, and unknown fields are refused. A list becomes a tuple. The ``repr`` is the call that makes the value;
    configs are saved in this form.

    A class may list renamed fields in ``moved: ClassVar[Mapping[str, str]]``, from the old dotted name to the new one.
    The message for an old name then gives the new name. It may list fields that its ``repr`` leaves out while they have
    their default, in ``unsaid: ClassVar[tuple[str, ...]]``.

    Raises:
        ValueError: from the constructor, for unknown, missing or wrong fields: a line each, with the class, the field,
            what was given and what was expected.
    """
    rules = ConfigDict(
        extra="forbid", strict=True, validate_default=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )
    made = pydantic_dataclass(frozen=True, config=rules)(cls)
    if hasattr(made, "unsaid"):
        made.__repr__ = without_unsaid  # type: ignore[method-assign]
    speak(made, made.__init__)
    return cast("type[T]", made)


def without_unsaid(value: Any) -> str:
    """The call that makes `value`, without the fields of its `unsaid` that have their default."""
    given = ((f, getattr(value, f.name)) for f in sorted(fields(value), key=lambda f: f.kw_only is True))
    said = (f"{f.name}={held!r}" for f, held in given if f.name not in value.unsaid or held != f.default)
    return f"{type(value).__qualname__}({', '.join(said)})"


def speak(cls: Any, check: Callable[..., None]) -> None:
    """Wrap the constructor `check` of `cls`: accept lists for tuples, and explain mistakes in sentences."""

    def construct(self: Any, /, *args: Any, **fields: Any) -> None:
        try:
            try:
                check(self, *args, **fields)
            except ValidationError as error:
                if all(report["type"] != "tuple_type" for report in error.errors(include_url=False)):
                    raise
                args, fields = tuple(map(tupled, args)), {name: tupled(value) for name, value in fields.items()}
                check(self, *args, **fields)
        except ValidationError as error:
            raise ValueError(explain(error, type(self), args, fields)) from None
        finally:
            if vars(cls)["__init__"] is not construct:  # pydantic replaced it when it resolved a forward reference
                cls.__init__ = construct

    construct.__name__, construct.__qualname__ = "__init__", f"{cls.__qualname__}.__init__"
    cls.__init__ = construct


def tupled(value: Any) -> Any:
    return tuple(map(tupled, value)) if type(value) in (list, tuple) else value


NONE_IS_A_WORD = BeforeValidator(lambda given: "none" if given is None else given)
"""Validator for a setting with the choice "none": `Annotated[Literal["none", ...], NONE_IS_A_WORD]`.

The command line parses the word as None; this turns None back into "none".
"""


class Condition(NamedTuple):
    """The condition given to G and D. Only conditioning reads its parts; the loop, penalties and losses pass it on.

    label: (N,) int64 class or domain of each image.
    image: (N, C', H, W), an image to translate or to rebuild. A label map has one-hot channels.
    code: (N, n), a latent: the z of G(z) for a D that judges pairs (x, z), or the code that a head recovers.
    """

    label: Tensor | None = None
    image: Tensor | None = None
    code: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Condition:
        """Apply `function` to each tensor."""
        return Condition(*(None if part is None else function(part) for part in self))


Told = Condition | Tensor | None
"""A condition, or its label alone as an (N,) int64 tensor, or None for no condition."""


def label_of(y: Told) -> Tensor | None:
    """(N,) int64 classes, or None."""
    return y.label if isinstance(y, Condition) else y


@dataclass(frozen=True, eq=False)
class Batch:
    """Images and their condition.

    x: (N, C, H, W) float32 in [-1, 1] (toy data: (N, 2)).
    y: (N,) int64 class ids, a `Condition`, or None for unlabelled data.
    """

    x: Tensor
    y: Told = None

    @property
    def label(self) -> Tensor | None:
        """(N,) int64 class ids, or None."""
        return label_of(self.y)

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Apply `function` to each tensor. The first axis of its result indexes the images."""
        y = self.y.map(function) if isinstance(self.y, Condition) else None if self.y is None else function(self.y)
        return Batch(function(self.x), y)


class Generated(NamedTuple):
    """A generator's output. A plain tensor x means Generated(x).

    x: (N, C, H, W) images.
    loss: (), an additional loss of G, such as a codebook loss; or None.
    codes: (N, ...) int64 indices into a codebook, or None.
    """

    x: Tensor
    loss: Tensor | None = None
    codes: Tensor | None = None

    @classmethod
    def by(cls, G: Callable[..., Any], *inputs: Any) -> Generated:
        """``G(*inputs)`` as `Generated`, whether G returns one or a plain tensor."""
        out = G(*inputs)
        return out if isinstance(out, Generated) else cls(out)


class Logits(NamedTuple):
    """A discriminator's output. Higher means "more real", for every loss in the library.

    fun: (N, K). The logits that losses, penalties, the generator's update, augmentation and logging read.
    dir: (N, K) or None. Only SAN heads set it. Equal to `fun` in value, but its gradient reaches only the direction
        of the last layer (see `heads.split`).
    classes: (N, classes) or None. Class logits, from heads that classify.
    features: (N, F) or (N, F, H, W) or None. The head's input; feature matching compares it.
    """

    fun: Tensor
    dir: Tensor | None = None
    classes: Tensor | None = None
    features: Tensor | None = None


def asked_like_a_tensor(logits: Logits, name: str) -> NoReturn:
    """Explain an attribute that only a tensor has, as in ``D(x).mean()``."""
    if hasattr(Tensor, name):
        raise AttributeError(
            f"Logits has no {name!r}: a discriminator returns several tensors. Take D(x).fun, the logits, or give D(x) "
            "to discriminator_loss or generator_loss"
        )
    raise AttributeError(f"{type(logits).__name__!r} object has no attribute {name!r}")


Logits.__getattr__ = asked_like_a_tensor  # type: ignore[attr-defined]  # in the class, mypy would allow every name


Critic = Callable[[Tensor, Told], Tensor]
"""The discriminator that penalties call: (x, y) -> fun logits (N, K), augmentation included."""


@dataclass(frozen=True, repr=False)
class ImageSpec:
    """Facts about the data that networks are built from.

    resolution: height in pixels, and width too for square images. Code for squares alone reads this field.
    channels: 1 for grey, 3 for colour.
    num_classes: 0 for unlabelled data.
    width: width in pixels of a rectangle; None: the images are square. A width equal to the height becomes None.

    >>> ImageSpec(64, width=96)
    ImageSpec(resolution=64, channels=3, num_classes=0, width=96)
    >>> ImageSpec(64, width=96).shape, ImageSpec(64, width=64) == ImageSpec(64)
    ((64, 96), True)
    """

    resolution: int
    channels: int = 3
    num_classes: int = 0
    width: int | None = None

    def __post_init__(self) -> None:
        if self.width == self.resolution:
            object.__setattr__(self, "width", None)

    def __repr__(self) -> str:
        return f"ImageSpec({', '.join(f'{name}={value}' for name, value in self.stored.items())})"

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels, the order of PyTorch."""
        return self.resolution, self.resolution if self.width is None else self.width

    @property
    def image(self) -> tuple[int, int, int]:
        """(C, H, W), the shape of an image's tensor."""
        return self.channels, *self.shape

    @property
    def size(self) -> str:
        """Width x height as text, the order in which sizes of pictures are written: "96x64"."""
        height, width = self.shape
        return f"{width}x{height}"

    @property
    def square(self) -> bool:
        return self.width is None

    @property
    def stored(self) -> dict[str, int]:
        """The fields as they are written to files: `width` for rectangles only."""
        fields = {"resolution": self.resolution, "channels": self.channels, "num_classes": self.num_classes}
        return fields if self.width is None else fields | {"width": self.width}

    @classmethod
    def read(cls, values: object, most: int | None = None) -> ImageSpec | None:
        """The spec of `stored`; None for anything else, and for numbers below their range or above `most`."""
        least = {"resolution": 1, "channels": 1, "num_classes": 0, "width": 1}
        if not isinstance(values, dict) or not {*least} - {"width"} <= values.keys() <= least.keys():
            return None
        if not all(type(v) is int and least[name] <= v and (most is None or v <= most) for name, v in values.items()):
            return None
        return cls(**values)


class RunError(RuntimeError):
    """A run cannot continue: it diverged, was interrupted, or cannot write. The message says why and what is saved."""
