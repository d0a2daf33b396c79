"""The report of a run: one HTML file with settings, curves, grids, numbers and warnings, which needs nothing else."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from equipoise.config import components
from equipoise.core.files import read_file, read_json, replace_file, writing
from equipoise.generate import Generator, generator_file
from equipoise.runs import Run, config_text, read_run

from .curves import chart
from .health import Group, groups
from .remarks import discriminator, remarks
from .symptoms import doctor
from .words import described, parts

__all__ = ["report", "write_report"]

GRIDS = 6
"""Most grids that are shown, the first and the last among them."""
SIDE = 560
"""Largest side of a grid in pixels: larger grids are cut to whole images or made smaller."""
QUALITY = 75
"""JPEG quality of grids."""


def write_report(place: str | Path, out: Path | None = None, known: Mapping[str, Any] | None = None) -> Path:
    """Write the report of the run in `place`, and return its path.

    out: file to write; None: report.html in the run.
    known: your own components by name, as in `Generator.from_pretrained`.

    Raises:
        ValueError: if `place` is not a run, or `out` is a name without .html or .htm.
        RunError: if the file cannot be written.
    """
    out = Path(place) / "report.html" if out is None else out
    if out.suffix not in (".html", ".htm"):
        raise ValueError(f"a report is an HTML file: give --out NAME.html, got {out}")
    text = report(place, known)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, text.encode())
    return out


def report(place: str | Path, known: Mapping[str, Any] | None = None) -> str:
    """The report of the run in `place` as HTML. known: as in `write_report`.

    Raises:
        ValueError: if `place` is not a run, or its config or generator is damaged.
    """
    run = read_run(Path(place), components() | dict(known or {}))
    generator = Generator.from_pretrained(run.folder, known) if generator_file(run.folder) else None
    D = None if generator is None else discriminator(run, generator.spec)
    size = None if D is None else sum(p.numel() for p in D.parameters())
    name = run.folder.resolve().name
    sections = {
        "Warnings": warnings(remarks(run, D)),
        "Doctor": doctor(run),
        "Images over time": grids(run, (1, 1) if generator is None else generator.spec.shape),
        "Numbers": numbers(run),
        "Curves": "".join(map(figure, groups(run))) or "<p>There are no statistics yet.</p>",
        "Settings": settings(run),
    }
    body = "".join(f'<section id="{title.split()[0].lower()}"><h2>{title}</h2>{text}</section>'
                   for title, text in sections.items() if text)  # fmt: skip
    return PAGE.format(
        title=html.escape(name), style=STYLE, lead=html.escape(described(run, generator, size)), body=body
    )


def warnings(found: list[str]) -> str:
    if not found:
        return "<p>None.</p>"
    return f'<ul class="warnings">{"".join(f"<li>{html.escape(text)}</li>" for text in found)}</ul>'


def figure(group: Group) -> str:
    """A chart under its title, over the words on a healthy run."""
    return (
        f"<figure><h3>{html.escape(group.title)}</h3>{chart(group.chart)}"
        f"<figcaption>{html.escape(group.healthy)}</figcaption></figure>"
    )


# ---- images ----------------------------------------------------------------------------------------------


def grids(run: Run, shape: tuple[int, int]) -> str:
    """The grids of real images, if it is there, and of the first, the last and some checkpoints between.

    shape: (H, W) of an image, in pixels.
    """
    folder = run.folder / "samples"
    files = sorted((path for path in folder.glob("*.png") if path.stem.isdecimal()), key=lambda path: int(path.stem))
    steps = {round(i * (len(files) - 1) / (GRIDS - 1)) for i in range(GRIDS)}
    shown = [(folder / "real.png", "Real images")] if (folder / "real.png").is_file() else []
    shown += [(files[i], f"{int(files[i].stem) / 1000:g} kimg") for i in sorted(steps) if files]
    cards = [card for path, words in shown if (card := picture(path, words, shape))]
    if not cards:
        return "<p>The run has not written a grid yet.</p>"
    return f'<p class="note">Always from the same z.</p><div class="grids">{"".join(cards)}</div>'


def picture(path: Path, words: str, shape: tuple[int, int]) -> str:
    """A grid with its caption; empty if the file cannot be read, as while it is written."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("L" if opened.mode == "L" else "RGB")
    except (OSError, ValueError):
        return ""
    width, height = (
        max(each, min(side, SIDE // each * each)) for side, each in zip(image.size, shape[::-1], strict=True)
    )
    image = image.crop((0, 0, width, height))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = BytesIO()
    image.save(file, format="JPEG", quality=QUALITY, optimize=True)
    source = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure><img src="data:image/jpeg;base64,{source}" alt="{html.escape(words)}" width="{image.width}" '
        f'height="{image.height}"><figcaption>{html.escape(words)}</figcaption></figure>'
    )


# ---- tables ----------------------------------------------------------------------------------------------


def numbers(run: Run) -> str:
    """A row for each number of the evaluations: first, best and last; empty without an evaluation."""
    names = sorted({name for line in run.stats for name in line if name.startswith("eval/")})
    if not names:
        return (
            "<p>No evaluation is on record. <code>equipoise evaluate RUN</code> measures the generator; with "
            "<code>report.evaluation=Evaluate</code> a run measures itself, and keeps its best.</p>"
        )
    settings = run.config.report.evaluation
    better = {} if settings is None else settings.better
    rows = []
    for name in names:
        points = [(line[name], line["kimg"]) for line in run.stats if name in line]
        way = better.get(name.removeprefix("eval/"), "")
        value, kimg = {"lower": min, "higher": max}.get(way, lambda p: p[-1])(points)
        cells = (name.removeprefix("eval/"), f"{points[0][0]:.4g}", f"{value:.4g} at {kimg:g} kimg",
                 f"{points[-1][0]:.4g}", way)  # fmt: skip
        rows.append(row(cells))
    how = "" if settings is None else (
        f'<p class="note">{settings.num:,} images, features {html.escape(settings.features)}, against '
        f"{html.escape(repr(settings.against)) if settings.against else 'the training data'}.</p>"
    )  # fmt: skip
    return f"{how}{table(('number', 'first', 'best', 'last', 'better'), rows)}{kept(run)}"


def kept(run: Run) -> str:
    """A sentence on the generator in best/; empty without one."""
    try:
        about = read_json(read_file(run.folder / "best" / "evaluation.json"), "evaluation.json")
        nimg, deciding = int(about["nimg"]), str(about["best"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return f"<p>best/ holds the generator after {nimg / 1000:g} kimg, the best by {html.escape(deciding)}.</p>"


def settings(run: Run) -> str:
    """A table of the parts in words, and the full config."""
    rows = [row((part.name, part.value, part.words), code=2) for part in parts(run)]
    config = html.escape(config_text(run.folder / "config.txt").rstrip())
    full = f"<details><summary>The full config</summary><pre>{config}</pre></details>"
    return table(("field", "value", "in words"), rows) + full


def row(cells: tuple[str, ...], code: int = 1) -> str:
    """A row of a table, its first `code` cells in the type of code."""
    texts = (html.escape(cell) for cell in cells)
    return "<tr>" + "".join(f"<td>{f'<code>{t}</code>' if i < code else t}</td>" for i, t in enumerate(texts)) + "</tr>"


def table(titles: tuple[str, ...], rows: list[str]) -> str:
    heads = "".join(f"<th>{title}</th>" for title in titles)
    return f'<div class="table"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title} – report</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p class="lead">{lead}</p>
{body}
</body>
</html>
"""

STYLE = (Path(__file__).parent / "report.css").read_text("utf-8")
