"""Convolutions by the fastest algorithm on this machine, measured once for each shape.

Libraries pick an algorithm by rules that serve some shapes badly. With one input or output channel, or with a large
batch, a single layer can take most of an iteration. Each algorithm ("way") below gives the same numbers up to rounding,
and can be differentiated as often as the library's own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .distributed import from_rank_0
from .recompute import Opening, as_now
from .taps import ByTaps

__all__ = ["Convolution", "Convolutions", "Layout", "by_taps", "folded", "halved", "over_patches"]

Layout = Literal["contiguous", "channels_last"]
"""Memory layout of maps: (N, C, H, W) contiguous, or the channels of each pixel side by side."""

ROUNDS = 3
GAIN = 0.95
"""A way is preferred if it takes less than this share of the library's time."""
PATCHES = 2
"""Patches are tried if they have at most this many times the elements of the layer's input and output."""
CHANNELS = 32
"""Taps are tried if both ends of the layer have at least this many channels: fewer make thin matrices."""


class Convolution(NamedTuple):
    """A call of `torch.conv2d` or, transposed, of `torch.conv_transpose2d`, without dilation or groups."""

    transposed: bool
    stride: tuple[int, int]
    padding: tuple[int, int]
    output_padding: tuple[int, int] = (0, 0)

    def __call__(self, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
        """Call PyTorch's own convolution."""
        if self.transposed:
            return torch.conv_transpose2d(x, w, bias, self.stride, self.padding, self.output_padding)
        return torch.conv2d(x, w, bias, self.stride, self.padding)

    def size(self, x: Tensor, w: Tensor) -> tuple[int, int]:
        """Height and width of the output."""

        def length(side: int, kernel: int, stride: int, padding: int, extra: int) -> int:
            if self.transposed:
                return (side - 1) * stride - 2 * padding + kernel + extra
            return (side + 2 * padding - kernel) // stride + 1

        height, width = map(length, x.shape[2:], w.shape[2:], self.stride, self.padding, self.output_padding)
        return height, width


Way = Callable[[Convolution, Tensor, Tensor, Tensor | None], Tensor]


# ---- the ways --------------------------------------------------------------------------------------------


def over_patches(convolution: Convolution, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """A convolution as one matrix product: the patches of all images (N·H'·W', C·kh·kw) times w."""
    (stride, across), (pad, pad_across) = convolution.stride, convolution.padding
    padded = F.pad(x, (pad_across, pad_across, pad, pad))
    patches = padded.unfold(2, w.shape[2], stride).unfold(3, w.shape[3], across)  # (N, C, H', W', kh, kw)
    rows = patches.permute(0, 2, 3, 1, 4, 5).flatten(3)  # (N, H', W', C·kh·kw)
    y = F.linear(rows, w.flatten(1)).permute(0, 3, 1, 2)  # channels_last in memory
    return y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1)


def folded(convolution: Convolution, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """A transposed convolution as one matrix product per image. Its columns are patches, which are added up."""
    columns = torch.matmul(w.flatten(1).t(), x.flatten(2))  # (N, C'·kh·kw, H·W)
    size, kernel = convolution.size(x, w), w.shape[2:]
    y = F.fold(columns, size, kernel, padding=convolution.padding, stride=convolution.stride)
    return y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1)


def halved(convolution: Convolution, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """A convolution of each half of the batch, one after the other."""
    return torch.cat([convolution(half, w, bias) for half in x.chunk(2)])


def by_taps(convolution: Convolution, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """PyTorch's own convolution; the gradient of w is one matrix product for each tap of the kernel."""
    y: Tensor = ByTaps.apply(x, w, bias, *convolution)  # type: ignore[no-untyped-call]
    return y


WAYS: dict[bool, dict[str, Way]] = {
    False: {"torch": Convolution.__call__, "patches": over_patches, "halves": halved, "taps": by_taps},
    True: {"torch": Convolution.__call__, "fold": folded, "halves": halved, "taps": by_taps},
}
"""Ways by name, for plain (False) and transposed (True) convolutions."""


# ---- choosing --------------------------------------------------------------------------------------------


class Convolutions(TorchFunctionMode):
    """Compute each 2-D convolution in the block in the way that was fastest for its shapes.

        with Convolutions():
            loss = D(G(z)).mean()

    A new shape is measured when it first comes, forward and backward, on constant data: no random numbers are drawn.
    The mode sees the convolutions of any network, and leaves modules and weights unchanged. Rank 0 measures for all
    processes, so all must meet new shapes together.

    chosen: name of the way for each call, as `describe` writes it; measurements are added to this dictionary.
    layout: layout of the maps that a convolution reads and makes. A network that calls ``view`` on maps needs
        "contiguous".
    keep: called after each measurement.
    """

    def __init__(
        self,
        chosen: dict[str, str] | None = None,
        layout: Layout = "contiguous",
        keep: Callable[[], None] = lambda: None,
    ):
        super().__init__()
        self.chosen = {} if chosen is None else chosen
        self.layout, self.keep = layout, keep
        self.of_inputs = False

    @contextmanager
    def for_penalties(self, on: bool = True) -> Iterator[None]:
        """Avoid ways in the block whose gradient by the input also computes the gradient by the weights.

        on: False allows all ways, as outside such blocks.
        """
        before, self.of_inputs = self.of_inputs, on
        try:
            yield
        finally:
            self.of_inputs = before

    @contextmanager
    def again(self, around: Opening, of_inputs: bool) -> Iterator[None]:
        """Open this mode again, inside the contexts that `around` opens."""
        with around(), self, self.for_penalties(of_inputs):
            yield

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d:
            return self.plain(*args, **kwargs)
        if func is torch.conv_transpose2d:
            return self.transposed(*args, **kwargs)
        if func is as_now:  # this mode is off while it answers, so as_now() asks the modes around it
            return partial(self.again, as_now(), self.of_inputs)
        return func(*args, **kwargs)

    def plain(
        self,
        input: Tensor,  # noqa: A002  torch's name
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Tensor:
        if isinstance(padding, str) or groups != 1 or pair(dilation) != (1, 1) or input.ndim != 4:
            return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
        return self.computed(Convolution(False, pair(stride), pair(padding)), input, weight, bias)

    def transposed(
        self,
        input: Tensor,  # noqa: A002  torch's name
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        dilation: int | Sequence[int] = 1,
    ) -> Tensor:
        if groups != 1 or pair(dilation) != (1, 1) or input.ndim != 4:
            return torch.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)
        convolution = Convolution(True, pair(stride), pair(padding), pair(output_padding))
        return self.computed(convolution, input, weight, bias)

    def computed(self, convolution: Convolution, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        layout = torch.channels_last if self.layout == "channels_last" else torch.contiguous_format
        x, w = x.to(computed_in(x)).contiguous(memory_format=layout), with_slope_alike(w)
        call = describe(convolution, x, w, bias)
        if call not in self.chosen:
            self.chosen[call] = from_rank_0(lambda: fastest(convolution, x, w, bias))
            self.keep()
        name = self.chosen[call]
        way = WAYS[convolution.transposed]["torch" if self.of_inputs and name == "taps" else name]
        return way(convolution, x, w, bias).contiguous(memory_format=layout)


def with_slope_alike(w: Tensor) -> Tensor:
    """`w`, with its gradient contiguous like itself: weight normalisers read both together."""
    if not (torch.is_grad_enabled() and w.requires_grad and w.is_contiguous()):
        return w
    w = w.view_as(w)  # a new tensor for each call, since it gets a hook
    if w.requires_grad:  # false where torch.func differentiates by another tensor
        w.register_hook(Tensor.contiguous)
    return w


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """A size for height and width; one number stands for both."""
    if isinstance(value, int):
        return value, value
    return cast("tuple[int, int]", tuple(value) * (2 // len(value)))


def describe(convolution: Convolution, x: Tensor, w: Tensor, bias: Tensor | None) -> str:
    """Everything that a call's speed depends on, as text: shapes, geometry, dtype, and which gradients are needed."""
    name = "conv_transpose2d" if convolution.transposed else "conv2d"
    sizes = " ".join("x".join(map(str, t.shape)) for t in (x, w))
    geometry = " ".join(f"{n}{'x'.join(map(str, v))}" for n, v in zip("spo", convolution[1:], strict=True))
    given = ("x", x), ("w", w), ("b", bias)
    slopes = "".join(n for n, t in given if torch.is_grad_enabled() and t is not None and t.requires_grad)
    return f"{name} {sizes} {geometry} {str(x.dtype).removeprefix('torch.')} d/{slopes or 'nothing'}"


def computed_in(x: Tensor) -> torch.dtype:
    """The dtype that a convolution of `x` computes in: autocast's choice if it is on."""
    device = x.device.type
    if x.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def fastest(convolution: Convolution, x: Tensor, w: Tensor, bias: Tensor | None) -> str:
    """Name of the way with the least time for this call and its gradients, each way's best of `ROUNDS` rounds.

    The library's own way is kept unless another takes less than `GAIN` of its time.
    """
    ways = {n: way for n, way in WAYS[convolution.transposed].items() if worth_measuring(n, convolution, x, w)}
    given = [None if t is None else like(t) for t in (x, w, bias)]
    slope = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given)

    def once(way: Way) -> float:
        ready(x.device)
        start = time.perf_counter()
        first, weight, *rest = given
        y = way(convolution, first, with_slope_alike(weight), *rest)  # type: ignore[arg-type]
        if slope:
            torch.autograd.grad(y, [t for t in given if t is not None and t.requires_grad], torch.ones_like(y))
        ready(x.device)
        return time.perf_counter() - start

    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):  # replaces a checkpointed block's hooks
        rounds = [{name: once(way) for name, way in ways.items()} for _ in range(ROUNDS + 1)][1:]  # the first warms up
    seconds = {name: min(r[name] for r in rounds) for name in ways}
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < GAIN * seconds["torch"] else "torch"


def worth_measuring(name: str, convolution: Convolution, x: Tensor, w: Tensor) -> bool:
    """Whether a way can be the fastest. With many channels patches take much memory, and never are."""
    match name:
        case "halves":
            return len(x) > 1
        case "taps":
            return torch.is_grad_enabled() and w.requires_grad and min(w.shape[:2]) >= CHANNELS and w[0, 0].numel() > 1
        case "patches" | "fold":
            made = len(x) * w.shape[1 if convolution.transposed else 0] * math.prod(convolution.size(x, w))
            positions = x.shape[2:] if convolution.transposed else convolution.size(x, w)
            patches = len(x) * math.prod(positions) * math.prod(w.shape[1:])
            return patches <= PATCHES * (x.numel() + made)
    return True


def like(t: Tensor) -> Tensor:
    """A constant tensor like `t`, of ordinary size. No random numbers are drawn."""
    return torch.full_like(t, 0.1, requires_grad=t.requires_grad)


def ready(device: torch.device) -> None:
    """Wait until `device` has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
