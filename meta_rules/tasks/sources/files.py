"""The user's own data: arrays in an npz file, or a folder of pictures with one sub-folder a class."""

import pathlib

import numpy as np
from PIL import Image

from meta_rules.errors import UserError
from meta_rules.tasks.sources import pictures as picture_tools
from meta_rules.tasks.sources import readers
from meta_rules.tasks.sources.base import (
    Content,
    Option,
    Source,
    SourceInfo,
    picture_content,
    register,
    whole,
)
from meta_rules.tasks.sources.checks import check_columns
from meta_rules.tasks.sources.splits import SPLITS, cut, cut_parts


def _sizes(parts, labels):
    return {split: len(cut(labels[part.stored], part)) for split, part in parts.items()}


@register("npz")
class Npz(Source):
    """Arrays `x_train, y_train, x_test, y_test`, or `x, y`.

    Examples are pictures `[examples, height, width]` or `[examples, height, width, 1 or 3]`, or vectors.
    Vectors of uint8 are read as value / 255. Without a validation split it is the end of each training
    class, a tenth.
    """

    usage = "npz:/path/to/file.npz"
    takes_path = True

    def info(self):
        """See `Source`."""
        origin = f"the file {self.path}"
        try:
            archive = readers.Npz(self.path)
            labels, names = archive.labels()
            shape = archive.shape()
        except UserError as error:
            return SourceInfo(self.name, None, None, dict.fromkeys(SPLITS), origin, False, str(error))
        shape = (*shape, 1) if len(shape) == 2 else shape
        return SourceInfo(self.name, shape, len(names), _sizes(cut_parts(labels), labels), origin)

    def parts(self):
        """See `Source`."""
        return cut_parts(readers.Npz(self.path).keys)

    def version(self):
        """See `Source`."""
        path = pathlib.Path(self.path)
        stat = path.stat()
        return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]

    def read(self, stored, size, colour, seed):
        """See `Source`."""
        archive = readers.Npz(self.path)
        labels, names = archive.labels()
        examples = archive.examples(stored)
        if examples.ndim == 2:
            # A column may well be constant in a small test part; what counts is training.
            return Content(_vectors(examples, self.name, stored != "test"), labels[stored], names)
        pictures = picture_array(examples, self.name)
        return picture_content(pictures, labels[stored], names, size, colour)


def _vectors(examples, name, refuse_constant):
    if not np.issubdtype(examples.dtype, np.integer) and not np.issubdtype(examples.dtype, np.floating):
        raise UserError(f"{name!r}: examples must be numbers, got {examples.dtype}.")
    vectors = examples.astype(np.float32)
    if examples.dtype == np.uint8:
        vectors /= 255
    check_columns(vectors, name, constant=refuse_constant)
    return vectors


def picture_array(examples, name):
    """An array as a user may save pictures, as uint8 `[examples, height, width, 1 or 3]`.

    Raises:
      UserError: the shape or the values are no pictures'.
    """
    if examples.ndim == 3:
        examples = examples[..., None]
    if examples.ndim != 4 or examples.shape[-1] not in (1, 3):
        raise UserError(
            f"{name!r}: examples of shape {examples.shape[1:]} are neither vectors nor pictures; give "
            "[features], [height, width], or [height, width, channels] with 1 or 3 channels."
        )
    return picture_tools.as_uint8(examples, name)


@register("folder")
class Folder(Source):
    """A folder of pictures of one size (or brought to one: `folder:/path?resize=32`), a sub-folder a class.

    With sub-folders named train and test (and perhaps validation), each of these holds the classes of that
    split.
    """

    usage = "folder:/path/to/folder"
    takes_path = True
    options = {
        "resize": Option(None, whole(1), "side that pictures of mixed sizes are brought to as they are read")
    }

    def info(self):
        """See `Source`."""
        origin = f"the folder {self.path}"
        try:
            listed = readers.picture_folders(self.path)
            paths, _, names = next(iter(listed.values()))
            with Image.open(paths[0]) as image:
                (width, height), depth = image.size, 1 if image.mode in ("1", "L", "LA") else 3
        except (UserError, OSError) as error:
            return SourceInfo(self.name, None, None, dict.fromkeys(SPLITS), origin, False, str(error))
        side = self.option["resize"]
        sizes = _sizes(cut_parts(listed), {part: labels for part, (_, labels, _) in listed.items()})
        return SourceInfo(self.name, (side or height, side or width, depth), len(names), sizes, origin)

    def parts(self):
        """See `Source`."""
        return cut_parts(readers.picture_folders(self.path))

    def version(self):
        """See `Source`."""
        stamps = []
        for paths, _, _ in readers.picture_folders(self.path).values():
            for path in paths:
                stat = path.stat()
                stamps.append([str(path.resolve()), stat.st_size, stat.st_mtime_ns])
        return stamps

    def read(self, stored, size, colour, seed):
        """See `Source`."""
        paths, labels, names = readers.picture_folders(self.path)[stored]
        pictures = readers.read_pictures(paths, self.option["resize"])
        return picture_content(pictures, labels, names, size, colour)
