"""Networks as a table and as pictures in text, for `equipoise models`."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.tree import Tree
from torch import Tensor, nn

from .base import Pair
from .counts import Counts, count, layers, on_meta, training_bytes

__all__ = ["listing", "markdown", "picture"]

BATCH = 64
"""Batch size of the reported memory."""


def row(name: str, pair: Pair) -> tuple[str, ...]:
    """Name, size, parameters of G and of D, multiply-adds of each, memory, paper."""
    G, D, of_g, of_d = on_meta(pair.generator, pair.discriminator, pair.head, pair.spec)
    g, d = count(G, of_g), count(D, of_d)
    numbers = (short(n) for n in (g.parameters, d.parameters, g.macs, d.macs))
    return (name, pair.spec.size, *numbers, memory(g, d), pair.paper)


def markdown(pairs: Mapping[str, Pair]) -> str:
    """`listing` as a Markdown table for the documentation."""
    head = (
        f"| name | image | parameters: G, D | multiply-adds: G, D | memory at batch {BATCH} | paper |\n"
        + "|---" * 6
        + "|"
    )
    rows = (row(name, pair) for name, pair in pairs.items())
    lines = (
        f"| `{name}` | {size} | {g}, {d} | {of_g}, {of_d} | {held} | {paper} |"
        for name, size, g, d, of_g, of_d, held, paper in rows
    )
    return "\n".join((head, *lines))


def listing(pairs: Mapping[str, Pair]) -> Table:
    """A table with a row for each pair."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("name", style="bold", no_wrap=True)
    for head in ("image", "G", "D", "G MACs", "D MACs", f"memory, {BATCH}"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("paper", no_wrap=True)
    for name, pair in pairs.items():
        table.add_row(*row(name, pair))
    return table


def picture(name: str, pair: Pair, depth: int) -> list[Tree]:
    """The modules of G and of D, with the output shape for one image and the parameters of each."""
    G, D, of_g, of_d = on_meta(pair.generator, pair.discriminator, pair.head, pair.spec)
    g, d = count(G, of_g), count(D, of_d)
    trees = [tree("G", G, of_g, g, depth), tree("D", D, of_d, d, depth)]
    trees[1].add(f"[dim]{name}: a training step of {BATCH} images holds at least {memory(g, d)}[/]")
    return trees


def tree(player: str, net: nn.Module, inputs: tuple[Tensor, ...], counts: Counts, depth: int) -> Tree:
    title = f"[bold]{player}[/]: {short(counts.parameters)} parameters, {short(counts.macs)} multiply-adds an image"
    root = Tree(title)
    branches = [root]
    for layer in layers(net, inputs, depth=depth):
        shape = "x".join(map(str, layer.shape)) or "1"
        parameters = f"  {short(layer.parameters)}" if layer.parameters else ""
        label = f"{layer.name} [cyan]{layer.kind}[/] {shape}[dim]{parameters}[/]".strip()
        branches = [*branches[: layer.depth + 1], branches[layer.depth].add(label)]
    return root


def short(number: int) -> str:
    """Three digits: 70.4 M."""
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= power:
            return f"{number / power:.3g} {letter}" if number < 999.5 * power else f"{number / power:.0f} {letter}"
    return str(number)


def memory(g: Counts, d: Counts) -> str:
    """GiB that a training step holds."""
    return f"{training_bytes(g, d, BATCH) / 2**30:.1f} GiB"
