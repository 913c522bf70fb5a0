"""Rows to learn from as users have them: an npy, npz or CSV file, or any named source of data. Nothing is ever unpickled."""

import csv
import os
import zipfile
from typing import NamedTuple

import numpy as np

from meta_rules.errors import UserError


class Rows(NamedTuple):
    """One part of the data.

    Attributes:
      examples: float32 `[rows, columns]`; uint8 pictures as value / 255.
      labels: `[rows]` or None; only carried along.
    """

    examples: np.ndarray
    labels: np.ndarray | None


def read(name, label=None):
    """The parts of some data: dict of part ("" if there is but one) -> `Rows`; the first is the one to learn from.

    Args:
      name: path of an .npy, .npz or .csv file, or the name of a source such as `digits`, `fashion_mnist`, `npz:/path`.
      label: name of the CSV column, or of the array in an npz file, that holds labels.

    Raises:
      UserError: no such file or source, or no table of numbers in it.
    """
    ending = os.path.splitext(name)[1].lower()
    if ":" in name or ending not in (".npy", ".npz", ".csv"):
        return _source(name)
    if not os.path.isfile(name):
        raise UserError(f"There is no file {name}.")
    found = {".npy": _npy, ".npz": _npz, ".csv": _csv}[ending](name, label)
    return {part: Rows(_table(rows.examples, name), rows.labels) for part, rows in found.items()}


def _source(name):
    from meta_rules.tasks import sources

    found = {}
    for split in ("train", "test"):
        data = sources.load(name, split)
        found[split] = Rows(_table(data.examples, name), data.labels)
    return found


def _table(examples, name):
    """Examples of any shape as rows of numbers."""
    if examples.ndim < 2 or examples.size == 0 or examples.dtype.kind not in "uifb":
        raise UserError(
            f"{name}: rows of numbers wanted, [rows, columns] or [rows, ...]; got {examples.dtype} of shape {examples.shape}."
        )
    rows = examples.reshape(len(examples), -1).astype(np.float32)
    return rows / 255.0 if examples.dtype == np.uint8 else rows


def _load(path):
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read as numbers ({type(error).__name__}); pickles are never loaded."
        ) from error


def _npy(path, label):
    if label:
        raise UserError("An npy file holds one array; there is no label to name.")
    found = _load(path)
    if not isinstance(found, np.ndarray):
        raise UserError(f"{path} is an archive: name it .npz.")
    return {"": Rows(found, None)}


def _npz(path, label):
    archive = _load(path)
    if isinstance(archive, np.ndarray):
        raise UserError(f"{path} holds a single array: name it .npy.")
    try:
        with archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read as numbers ({type(error).__name__}); pickles are never loaded."
        ) from error
    if "x_train" in arrays:
        parts = {part: (f"x_{part}", f"y_{part}") for part in ("train", "test") if f"x_{part}" in arrays}
    else:
        labels = label or "y"
        others = [key for key in arrays if key != labels]
        if "x" not in arrays and len(others) != 1:
            raise UserError(
                f"{path} must hold x (and y), x_train and x_test, or one array; it holds "
                f"{', '.join(sorted(arrays)) or 'nothing'}."
            )
        parts = {"": ("x" if "x" in arrays else others[0], labels)}
    if label and label not in arrays:
        raise UserError(f"{path} has no array {label!r}; it holds {', '.join(sorted(arrays))}.")
    found = {}
    for part, (rows, labels) in parts.items():
        found[part] = Rows(arrays[rows], arrays.get(labels))
        if labels in arrays and len(arrays[labels]) != len(arrays[rows]):
            raise UserError(f"{path}: {rows} and {labels} differ in length.")
    return found


def _csv(path, label):
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}.") from error
    names = None
    if lines and not all(_is_number(cell) for cell in lines[0]):
        names, lines = [cell.strip() for cell in lines[0]], lines[1:]
    if not lines or len({len(line) for line in lines}) > 1:
        raise UserError(f"{path} must hold lines of numbers of one length, under a line of names or none.")
    labels = None
    if label is not None:
        if names is None or label not in names:
            raise UserError(
                f"{path} has no column {label!r}; its first line names {', '.join(names or ['none'])}."
            )
        place = names.index(label)
        labels = np.array([line.pop(place) for line in lines])
    try:
        return {"": Rows(np.array(lines, np.float64), labels)}
    except ValueError as error:
        raise UserError(
            f"{path}: {error}; every column must be of numbers, or be named with --label."
        ) from error


def _is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True
