"""The model card of a generator: its images, its use, its training and its evaluation."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from equipoise.config import components
from equipoise.core.files import read_file
from equipoise.runs import Run, config_text, notice_of

from .generator import Generator

__all__ = ["Published", "grid_of", "model_card"]

WIDTH = 1280
"""Greatest width of a grid, in pixels, unless a single image is wider."""


@dataclass(frozen=True)
class Published:
    """Facts that whoever publishes a generator decides.

    name: on the Hugging Face Hub, you/name; None: the card speaks of a folder.
    licence: the Hub's name of it, such as "apache-2.0"; None: the card says that none has been chosen.

    Raises:
        ValueError: for a licence that is not such a name.
    """

    name: str | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        if self.licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,60}", self.licence):
            raise ValueError(
                f"licence {self.licence!r:.80} is not one of the Hub's names: give one such as apache-2.0 or "
                "cc-by-4.0, from https://huggingface.co/docs/hub/repositories-licenses"
            )


def grid_of(generator: Generator) -> tuple[int, int]:
    """Numbers of columns and images in the card's grid: a column for each class, if the columns fit."""
    across = max(1, min(10, WIDTH // generator.spec.shape[1]))
    classes = generator.spec.num_classes
    columns = classes if 0 < classes <= across else across
    return columns, columns * across


def model_card(generator: Generator, run: Run, published: Published | None = None, *, both: bool = False) -> str:
    """README.md of a published generator, with the front matter that the Hugging Face Hub reads.

    Everything in it comes from the generator and the run. The licence is left to whoever publishes it, unless the
    weights began as weights that others published: then theirs applies, and the run's notice is quoted.

    published: the name and the licence, where they are known.
    both: whether G and D lie beside the card, for other runs to start from.

    Raises:
        ValueError: if the run's notice is damaged, or speaks of another licence than `published`.
    """
    published = published or Published()
    notice = notice_of(run.folder)
    if notice and published.licence is not None:
        raise ValueError(
            f"{run.folder} began with weights of others, whose licence applies ({run.folder / 'NOTICE.txt'}): leave "
            "the licence out. If they are your own, export to hub-folder, name it in README.md, and push that folder"
        )
    imported = bool(notice) and generator.nimg == 0
    return f"""---
library_name: equipoise
pipeline_tag: unconditional-image-generation
tags:
- gan
- image-generation
{front_of_licence(notice, published.licence)}
---

# {run.folder.resolve().name}

A generative adversarial network, {"published by others" if imported else "trained with Equipoise"}. It draws \
{described(generator)}.

![Images that it draws](samples.png)

{caption(generator)}

## Use

{usage(generator, published.name)}
{start_from(published.name) if both else ""}
## Training

{training_elsewhere(generator, run) if imported else training(generator, run)}

## Numbers

{numbers(generator, run)}

## Licence

{notice or (f"{published.licence}, for the weights." if published.licence else NO_LICENCE)}
"""


def front_of_licence(notice: str, licence: str | None) -> str:
    """Lines of the front matter."""
    if notice:
        return LICENCE_OF_OTHERS
    return LICENCE_TO_CHOOSE if licence is None else f"license: {licence}"


def start_from(name: str | None) -> str:
    """A paragraph on the networks beside the card."""
    place = "FOLDER" if name is None else name
    return f"""
`networks.safetensors` holds G, D and the average of G as they were trained. Another run starts from every layer that
fits, whatever its resolution and classes, with the `config.txt` beside this file:
`equipoise train config.txt RUN data=IMAGES \
'start=Transfer(run="{place}")'`.
"""


LICENCE_TO_CHOOSE = """\
# No licence has been chosen yet. Name yours here, such as
# license: apache-2.0"""
LICENCE_OF_OTHERS = """\
license: other
license_name: of-the-published-weights"""
NO_LICENCE = """\
None has been chosen yet: whoever publishes this names one in the first lines of this file. The licence of the data may
limit which ones there are to choose from."""


def described(generator: Generator) -> str:
    """Its images, in words."""
    spec = generator.spec
    colours = {1: "grey", 3: "colour"}.get(spec.channels, f"{spec.channels}-channel")
    classes = f", of {spec.num_classes} classes that it is told" if generator.conditional else ""
    return f"{colours} images of {spec.size.replace('x', '×')} pixels{classes}"


def caption(generator: Generator) -> str:
    columns, num = grid_of(generator)
    classes = ", a class a column" if generator.conditional and columns == generator.spec.num_classes else ""
    return f"`G.sample({num}, seed=0)`{classes}: nobody has selected them."


def usage(generator: Generator, hub_name: str | None = None) -> str:
    """Three lines of Python, and notes on classes, own architectures and calling the network."""
    place = hub_name or "FOLDER"
    name = type(generator.config).__name__
    own = components().get(name) is not type(generator.config)
    known = f', known={{"{name}": {name}}}' if own else ""
    spec, z_dim = generator.spec, generator.config.z_dim
    size = ", ".join(map(str, spec.shape))
    lines = [
        "```python",
        "from equipoise import Generator",
        "",
        f'G = Generator.from_pretrained("{place}"{known})',
        f"images = G.sample(16, seed=0)  # (16, {size}, {spec.channels}) uint8",
        "```",
        "",
        (
            "FOLDER is the one that this file is in. `huggingface_hub.snapshot_download` fetches it and returns its "
            "path."
            if hub_name is None
            else "The weights are fetched with `huggingface_hub`, and nothing in them is executed."
        ),
    ]
    if own:
        lines.append(f"The architecture `{name}` is not part of Equipoise: import it from the code of its authors.")
    if generator.conditional:
        lines.append(
            f"`G.sample(16, classes=[0])` draws one class; by default image i is of class i mod {spec.num_classes}."
        )
    call = "G.net(z, y)` with `y` (N,) int64" if generator.conditional else "G.net(z, None)`"
    law = generator.config.prior.law
    law = law if generator.truncation is None else f"{law} given |z_i| ≤ {generator.truncation:g}"
    lines.append(
        f"In a program of your own, `{call} takes `z` (N, {z_dim}) from {law} to (N, {spec.channels}, {size}) in "
        "[-1, 1]."
    )
    return "\n".join(lines)


def training(generator: Generator, run: Run) -> str:
    """Data, length, size, versions and command as a list; then the full config."""
    parameters = sum(parameter.numel() for parameter in generator.net.parameters())
    about = environment(run.folder / "environment.txt")
    lines = [
        f"- Data: `{run.config.data!r}`",
        f"- Real images that the discriminator had seen: {generator.nimg:,}",
        f"- Generator: `{generator.config!r}`, {parameters:,} parameters, averaged over training as `ema` says",
    ]
    if generator.truncation is not None:
        lines.append(f"- Truncated at {generator.truncation:g}, with batch-norm statistics made for it")
    if about:
        lines.append(
            f"- Trained with equipoise {about['equipoise']}, torch {about['torch']}, Python {about['python']}, on "
            f"{about['device']}"
        )
        lines.append(f"- Command: `{command(about['command'])}`")
    config = config_text(run.folder / "config.txt").rstrip()
    return "\n".join([*lines, "", "```python", config, "```"])


def training_elsewhere(generator: Generator, run: Run) -> str:
    """The size and the settings of an imported network: its training is not on record."""
    parameters = sum(parameter.numel() for parameter in generator.net.parameters())
    config = config_text(run.folder / "config.txt").rstrip()
    lines = [
        "- By others, on data that the file does not name",
        f"- Generator: `{generator.config!r}`, {parameters:,} parameters",
        "- The networks' settings, with settings for training further; `data` is a placeholder:",
    ]
    return "\n".join([*lines, "", "```python", config, "```"])


def numbers(generator: Generator, run: Run) -> str:
    """A table of the run's evaluation of this generator, else of its last one; a sentence if there is none."""
    measured = [line for line in run.stats if any(key.startswith("eval/") for key in line)]
    if not measured:
        return (
            "No evaluation is on record. `equipoise evaluate FOLDER --against DATA` measures it; DATA is a folder "
            "of images, or a data set."
        )
    line = next((line for line in measured if line["nimg"] == generator.nimg), measured[-1])
    settings = run.config.report.evaluation
    better = {} if settings is None else settings.better
    rows = [
        f"| {name} | {value:.4g} | {better.get(name, '')} |"
        for name, value in (
            (key.removeprefix("eval/"), value) for key, value in line.items() if key.startswith("eval/")
        )
    ]
    how = "While it trained"
    if settings is not None:
        against = "the data it is trained on" if settings.against is None else f"`{settings.against!r}`"
        how += f": {settings.num:,} images, seed {settings.seed}, features `{settings.features}`, against {against}"
    caveats = []
    if line["nimg"] != generator.nimg:
        caveats.append(
            f"These numbers belong to the generator after {int(line['nimg']):,} real images, not to this one."
        )
    if generator.truncation is not None:
        caveats.append("They were measured without truncation, which this generator has.")
    return "\n".join([" ".join([f"{how}.", *caveats]), "", "| number | value | better |", "|---|---|---|", *rows])


def environment(path: Path) -> dict[str, str]:
    """The last block of a run's environment.txt, from its last start; empty without the file.

    A damaged file is named on stderr, and counts as missing.
    """
    try:
        text = read_file(path, 1 << 26).decode()
        lines = text.strip().rpartition("\n\n")[2].splitlines()
        about = {key: value for key, _, value in (line.partition(": ") for line in lines)}
        if missing := {"equipoise", "torch", "python", "device", "command"} - about.keys():
            raise ValueError(f"its last block does not name {', '.join(sorted(missing))}")
        command(about["command"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        print(f"warning: {path} is damaged ({error}): the card does without it", file=sys.stderr)
        return {}
    return about


def command(line: str) -> str:
    """The command to type for a recorded command `line`, whose first word is the path of a script."""
    script, *arguments = shlex.split(line)
    path = Path(script)
    own = path.name == "equipoise" or path.parts[-2:] == ("equipoise", "__main__.py")
    return shlex.join(["equipoise", *arguments] if own else ["python", path.name, *arguments])
