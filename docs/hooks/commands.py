"""The commands and their options, as `--help` prints them: ``<<< commands``."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # `mkdocs` does not look where it is called

COMMANDS = re.compile(r"^<<< commands$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    return COMMANDS.sub(lambda _: "\n\n".join(commands()), markdown)


def commands() -> Iterator[str]:
    """A section for each command: its usage, its help and its parameters."""
    import typer

    from equipoise.cli.app import app

    yield from sections(typer.main.get_command(app), "equipoise")


def sections(command: Any, name: str) -> Iterator[str]:
    import typer

    inside = getattr(command, "commands", None)
    if inside is not None:
        for word, other in inside.items():
            yield from sections(other, f"{name} {word}")
        return
    context = typer.Context(command, info_name=name)
    yield f"## `{name.removeprefix('equipoise ')}`"
    arguments = " ".join(called(parameter) for parameter in command.params if not is_option(parameter))
    yield f"```text\n{name} {arguments} [OPTIONS]\n```".replace("  ", " ")
    yield " ".join((command.help or "").replace("\b", "").split())
    rows = [row(parameter, context) for parameter in command.params if not getattr(parameter, "hidden", False)]
    if rows:
        yield "\n".join(("| parameter | meaning | default |", "|---|---|---|", *rows))


def is_option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")


def called(parameter: Any) -> str:
    """An argument as the usage has it."""
    return str(parameter.metavar or parameter.name.upper())


def row(parameter: Any, context: Any) -> str:
    """The names of a parameter, its help, and its default."""
    named = "`, `".join(parameter.opts) if is_option(parameter) else called(parameter)
    text = " ".join((getattr(parameter, "help", None) or "").split())
    if not text:
        raise ValueError(
            f"{context.info_name} {parameter.name} has no help: give it help=..., which the documentation shows"
        )
    value = parameter.default
    shown = "" if value is None or value is False or callable(value) else f"`{value}`"
    return f"| `{named}` | {text.replace('|', '&#124;')} | {shown} |"
