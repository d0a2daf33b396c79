r"""Backslashes in a config's text: paths of Windows as they are typed, and what a config saves reads back."""

from __future__ import annotations

import re
import time
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from loops import loop_over

from equipoise.config import components, override, to_text
from equipoise.core.grammar import parse
from equipoise.core.nesting import LONGEST
from equipoise.core.quoting import as_python, as_saved, is_windows_path
from equipoise.data import Images
from equipoise.recipes.dcgan import dcgan_digits
from equipoise.weights import SpectralNorm

KNOWN = components()


@loop_over(
    "path",
    [
        r"C:\Users\me\photos",
        r"C:\new\table\x\0",
        r"d:\N{a}\U\x1",
        "C:\\",
        "C:\\photos\\",
        r"C:\Users\O'Brien\new",
        r"C:\photos (old)\new, [2]",
        r"\\server\share\new",
        r"\\?\C:\new",
        r"photos\me\12",
        r"C:\Users\me\\new",
    ],
)
def test_a_path_of_windows_survives(path):
    assert parse(path, KNOWN) == path
    assert parse(f'"{path}"', KNOWN) == path
    assert parse(f'Images(path="{path}", resolution=8)', KNOWN) == Images(path, resolution=8)
    assert parse(f'Few(of=Images(path="{path}"),num=3)', KNOWN).of == Images(path)
    if "'" not in path:
        assert parse(f"['{path}', '{path}']", KNOWN) == (path, path)
    config = replace(dcgan_digits(), data=Images(path))
    assert parse(to_text(config), KNOWN) == config
    assert override(dcgan_digits(), {"data.path": parse(path, KNOWN)}).data == Images(path)


def test_a_directory_of_that_name_is_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / r"C:\Users\me\new").mkdir()
    assert override(dcgan_digits(), {"data": parse(r"C:\Users\me\new", KNOWN)}).data == Images(r"C:\Users\me\new")


@loop_over(
    ("text", "value"),
    [
        (r"'C:\\new'", r"C:\new"),
        (r"'\\\\server\\new'", r"\\server\new"),
        (r"'a\nb\tc'", "a\nb\tc"),
        (r"'\x43:\new'", "C:\new"),
        (r"'\u00e9\U0001f600\101'", "é😀A"),
        (r"'\d+'", r"\d+"),
        (r"'\d+\n'", r"\d+\n"),  # as it stands: Python would warn of \d
        (r"'\x4'", r"\x4"),
        (r"'\U00110000'", r"\U00110000"),
        (r"r'C:\new'", r"C:\new"),
        ("'''a\\nb'''", "a\nb"),
        ("'it\\'s'", "it's"),
        (r"'say \'C:\new\''", "say 'C:\new'"),  # it begins with a word, so \n is a new line
        ("1 # 'C:\\new", 1),
    ],
)
def test_every_other_text_is_read_as_in_python(text, value):
    assert parse(text, KNOWN) == value


def test_what_is_a_path_without_quotes():
    assert all(map(is_windows_path, ["C:\\", "c:/photos (1)", "\\\\server\\a", r"C:\\a"]))
    assert not any(map(is_windows_path, ["C:", "C:a", "photos\\a", "\\a", "1:\\a", "ab:\\", ""]))


words = st.text("aCZ:\\'\"\n\tnxU0{N}?/é\0 #", max_size=12) | st.text(max_size=6)
starts = st.sampled_from(["", "C:", "C:\\", "C:\n", "\\\\a\\", "\\a\n", "\\\\", "Z:\t"])
strings = st.builds(lambda start, rest: start + rest, starts, words).filter(
    lambda text: "\0" not in text and not re.search("[\ud800-\udfff]", text)
)


@settings(max_examples=500)
@given(strings, st.lists(strings, max_size=2))
def test_what_is_saved_reads_back(path, skip):
    config = replace(dcgan_digits(), data=Images(path), d_normalizer=SpectralNorm(skip=tuple(skip)))
    assert parse(to_text(config), KNOWN) == config
    assert parse(as_saved(repr(path)), KNOWN) == path


def test_only_what_would_be_misread_is_saved_in_another_way():
    for text in ("C:\\Users", "a\nb", "\\\\server\\share", "it's", "\\d", 'say "C:\n"'):
        assert as_saved(repr(text)) == repr(text)
    assert as_saved(repr("C:\new")) == r"'\x43:\new'"
    assert as_saved(repr("\\a\nb")) == r"'\x5ca\nb'"


def test_text_without_a_backslash_is_left_as_it_is():
    for text in ('Images(path="C:/a")', "'''", "'a", "f'{x}'"):
        assert as_python(text) == as_saved(text) == text


@loop_over(
    "piece",
    ['"C:\\', "'C:\\\"", "\\\\a\\'", "'\\\\a\"", "'\\N", "\\", "'''\\", '"x\\\n\\', "'\\000", "'" + "\\\\", 'x"C:\\'],
)
def test_hostile_text_takes_no_time(piece):
    text = piece * (LONGEST // len(piece))
    start = time.perf_counter()
    as_python(text)
    as_saved(text)
    as_python(f'"{text}\\q"')
    assert time.perf_counter() - start < 2
