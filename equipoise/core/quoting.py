r"""Backslashes in quoted texts: Windows paths as users type them, and Python's escapes as a config is saved.

Users type ``path="C:\Users\me\new"``, where Python reads ``\U`` as an error and ``\n`` as a new line. A quoted text is
taken literally if it begins like a Windows path: a drive and one backslash (``C:\``), or a server and one
(``\\server\``). It is also taken literally if Python would refuse an escape in it. Other texts follow Python's rules.
"""

from __future__ import annotations

import re

__all__ = ["as_python", "as_saved", "is_windows_path"]

WINDOWS = r"(?:[A-Za-z]:\\(?!\\)|\\\\[^\\\"'\n]+\\(?!\\))"
"""The beginning of a Windows path as typed. Python's `repr` of a path doubles each backslash."""

BEFORE = r"""
      \#[^\n]*
    | \w* (?: '''(?:[^\\]|\\.)*?(?:'''|\Z) | \"\"\"(?:[^\\]|\\.)*?(?:\"\"\"|\Z) )
    | \w+ (?: '(?:[^'\\\n]|\\.)*'? | "(?:[^"\\\n]|\\.)*"? )?
"""
"""Tokens to leave unchanged: comments, triple-quoted texts, texts with a prefix, words."""

PLAIN = r"""(?P<plain> '(?:[^'\\\n]|\\.)*+' | "(?:[^"\\\n]|\\.)*+" ) | '(?:[^'\\\n]|\\.)*+ | "(?:[^"\\\n]|\\.)*+"""
"""A quoted text, or the beginning of one that never ends. The latter is left unchanged too."""
PATH = rf"""(?P<path> '{WINDOWS}[^'\n]*' | "{WINDOWS}[^"\n]*" )"""
"""A quoted Windows path. A backslash in it escapes nothing, not even the closing quote."""

TYPED = re.compile(rf"{BEFORE} | {PATH} | {PLAIN}", re.VERBOSE | re.DOTALL)
SAVED = re.compile(rf"{BEFORE} | {PLAIN}", re.VERBOSE | re.DOTALL)
BEGINS = re.compile(WINDOWS)
ESCAPED = re.compile(
    r"""(?: [^\\] | \\(?: [\\'"abfnrtv\n] | [0-3]?[0-7]{1,2} | x[0-9a-fA-F]{2} | u[0-9a-fA-F]{4}
                        | U(?:0010|000[0-9a-fA-F])[0-9a-fA-F]{4} ) )*+""",
    re.VERBOSE,
)
"""Text whose escapes Python all accepts without a warning. Named characters (``\\N{...}``) do not match."""


def is_windows_path(text: str) -> bool:
    r"""Whether an unquoted `text` begins with ``C:\``, ``C:/`` or ``\\server``. No other config value does."""
    return re.match(r"[A-Za-z]:[\\/]|\\\\", text) is not None


def as_python(text: str) -> str:
    """Rewrite the quoted texts in `text` so that Python reads what the user typed."""

    def written(match: re.Match[str]) -> str:
        token = match[0]
        literal = match["path"] or (match["plain"] and not ESCAPED.fullmatch(token[1:-1]))
        return repr(token[1:-1]) if literal else token

    return TYPED.sub(written, text) if "\\" in text else text


def as_saved(text: str) -> str:
    """Escape text that Python wrote, so that `as_python` mistakes nothing in it for a typed path."""

    def written(match: re.Match[str]) -> str:
        token = match[0]
        if match["plain"] is None or not BEGINS.match(token[1:]):
            return token
        first = 3 if token[1] == "\\" else 2  # an escaped backslash, or a letter
        return f"{token[0]}\\x{ord(token[1]):02x}{token[first:]}"

    return SAVED.sub(written, text) if "\\" in text else text
