"""Labels of image files: from tables beside them, from sub-folders, or from the class files of a WebDataset."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.core.files import JSON, read_json

from .arrays import check_names
from .regular import printable, reason
from .remarks import remark
from .sources import FileSource

__all__ = ["Classes", "LabelSource", "read_labels"]

LabelSource = Literal["auto", "folders", "none"]
"""Where labels come from. "auto": a table, else sub-folders. "folders": sub-folders, whatever their names. "none"."""

FILE = ("file_name", "filename", "file", "image", "path", "name", "img", "image_path", "image_id", "id")
LABEL = ("label", "class", "category", "target", "class_name", "labels")
"""Columns of tables that hold files and classes; the first that is there counts."""

ROWS = "a file and its label in each row, below the header file_name,label"
LINES = '{"file_name": "a.png", "label": 3} in each line'

SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "eval", "dev"}

Label = int | str


class Classes(NamedTuple):
    """Labels and class names.

    labels: (N,), or None for unlabelled images.
    names: a name per class, or None.
    tables: the files that were read for it.
    """

    labels: NDArray[np.generic] | None = None
    names: Sequence[str] | None = None
    tables: tuple[str, ...] = ()


def read_labels(source: FileSource, images: Sequence[str], others: Sequence[str], how: LabelSource) -> Classes:
    """Labels of `images`.

    others: names of the other files of `source`.

    Raises:
        ValueError: for a table that misses an image, names one that is not there, or gives one two classes; for images
            beside class folders; for folders that look like splits.
    """
    if how == "none":
        return Classes()
    if how == "folders":
        return from_folders(source, images, splits=True)
    used: Classes | None = None
    for table, read in TABLES.items():
        name = nearest(table, others)
        if name is None:
            continue
        if used is not None:
            remark(f"{where(source, name)} is not read: {printable(used.tables[0])} holds the labels")
        else:
            used = from_json(source, name, images) if read is None else from_table(source, name, read, images)
    if used is not None:
        return used
    of_files = from_class_files(source, images, others)
    return from_folders(source, images) if of_files is None else of_files


def nearest(table: str, others: Sequence[str]) -> str | None:
    """The file of this name that lies in the fewest folders."""
    return min((name for name in others if PurePosixPath(name).name == table), key=len, default=None)


def where(source: FileSource, name: str) -> str:
    """Path of a file, for messages. Names in a zip may begin with a slash."""
    return f"{source.path}/{printable(name.lstrip('/'))}"


# ---- folders -----------------------------------------------------------------------------------------------------


def from_folders(source: FileSource, images: Sequence[str], *, splits: bool = False) -> Classes:
    """Classes from the topmost directories in which the paths differ. splits: allow names such as train and val."""
    paths = [PurePosixPath(source.inside(name)).parts for name in images]
    shared = len(PurePosixPath(posixpath.commonpath(["/".join(path[:-1]) for path in paths])).parts)
    tops = [path[shared] if len(path) > shared + 1 else None for path in paths]
    folders = sorted({top for top in tops if top is not None})
    if not folders:
        return Classes()
    if None in tops:
        raise ValueError(
            f"{source.path} holds class folders ({printable(folders[0])}, ...) and images beside them "
            f"({printable(images[tops.index(None)])}, ...): move each of these into a folder, or give labels=none"
        )
    if not splits and len(folders) > 1 and SPLITS.issuperset(folder.lower() for folder in folders):
        first = next((folder for folder in folders if folder.lower().startswith("train")), folders[0])
        one = printable("/".join((*paths[0][:shared], first)))
        fix = f"give the path of one, {source.path}/{one}" if source.path.is_dir() else f"unpack it and give {one}"
        raise ValueError(
            f"{source.path} holds the folders {', '.join(map(printable, folders))}, which look like parts of a set and "
            f"not like classes: {fix}. If they are classes, give labels=folders; to take the images of all without "
            "labels, labels=none"
        )
    ids = {folder: i for i, folder in enumerate(folders)}
    return Classes(np.array([ids[top] for top in tops if top is not None]), folders)


def from_class_files(source: FileSource, images: Sequence[str], others: Sequence[str]) -> Classes | None:
    """Classes of a WebDataset, from a.cls beside a.jpg; None if there are no such files."""
    files = {key(name): name for name in others if name.endswith(".cls")}
    if not files:
        return None
    missing = [name for name in images if key(name) not in files]
    if missing:
        raise ValueError(
            f"{source.path} holds {len(files)} class files (.cls), and {len(missing)} of the {len(images)} images are "
            f"without one{example(missing)}: add them, or give labels=none"
        )
    labels: list[Label] = []
    for name in images:
        with source.open(files[key(name)]) as file:
            labels.append(label_in(file.read(300).decode("utf-8", "replace"), where(source, files[key(name)])))
    return Classes(*numbered(labels), tuple(files.values()))


def key(name: str) -> str:
    """The path up to the first dot of the file's name: what the files of one sample of a WebDataset share."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


# ---- tables ------------------------------------------------------------------------------------------------------


def from_json(source: FileSource, table: str, images: Sequence[str]) -> Classes:
    """Classes from StyleGAN's `dataset.json`: {"labels": [[name, class], ...]}, and optionally "class_names"."""
    try:
        with source.open(table) as file:
            content = read_json(file.read(), table)
        listed, class_names = content.get("labels"), check_names(content.get("class_names"), table)
        if listed is None:
            return Classes(tables=(table,))
        pairs = [(beside(table, name), label) for name, label in listed]
    except Exception as error:  # a damaged zip makes zipfile raise nearly anything
        raise ValueError(
            f'{where(source, table)} should hold {{"labels": [[file, class], ...]}} or null ({reason(error)}): mend '
            "it, or give labels=folders or labels=none"
        ) from error
    labels = matched(pairs, images, where(source, table))
    if not all(type(label) is int for label in labels):
        raise ValueError(f'{where(source, table)}: a class must be a whole number from 0, as in ["a.png", 3]')
    return Classes(np.array(labels), class_names, (table,))


Pairs = list[tuple[str, Label]]
"""Files and their classes."""
Rows = Callable[[str, set[str]], Pairs | None]
"""(text of a table, names of images beside it) -> its rows; None if a column of labels is missing."""


def from_table(source: FileSource, table: str, read: Rows, images: Sequence[str]) -> Classes | None:
    """Classes from the rows of a table, whose names are relative to its own directory; None if it holds no classes."""
    folder = PurePosixPath(table).parent
    neighbours = {name.removeprefix(f"{folder}/") for name in images}
    try:
        with source.open(table) as file:
            content = file.read(JSON + 1)
        if len(content) > JSON:
            raise ValueError(f"it has more than {JSON:,} bytes")
        pairs = read(content.decode("utf-8-sig"), neighbours)
    except Exception as error:  # as above
        form = LINES if table.endswith(".jsonl") else ROWS
        raise ValueError(
            f"{where(source, table)} should hold {form} ({reason(error)}): mend it, rename it if it is something else, "
            "or give labels=folders or labels=none"
        ) from error
    if pairs is None:
        remark(f"{where(source, table)} has no column of labels ({', '.join(LABEL)}), so none are read from it")
        return None
    labels = matched([(beside(table, name), label) for name, label in pairs], images, where(source, table))
    return Classes(*numbered(labels), (table,))


def from_rows(text: str, neighbours: set[str]) -> Pairs | None:
    """Rows of a CSV file, separated by commas, semicolons or tabs. Without a header there are two columns."""
    first = text.partition("\n")[0]
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count)) if row]
    if not rows:
        raise ValueError("it is empty")
    header = [cell.strip().lower() for cell in rows[0]]
    file, label = column(header, FILE), column(header, LABEL)
    if file is None and len(header) == 2 and rows[0][0].strip() in neighbours:
        file, label = 0, 1
    elif file is None:
        raise ValueError(f"its header is {printable(first, 100)}")
    else:
        rows = rows[1:]
    if label is None:
        return None
    short = next((i for i, row in enumerate(rows) if len(row) <= max(file, label)), None)
    if short is not None:
        raise ValueError(f"row {short + 1} below the header has {len(rows[short])} cells")
    return [(row[file].strip(), label_in(row[label], f"row {i + 1}")) for i, row in enumerate(rows)]


def required_rows(text: str, neighbours: set[str]) -> Pairs:
    """`from_rows` of a table that is there for labels alone."""
    pairs = from_rows(text, neighbours)
    if pairs is None:
        raise ValueError(f"it has no column named {', '.join(LABEL)}")
    return pairs


def from_lines(text: str, neighbours: set[str]) -> Pairs | None:  # noqa: ARG001  (neighbours: of tables without a header)
    """Lines of a `metadata.jsonl`: {"file_name": "a.png", "label": 3}."""
    lines = [read_json(line, f"line {i + 1}") for i, line in enumerate(text.splitlines()) if line.strip()]
    named = next((name for name in LABEL if any(name in line for line in lines)), None)
    if named is None:
        return None
    pairs = []
    for i, line in enumerate(lines):
        file, label = line.get("file_name"), line.get(named)
        if not isinstance(file, str) or type(label) not in (int, str):
            raise ValueError(f"line {i + 1} is {printable(json.dumps(line), 100)}")
        pairs.append((file, label))
    return pairs


TABLES: Mapping[str, Rows | None] = {
    "dataset.json": None,
    "labels.csv": required_rows,
    "metadata.jsonl": from_lines,
    "metadata.csv": from_rows,
}
"""Tables of labels: StyleGAN's, a common one, and two of Hugging Face's ImageFolder. The first that is there counts."""


def column(header: Sequence[str], names: Iterable[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def beside(table: str, name: str) -> str:
    return (PurePosixPath(table).parent / name.replace("\\", "/")).as_posix()


def label_in(text: str, place: str) -> Label:
    """A class as a number, if it is one, else as text. Raises ValueError for nothing."""
    text = text.strip()
    if not text:
        raise ValueError(f"{place} holds no label")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else text


def matched(pairs: Pairs, images: Sequence[str], place: str) -> list[Label]:
    """The label of each image. Raises ValueError unless each has exactly one, and each label an image."""
    classes: dict[str, Label] = {}
    for name, label in pairs:
        if name in classes and classes[name] != label:
            raise ValueError(
                f"{place} gives {printable(name)} two classes, {printable(str(classes[name]), 60)} and "
                f"{printable(str(label), 60)}: keep one of the lines"
            )
        classes[name] = label
    missing = [name for name in images if name not in classes]
    absent = sorted(classes.keys() - set(images))
    if missing or absent:
        raise ValueError(
            f"{place} labels {len(classes)} files: {len(missing)} of the {len(images)} images are without a label"
            f"{example(missing)} and {len(absent)} of the labels without an image{example(absent)}"
        )
    return [classes[name] for name in images]


def numbered(labels: Sequence[Label]) -> tuple[NDArray[np.int64], list[str]]:
    """Class ids and names: numbers in their order, text in the alphabet's."""
    numbers = all(isinstance(label, int) for label in labels)
    names = sorted(set(labels)) if numbers else sorted(set(map(str, labels)))
    ids = {str(name): i for i, name in enumerate(names)}
    return np.array([ids[str(label)] for label in labels]), list(ids)


def example(names: Sequence[str]) -> str:
    return f" ({printable(names[0])}, ...)" if names else ""
