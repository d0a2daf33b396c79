r"""Backslashes in quoted texts: paths of Windows as they are typed, and Python's escapes as a config is saved.

``path="C:\Users\me\new"`` is typed by users, and to Python ``\U`` is an error and ``\n`` a new line. A quoted text is
taken as it stands if it begins like a path of Windows, with a drive and one backslash (``C:\``) or a server and one
(``\\server\``), or if Python would refuse an escape in it. Every other text is read as Python reads it.
"""

from __future__ import annotations

import re

__all__ = ["as_python", "as_saved", "is_windows_path"]

WINDOWS = r"(?:[A-Za-z]:\\(?!\\)|\\\\[^\\\"'\n]+\\(?!\\))"
"""How a path of Windows begins. In what Python writes, two backslashes stand for one."""

BEFORE = r"""
      \#[^\n]*
    | \w* (?: '''(?:[^\\]|\\.)*?(?:'''|\Z) | \"\"\"(?:[^\\]|\\.)*?(?:\"\"\"|\Z) )
    | \w+ (?: '(?:[^'\\\n]|\\.)*'? | "(?:[^"\\\n]|\\.)*"? )?
"""
"""What is left as it is: comments, texts in three quotes, texts with a prefix, words."""

PLAIN = r"""(?P<plain> '(?:[^'\\\n]|\\.)*+' | "(?:[^"\\\n]|\\.)*+" ) | '(?:[^'\\\n]|\\.)*+ | "(?:[^"\\\n]|\\.)*+"""
"""A text in quotes, or what begins as one and never ends, which is left as it is too."""
PATH = rf"""(?P<path> '{WINDOWS}[^'\n]*' | "{WINDOWS}[^"\n]*" )"""
"""In a path a backslash escapes nothing, not the quote at its end either."""

TYPED = re.compile(rf"{BEFORE} | {PATH} | {PLAIN}", re.VERBOSE | re.DOTALL)
SAVED = re.compile(rf"{BEFORE} | {PLAIN}", re.VERBOSE | re.DOTALL)
BEGINS = re.compile(WINDOWS)
ESCAPED = re.compile(
    r"""(?: [^\\] | \\(?: [\\'"abfnrtv\n] | [0-3]?[0-7]{1,2} | x[0-9a-fA-F]{2} | u[0-9a-fA-F]{4}
                        | U(?:0010|000[0-9a-fA-F])[0-9a-fA-F]{4} ) )*+""",
    re.VERBOSE,
)
"""A text without an escape that Python would refuse or warn of, names of characters (``\\N{...}``) aside."""


def is_windows_path(text: str) -> bool:
    r"""Whether an unquoted `text` begins as ``C:\``, ``C:/`` or ``\\server``. Nothing else that a config holds does."""
    return re.match(r"[A-Za-z]:[\\/]|\\\\", text) is not None


def as_python(text: str) -> str:
    """`text` with every quoted text in it as Python writes it, so that Python reads what was typed."""

    def written(found: re.Match[str]) -> str:
        token = found[0]
        as_it_stands = found["path"] or (found["plain"] and not ESCAPED.fullmatch(token[1:-1]))
        return repr(token[1:-1]) if as_it_stands else token

    return TYPED.sub(written, text) if "\\" in text else text


def as_saved(text: str) -> str:
    """`text` that Python wrote, so that `as_python` takes nothing in it for a path as it is typed."""

    def written(found: re.Match[str]) -> str:
        token = found[0]
        if found["plain"] is None or not BEGINS.match(token[1:]):
            return token
        first = 3 if token[1] == "\\" else 2  # an escaped backslash, or a letter
        return f"{token[0]}\\x{ord(token[1]):02x}{token[first:]}"

    return SAVED.sub(written, text) if "\\" in text else text
