"""The user's own data: arrays in an npz file, or a folder of pictures with one sub-folder a class."""

import pathlib
import zipfile
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from meta_rules.errors import UserError
from meta_rules.tasks.sources import pictures as picture_tools
from meta_rules.tasks.sources.base import (
    SPLITS,
    Content,
    Option,
    Part,
    Source,
    SourceInfo,
    check_columns,
    integer_labels,
    picture_content,
    register,
    whole,
)

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")


def open_npz(path):
    """An npz file's arrays, read one by one as they are asked for; pickled objects in it are never unpickled.

    Raises:
      UserError: no such file, or not an npz file.
    """
    try:
        archive = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a readable npz file ({error}); write it with numpy.savez.") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise UserError(f"{path} holds a single array; an npz file with x and y (numpy.savez) is needed.")
    return archive


def npz_array(archive, key, path):
    """One array of an open npz file.

    Raises:
      UserError: it holds pickled objects, or is truncated or corrupted.
    """
    try:
        return archive[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path}: array {key!r} holds pickled objects, which are never loaded; save arrays of numbers."
            ) from error
        raise UserError(f"{path}: array {key!r} cannot be read ({error}); write the file again.") from error


def npz_keys(archive, path):
    """Dict of stored part -> (examples' key, labels' key): "train" and "test", or "all".

    Raises:
      UserError: the names are others.
    """
    keys = set(archive.files)
    if {"x_train", "y_train"} <= keys:
        parts = {"train": ("x_train", "y_train")}
        return parts | ({"test": ("x_test", "y_test")} if {"x_test", "y_test"} <= keys else {})
    if {"x", "y"} <= keys:
        return {"all": ("x", "y")}
    raise UserError(
        f"{path} must hold x_train, y_train, x_test and y_test, or x and y; it holds {', '.join(sorted(keys)) or 'nothing'}."
    )


def cut_parts(has_test, stored="train"):
    """`Part` of every split where validation is cut off training: a tenth, and another for the test if it has none."""
    if has_test:
        return {
            "train": Part(stored, "train", validation=0.1),
            "validation": Part(stored, "validation", validation=0.1),
            "test": Part("test", "test"),
        }
    return {split: Part(stored, split, validation=0.1, test=0.1) for split in SPLITS}


@register("npz")
class Npz(Source):
    """Arrays `x_train, y_train, x_test, y_test`, or `x, y`: pictures `[examples, height, width(, 1 or 3)]` or vectors.

    Vectors of uint8 are read as value / 255. A tenth of each training class, its end, is the validation split.
    """

    usage = "npz:/path/to/file.npz"
    takes_path = True

    def info(self):
        """See `Source`."""
        origin = f"the file {self.path}"
        try:
            archive = open_npz(self.path)
            parts = npz_keys(archive, self.path)
            shape, sizes, values = None, {}, set()
            for stored, (x_key, y_key) in parts.items():
                labels = npz_array(archive, y_key, self.path)
                sizes[stored] = len(labels)
                values |= set(np.unique(labels).tolist())
            with archive.zip.open(f"{next(iter(parts.values()))[0]}.npy") as member:
                major, _ = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                shape = read(member)[0][1:]
        except (UserError, KeyError, ValueError, OSError) as error:
            return SourceInfo(self.name, None, None, dict.fromkeys(SPLITS), origin, False, str(error))
        splits = dict.fromkeys(SPLITS) if "all" in sizes else {"train": None, "validation": None, "test": sizes.get("test")}
        return SourceInfo(self.name, shape if len(shape) != 2 else (*shape, 1), len(values), splits, origin)

    def parts(self):
        """See `Source`."""
        stored = npz_keys(open_npz(self.path), self.path)
        return cut_parts("test" in stored, next(iter(stored)))

    def version(self):
        """See `Source`."""
        stat = pathlib.Path(self.path).stat()
        return [1, stat.st_size, stat.st_mtime_ns]

    def read(self, stored, size, colour, seed):
        """See `Source`."""
        archive = open_npz(self.path)
        keys = npz_keys(archive, self.path)
        labels = {part: npz_array(archive, y_key, self.path) for part, (_, y_key) in keys.items()}
        # One numbering for all parts, whichever classes they hold.
        together, names = integer_labels(np.concatenate([np.atleast_1d(part) for part in labels.values()]), self.name)
        start = sum(len(labels[part]) for part in list(labels)[: list(labels).index(stored)])
        own = together[start : start + len(labels[stored])]
        examples = npz_array(archive, keys[stored][0], self.path)
        if len(examples) != len(own):
            raise UserError(f"{self.name!r}: {len(examples)} examples but {len(own)} labels in {stored}.")
        return array_content(examples, own, names, self.name, size, colour, columns=stored != "test")


def array_content(examples, labels, names, name, size, colour, columns=True):
    """`Content` of an array as a user may save it; see `Npz`.

    Raises:
      UserError: the shape or the values cannot be used.
    """
    if examples.ndim == 2:
        if examples.dtype == np.uint8:
            vectors = examples.astype(np.float32) / 255
        elif np.issubdtype(examples.dtype, np.number) and not np.iscomplexobj(examples):
            vectors = examples.astype(np.float32)
        else:
            raise UserError(f"{name!r}: examples must be numbers, got {examples.dtype}.")
        check_columns(vectors, name, constant=columns)
        return Content(vectors, labels, names)
    if examples.ndim == 3:
        examples = examples[..., None]
    if examples.ndim != 4 or examples.shape[-1] not in (1, 3):
        raise UserError(
            f"{name!r}: examples of shape {examples.shape[1:]} are neither vectors nor pictures; give [features], "
            "[height, width], or [height, width, channels] with 1 or 3 channels."
        )
    return picture_content(picture_tools.as_uint8(examples, name), labels, names, size, colour)


def picture_files(folder):
    """Pictures of a folder with one sub-folder a class: a sorted list of (path, class index), and the class names.

    Raises:
      UserError: no such folder, or no sub-folders with pictures.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise UserError(f"There is no folder {folder}.")
    found, names = [], []
    for sub in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = sorted(path for path in sub.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
        if files:
            found += [(path, len(names)) for path in files]
            names.append(sub.name)
    if not names:
        raise UserError(f"{folder} holds no sub-folders with pictures; put each class's pictures in a sub-folder.")
    return found, tuple(names)


def read_pictures(files, colour=True, resize=None):
    """The pictures of `picture_files` as uint8 `[examples, height, width, 3 or 1]`.

    Args:
      files: list of (path, class index).
      colour: three channels instead of one.
      resize: side that every picture is brought to as it is read; None wants them all of one size.

    Raises:
      UserError: a file cannot be read, or sizes differ.
    """
    out, first = None, None
    for i, (path, _) in enumerate(files):
        try:
            with Image.open(path) as image:
                picture = image.convert("RGB" if colour else "L")
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise UserError(f"{path} is not a readable picture ({error}); remove or replace it.") from error
        if resize:
            picture = picture.resize((resize, resize), Image.Resampling.BILINEAR)
        if out is None:
            first = picture.size
            out = np.empty((len(files), first[1], first[0], 3 if colour else 1), np.uint8)
        if picture.size != first:
            raise UserError(
                f"pictures of mixed sizes: {files[0][0]} is {first[0]}x{first[1]}, {path} is "
                f"{picture.size[0]}x{picture.size[1]}; make them one size, or bring them to one with resize."
            )
        out[i] = np.asarray(picture).reshape(out.shape[1:])
    return out


@register("folder")
class Folder(Source):
    """A folder of pictures, one sub-folder a class, all of one size (or brought to one: `folder:/path?resize=32`).

    With sub-folders named train and test (and perhaps validation), each of these holds the classes of that split.
    """

    usage = "folder:/path/to/folder"
    takes_path = True
    options = {"resize": Option(None, whole(1), "side that pictures of mixed sizes are brought to as they are read")}

    def _roots(self):
        root = pathlib.Path(self.path)
        split = {split: root / split for split in SPLITS if (root / split).is_dir()}
        return split if {"train", "test"} <= split.keys() else {"all": root}

    def info(self):
        """See `Source`."""
        origin = f"the folder {self.path}"
        try:
            roots = self._roots()
            listed = {part: picture_files(root) for part, root in roots.items()}
            files, names = next(iter(listed.values()))
            with Image.open(files[0][0]) as image:
                width, height = image.size
                depth = 1 if image.mode in ("L", "1", "I", "I;16", "F") else 3
        except (UserError, OSError) as error:
            return SourceInfo(self.name, None, None, dict.fromkeys(SPLITS), origin, False, str(error))
        side = self.option["resize"]
        splits = {split: len(listed[split][0]) if split in listed and len(listed) > 2 else None for split in SPLITS}
        return SourceInfo(self.name, (side or height, side or width, depth), len(names), splits, origin)

    def parts(self):
        """See `Source`."""
        roots = self._roots()
        if "validation" in roots:
            return {split: Part(split, split) for split in SPLITS}
        return cut_parts("test" in roots, next(iter(roots)))

    def version(self):
        """See `Source`."""
        stamps = []
        for root in self._roots().values():
            for path, _ in picture_files(root)[0]:
                stat = path.stat()
                stamps.append([str(path), stat.st_size, stat.st_mtime_ns])
        return stamps

    def read(self, stored, size, colour, seed):
        """See `Source`."""
        roots = self._roots()
        files, names = picture_files(roots[stored])
        for part, root in roots.items():
            others = picture_files(root)[1]
            if others != names:
                raise UserError(f"{self.name!r}: {stored} and {part} have different classes; they need the same sub-folders.")
        pictures = read_pictures(files, colour, self.option["resize"])
        labels = np.array([label for _, label in files], np.int32)
        return picture_content(pictures, labels, names, size, colour)
