"""Contact sheets: a data set at a glance, as one picture."""

import os
import pathlib
import tempfile

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from meta_rules.errors import UserError

_CELL, _GAP, _TITLE, _LETTER = 40, 4, 170, 13


def rows_by_class(dataset, classes=16, each=16):
    """Rows for `sheet`: one a class, a few examples of each, evenly picked from the whole data set.

    Args:
      dataset: a `Dataset`.
      classes, each: the most rows, and the most examples in a row.
    """
    present = np.unique(dataset.labels)
    chosen = present[np.unique(np.linspace(0, len(present) - 1, min(classes, len(present))).astype(int))]
    return [
        (dataset.class_names[label], _evenly(np.flatnonzero(dataset.labels == label), dataset, each))
        for label in chosen
    ]


def row_of(dataset, each=16):
    """One row for `sheet`: the data set's name and examples of different classes."""
    labels, first = np.unique(dataset.labels, return_index=True)
    rest = np.setdiff1d(np.arange(len(dataset.labels)), first)
    order = np.concatenate([_pick(first, each), rest])[:each] if len(labels) < each else _pick(first, each)
    return dataset.name, dataset.examples[order]


def _pick(indices, count):
    return indices[np.unique(np.linspace(0, len(indices) - 1, min(count, len(indices))).astype(int))]


def _evenly(indices, dataset, count):
    return dataset.examples[_pick(indices, count)]


def sheet(rows):
    """A picture of rows of examples, each with its title on the left.

    Args:
      rows: list of (title, examples), where examples are uint8 `[examples, height, width, 1 or 3]`, or
        float32 `[examples, features]`, which are shown as squares of grey, feature by feature, scaled within
        the row.

    Returns:
      A `PIL.Image` in RGB.
    """
    across = max(len(examples) for _, examples in rows)
    step = _CELL + _GAP
    canvas = Image.new("RGB", (_TITLE + across * step + _GAP, len(rows) * step + _GAP), (24, 28, 34))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(_LETTER)
    for line, (title, examples) in enumerate(rows):
        top = _GAP + line * step
        draw.text(
            (_GAP, top + _CELL // 2), _shortened(title, font), font=font, fill=(220, 224, 230), anchor="lm"
        )
        for column, picture in enumerate(_pictures(examples)):
            image = Image.fromarray(picture).resize((_CELL, _CELL), Image.Resampling.NEAREST)
            canvas.paste(image, (_TITLE + column * step, top))
    return canvas


def _shortened(title, font):
    if font.getlength(title) <= _TITLE - 2 * _GAP:
        return title
    while title and font.getlength(title + "...") > _TITLE - 2 * _GAP:
        title = title[:-1]
    return title + "..."


def _pictures(examples):
    """uint8 `[examples, height, width, 3]` of pictures or vectors."""
    if examples.ndim == 2:
        side = int(np.ceil(np.sqrt(examples.shape[1])))
        low, high = examples.min(), examples.max()
        scaled = (examples - low) / max(high - low, 1e-12) * 255
        padded = np.zeros((len(examples), side * side), np.uint8)
        padded[:, : examples.shape[1]] = np.rint(scaled)
        examples = padded.reshape(-1, side, side, 1)
    return np.repeat(examples, 3, axis=-1) if examples.shape[-1] == 1 else examples


def write(image, path):
    """Writes a picture whole or not at all.

    Raises:
      UserError: the folder does not exist or cannot be written, or the name's ending is no picture's.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() not in Image.registered_extensions():
        raise UserError(f"{path}: write a name that ends in .png.")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=path.suffix)
    except OSError as error:
        raise UserError(f"Cannot write {path} ({error.strerror}); name a folder that exists.") from error
    try:
        os.close(handle)
        image.save(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"Cannot write {path} ({error}).") from error
    finally:
        pathlib.Path(temporary).unlink(missing_ok=True)
