"""Limits on a config's text, checked before Python's parser: long or deep text would end that in a MemoryError."""

from __future__ import annotations

import re

__all__ = ["DEEPEST", "LONGEST", "MOST", "check_text", "shown"]

LONGEST = 100_000
"""Most characters of a text."""
MOST = 10_000
"""Most words, numbers, quoted texts and signs of a text."""
DEEPEST = 100
"""Deepest nesting. Each bracket, operator or attribute is one level deeper than the token before."""
DIGITS = 1000
"""Most characters of a number."""
FORMATTED = {"f", "fr", "rf", "t", "tr", "rt"}
"""Prefixes of strings that contain expressions. A config may not use them."""

TOKEN = re.compile(
    r"""
      \#[^\n]*
    | (?P<prefix>\w*) (?: '''(?:[^\\]|\\.)*?(?:'''|\Z) | \"\"\"(?:[^\\]|\\.)*?(?:\"\"\"|\Z)
                        | '(?:[^'\\\n]|\\.)*'? | "(?:[^"\\\n]|\\.)*"? )
    | (?P<open>[(\[{]) | (?P<close>[)\]}]) | (?P<comma>,) | (?P<word>\w+) | [^\w\s]
    """,
    re.VERBOSE | re.DOTALL,
)
"""Every Python token, or two of them as one. An unterminated string takes the rest of the text, as in Python."""


def check_text(text: str) -> None:
    """Raise ValueError unless Python's parser reads `text` in bounded time, memory and depth."""
    if len(text) > LONGEST:
        raise ValueError(f"cannot read {shown(text)}: expected at most {LONGEST} characters")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"cannot read {shown(text)}: it holds bytes that are not text in UTF-8")
    deep, outside = 0, [0]  # the depth here, and where each open bracket began
    for count, token in enumerate(TOKEN.finditer(text)):
        deep += 1
        match token.lastgroup:
            case "open":
                outside.append(deep)
            case "close":
                deep = outside.pop() if len(outside) > 1 else deep
            case "comma":
                deep = outside[-1]
            case "word" if token["word"] == "lambda":  # commas between its parameters do not reset the depth
                outside.append(deep)
            case "word" if token["word"][0].isdigit() and len(token["word"]) > DIGITS:
                raise ValueError(f"cannot read {shown(text)}: expected numbers of at most {DIGITS} digits")
            case "prefix" if token["prefix"].lower() in FORMATTED:
                raise ValueError(f"cannot read {shown(text)}: expected a literal or Component(key=value, ...)")
        if deep > DEEPEST:
            raise ValueError(
                f"cannot read {shown(text)}: expected at most {DEEPEST} brackets, words and signs inside one another. "
                "Put a text in quotes"
            )
        if count >= MOST:
            raise ValueError(f"cannot read {shown(text)}: expected at most {MOST} words, numbers and signs")


def shown(value: object, most: int = 500) -> str:
    """The `repr` of `value` in a message, cut to `most` characters."""
    text = repr(value if not isinstance(value, str) else value[:most])
    length = len(value) if isinstance(value, str) else len(text)
    return text if length <= most else f"{text[:most]}... ({length} characters)"
