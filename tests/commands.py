"""The command line, called as a user calls it."""

from unittest.mock import patch

from typer.testing import CliRunner

from equipoise.cli.app import app
from equipoise.cli.options import out


def run(*arguments: object, code: int = 0) -> str:
    """What it said, on a wide screen; an error if it ended with another code."""
    with patch.object(out, "_width", 200):  # read from the environment at import, and narrow under xdist
        result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output
