"""One training iteration, ours against the loop that a researcher writes, in turn within one process.

    python -m benchmarks.train_step --recipe san_digits_conditional --against eager --rounds 12 --out speed.json
    python -m benchmarks.train_step --recipe sngan_resnet_small data=photos --ways compute.compile=true

The eager loop has the same networks, losses, penalties, batch and learning rates, in float32. Its generated images are
computed with a gradient and then detached. D's weights keep requiring a gradient in G's step. All terms share one
backward. Spectral norm and the optimisers are PyTorch's defaults, and G is not averaged. On a GPU it has TF32 on.

Each round times one iteration of each loop, and a product of square matrices in each precision, so all meet the same
noise. The result is the ratio within a round. The memory of a loop is measured in a process of its own. Both loops keep
the memory that they free.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from equipoise.compute.allocator import keep_freed_memory
from equipoise.compute.convolutions import ready
from equipoise.compute.distributed import owned
from equipoise.compute.pieces import repeated
from equipoise.compute.precision import Precision, tensor_float32
from equipoise.compute.settings import Compute
from equipoise.config import TrainConfig, components, override
from equipoise.core.grammar import parse
from equipoise.core.randomness import Purpose
from equipoise.core.types import Batch, ImageSpec
from equipoise.data import InfiniteBatches
from equipoise.losses import Penalty, Regularizing, Term
from equipoise.recipes import load
from equipoise.rules import Adam, RMSprop
from equipoise.train import GAN, d_step, g_step, iteration_flops, loss_on, tune
from equipoise.train.steps import iteration
from equipoise.train.tuning import precisions_of
from equipoise.weights import DividedBySigma

from .cost_of_growth import resident
from .report import machine

Iteration = Callable[[Batch, int], None]

EAGER = "eager"
WAYS = (
    "",
    "compute.convolutions=measured",
    "compute.precision=bf16",
    "compute.precision=bf16 compute.convolutions=measured",
    "compute.precision=bf16 compute.convolutions=measured game.reuse=true",
)
"""Overrides of the recipe that our loop is measured with, where the recipe allows them."""
AS_USUAL = {"compute": Compute(), "game.reuse": False}
"""Fields of the eager loop's config that stay at these values, whatever the recipe says."""
SIDE = 2048
"""Side of the matrices whose product gives the rate of the machine."""


# ---- the two loops ---------------------------------------------------------------------------------------


def ours(gan: GAN) -> Iteration:
    """An iteration of `train`, with its average of G."""
    cfg, ema = gan.cfg, gan.cfg.ema.build(gan.G)
    folder = tempfile.TemporaryDirectory()  # shapes that come later are written there too
    tune(gan, Path(folder.name), iteration)

    def one(batch: Batch, nimg: int) -> None:
        start = nimg
        for _ in range(d_steps(cfg)):
            d_step(gan, batch, nimg, labelled=batch)
            nimg += cfg.batch_size
        g_step(gan, batch, start, labelled=batch)
        ema.update(gan.G, nimg, nimg - start)

    weakref.finalize(one, folder.cleanup)
    return one


def eager(gan: GAN) -> Iteration:
    """The same iteration as a researcher writes it."""
    for net in (gan.G, gan.D):
        take_torchs_spectral_norm(net)
    cfg, G, D = gan.cfg, gan.G.requires_grad_(True), gan.D.requires_grad_(True)
    g_optim, d_optim = usual(cfg.g_optim, gan.g_optim), usual(cfg.d_optim, gan.d_optim)

    after: list[Callable[[nn.Module], None]] = [*cfg.constraints, *cfg.head.after]

    def one(batch: Batch, nimg: int) -> None:
        start = nimg
        for _ in range(d_steps(cfg)):
            update = nimg // cfg.batch_size
            d_optim.zero_grad()
            fake = gan.generate(batch, Purpose.Z_FOR_D, nimg)
            fake = Batch(fake.x.detach(), fake.y)
            loss = loss_on(gan, gan.players[0], batch, fake, nimg, batch)
            for term in gan.terms("D"):
                if update % term.every == 0 and isinstance(term, Penalty):
                    value = term(gan.critic, batch, fake).mean()
                    loss = loss + term.every * term.weight(nimg) * value
            loss = loss + regularisation(gan.terms("D"), update, nimg, D)
            loss.backward()
            d_optim.step()
            for then in after:
                then(D)
            nimg += cfg.batch_size
        g_optim.zero_grad()
        batch = repeated(batch, cfg.g_batches)
        loss = loss_on(gan, gan.players[1], batch, gan.generate(batch, Purpose.Z_FOR_G, start), start)
        update = start // (cfg.batch_size * d_steps(cfg))
        loss = loss + regularisation(gan.terms("G"), update, start, G)
        loss.backward()
        g_optim.step()

    return one


def regularisation(terms: Iterable[Term], update: int, nimg: int, net: nn.Module) -> Tensor | float:
    """Weighted sum of the terms on the weights of `net` that are due."""
    due = [term for term in terms if isinstance(term, Regularizing) and update % term.every == 0]
    values: list[Tensor] = [term.every * term.weight(nimg) * term.memory.forward(net) for term in due]
    return torch.stack(values).sum() if values else 0.0


def take_torchs_spectral_norm(net: nn.Module) -> None:
    """Replace our spectral norm by PyTorch's, with the same weights and vectors."""
    for module in list(net.modules()):
        ours = [part for part in module.modules() if isinstance(part, DividedBySigma)]
        if parametrize.is_parametrized(module, "weight") and ours:
            state = module.state_dict()
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
            parametrizations.spectral_norm(module, n_power_iterations=ours[0].iterations)
            module.load_state_dict(state)


def usual(config: object, fused: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """PyTorch's default form of an optimiser, with the same weights and settings."""
    settings = fused.param_groups[0]
    match config:
        case Adam():
            names = ("lr", "betas", "eps", "weight_decay")
            return torch.optim.Adam(owned(fused), **{name: settings[name] for name in names})
        case RMSprop():
            return torch.optim.RMSprop(owned(fused), lr=settings["lr"], alpha=settings["alpha"])
    raise ValueError(f"the eager loop is written for Adam and RMSprop, got {config!r}")


def d_steps(cfg: TrainConfig) -> int:
    if not isinstance(cfg.d_steps, int) or any(t.player == "both" for t in cfg.terms) or cfg.augment.held_out:
        raise ValueError(
            "this benchmark needs a fixed number of D updates, without joint penalties and without held-out images"
        )
    return cfg.d_steps


# ---- measuring -------------------------------------------------------------------------------------------


def configured(recipe: str, changes: list[str]) -> TrainConfig:
    cfg, known = load(recipe)
    pairs = (change.split("=", 1) for change in changes)
    changed: TrainConfig = override(cfg, {name: parse(value, known | components()) for name, value in pairs})
    return changed


def build(way: str, cfg: TrainConfig, spec: ImageSpec, device: torch.device) -> Iteration:
    """Build the loop named `way`: `EAGER`, or our loop under these overrides."""
    if way == EAGER:
        loop = eager(GAN.build(override(cfg, AS_USUAL), spec, device))

        def one(batch: Batch, nimg: int) -> None:
            with tensor_float32("tf32", device):
                loop(batch, nimg)

        return one
    return ours(GAN.build(of(way, cfg), spec, device))


def of(way: str, cfg: TrainConfig) -> TrainConfig:
    """The config of a loop."""
    changes = (change.split("=", 1) for change in ([] if way == EAGER else way.split()))
    changed: TrainConfig = override(cfg, {name: parse(value, components()) for name, value in changes})
    return changed


def legal(way: str, cfg: TrainConfig) -> bool:
    """Whether the config accepts these overrides."""
    try:
        of(way, cfg)
    except ValueError:
        return False
    return True


def product(precision: Precision, device: torch.device) -> Callable[[Batch, int], object]:
    """A function that multiplies two square matrices: 2 SIDE³ operations."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.ones(SIDE, SIDE, dtype=dtype, device=device) for _ in range(2))

    def one(_batch: Batch, _nimg: int) -> None:
        with tensor_float32(precision, device):
            torch.matmul(a, b)

    return one


def measure(
    cfg: TrainConfig, ways: list[str], rounds: int, warmup: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds per iteration of each loop, and per product of matrices of each precision, by round."""
    dataset = cfg.data.build()
    batches = InfiniteBatches(dataset, cfg.batch_size, seed=cfg.seed, device=device)
    loops: dict[str, Callable[[Batch, int], object]] = {
        way: build(way, cfg, dataset.spec, device) for way in [EAGER, *ways]
    }
    for precision in precisions_of(device):
        loops[f"product {precision}"] = product(precision, device)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for i in track(range(warmup + rounds), description="rounds", console=Console(stderr=True)):
        batch = next(batches)
        order = list(loops) if i % 2 else list(reversed(loops))  # the order alternates, so that no loop is always first
        for name in order:
            ready(device)
            start = time.perf_counter()
            loops[name](batch, i * cfg.batch_size * d_steps(cfg))
            ready(device)
            if i >= warmup:
                seconds[name].append(time.perf_counter() - start)
    batches.close()
    return seconds


def peak_memory(cfg: TrainConfig, way: str, device: torch.device) -> float:
    """Peak memory of three iterations in MiB, without the data and the imports. Needs a process of its own."""
    dataset = cfg.data.build()
    batch = next(InfiniteBatches(dataset, cfg.batch_size, seed=cfg.seed, device=device))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the memory resident now
    loop = build(way, cfg, dataset.spec, device)
    for i in range(3):
        loop(batch, i * cfg.batch_size * d_steps(cfg))
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return (resident("VmHWM") - before) / 2**20


def peaks(argv: list[str], ways: list[str]) -> dict[str, float]:
    """The peak memory of each loop, each measured by this program in a new process."""
    command = [sys.executable, "-m", "benchmarks.train_step", *argv]
    outputs = {
        way: subprocess.run([*command, f"--memory={way}"], check=True, stdout=subprocess.PIPE, text=True).stdout
        for way in ways
    }
    return {way: float(text.splitlines()[-1]) for way, text in outputs.items()}


# ---- reporting -------------------------------------------------------------------------------------------


def summary(cfg: TrainConfig, seconds: dict[str, list[float]], memory: dict[str, float]) -> list[dict[str, Any]]:
    """A row per loop: median and quartiles of its ratio, its speed, memory and share of the machine's rate."""
    spec = cfg.data.build().spec
    products = {name.removeprefix("product "): s for name, s in seconds.items() if name.startswith("product ")}
    rates = {precision: 2 * SIDE**3 / statistics.median(values) for precision, values in products.items()}
    rows = []
    for name, values in seconds.items():
        if name.startswith("product "):
            continue
        flops = iteration_flops(of(name, cfg), spec)
        ratios = [slow / fast for slow, fast in zip(seconds[EAGER], values, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        median = statistics.median(values)
        asked = "tf32" if name == EAGER else name.partition("precision=")[2].partition(" ")[0]
        rate = asked if asked in rates else "float32"
        rows.append(
            {
                "loop": name or "ours",
                "seconds": median,
                "images_per_second": cfg.batch_size * d_steps(cfg) / median,
                "ratio": [low, middle, high],
                "peak_mib": memory.get(name),
                "gflops": flops / median / 1e9,
                "rate": rate,
                "share_of_rate": flops / median / rates[rate],
            }
        )
    counted = iteration_flops(cfg, spec) / 1e9
    return [*rows, {"gflop_per_iteration": counted, "rates_gflops": {name: r / 1e9 for name, r in rates.items()}}]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("changes", nargs="*", help="overrides of the recipe, for both loops")
    parser.add_argument("--recipe", default="san_digits_conditional")
    parser.add_argument("--against", choices=[EAGER], default=EAGER)
    parser.add_argument("--ways", action="append", help="overrides of our loop alone; may be repeated")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--memory", help=argparse.SUPPRESS)  # print the peak memory of that loop, nothing else
    args = parser.parse_args()

    keep_freed_memory()
    device, cfg = torch.device(args.device), configured(args.recipe, args.changes)
    if args.memory is not None:
        print(peak_memory(cfg, args.memory, device))
        return
    ways = args.ways or [way for way in WAYS if legal(way, cfg)]
    seconds = measure(cfg, ways, args.rounds, args.warmup, device)
    memory = peaks(["--recipe", args.recipe, "--device", args.device, *args.changes], [EAGER, *ways])
    *rows, about = summary(cfg, seconds, memory)
    about |= {"recipe": args.recipe, "changes": args.changes, "batch_size": cfg.batch_size, "device": args.device}
    about |= machine()

    table = Table("loop", "s", "images/s", "eager / loop (quartiles)", "peak MiB", "GFLOP/s", "share of rate")
    for row in rows:
        low, middle, high = row["ratio"]
        share = f"{row['share_of_rate']:.0%} of {row['rate']}"
        speed = f"{row['seconds']:.3f}", f"{row['images_per_second']:.0f}", f"{middle:.2f} ({low:.2f} - {high:.2f})"
        table.add_row(row["loop"], *speed, f"{row['peak_mib']:.0f}", f"{row['gflops']:.0f}", share)
    console = Console(width=140)
    console.print(table)
    rates = ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in about["rates_gflops"].items())
    console.print(f"{about['gflop_per_iteration']:.1f} GFLOP an iteration; matrix products: {rates}")
    if args.out:
        args.out.write_text(json.dumps(about | {"loops": rows, "rounds": seconds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
