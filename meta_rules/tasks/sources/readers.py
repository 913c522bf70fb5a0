"""Reading the user's files: npz arrays, IDX files, folders of pictures. Nothing is ever unpickled.

Each reader gives the stored parts ("train" and "test", or "all"), and class names that hold for all parts.
"""

import gzip
import math
import pathlib
import re
import zipfile
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from meta_rules.errors import UserError
from meta_rules.tasks.sources.checks import integer_labels
from meta_rules.tasks.sources.splits import SPLITS

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
_IDX_FILE = re.compile(r"^(train|t10k|test)[-_.]?(images|labels)[-_.]idx[13][-_.]ubyte(\.gz)?$")
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def number_jointly(labels, name):
    """Labels of all parts, numbered alike: dict of part -> int32 `[examples]`, and the class names.

    Raises:
      UserError: not integers, or not one an example.
    """
    checked = {part: np.asarray(values) for part, values in labels.items()}
    for values in checked.values():
        integer_labels(values, name)
    joined = [values.reshape(-1) for values in checked.values()]
    indices, names = integer_labels(np.concatenate(joined), name)
    ends = np.cumsum([len(values) for values in joined])[:-1]
    return dict(zip(checked, np.split(indices, ends), strict=True)), names


class Npz:
    """An npz file with `x_train, y_train` (and `x_test, y_test`), or `x, y`; read as it is asked for.

    Raises:
      UserError: no such file, not an npz file, or arrays of other names.
    """

    def __init__(self, path):
        self.path = path
        try:
            self._archive = np.load(path, allow_pickle=False)
        except FileNotFoundError as error:
            raise UserError(f"There is no file {path}.") from error
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} is not a readable npz file ({error}); write it with numpy.savez."
            ) from error
        if not isinstance(self._archive, np.lib.npyio.NpzFile):
            raise UserError(f"{path} holds a single array; write x and y into an npz file with numpy.savez.")
        keys = set(self._archive.files)
        if {"x_train", "y_train"} <= keys:
            self.keys = {"train": ("x_train", "y_train")}
            if {"x_test", "y_test"} <= keys:
                self.keys["test"] = ("x_test", "y_test")
        elif {"x", "y"} <= keys:
            self.keys = {"all": ("x", "y")}
        else:
            raise UserError(
                f"{path} must hold x_train, y_train, x_test and y_test, or x and y; "
                f"it holds {', '.join(sorted(keys)) or 'nothing'}."
            )

    def _array(self, key):
        try:
            return self._archive[key]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            if "allow_pickle" in str(error):
                raise UserError(
                    f"{self.path}: array {key!r} holds pickled objects, which are never loaded; "
                    "save arrays of numbers."
                ) from error
            raise UserError(
                f"{self.path}: array {key!r} cannot be read ({error}); write the file again."
            ) from error

    def labels(self):
        """Labels of every part, and the class names; see `number_jointly`."""
        return number_jointly(
            {part: self._array(key) for part, (_, key) in self.keys.items()}, str(self.path)
        )

    def examples(self, part):
        """The examples of a part as they are stored.

        Raises:
          UserError: pickled objects, a damaged file, or another number of examples than of labels.
        """
        x_key, y_key = self.keys[part]
        examples = self._array(x_key)
        labels = self._array(y_key)
        if not examples.ndim or len(examples) != len(labels):
            raise UserError(
                f"{self.path}: {x_key} has shape {examples.shape} but {y_key} has {len(labels)} labels."
            )
        return examples

    def shape(self):
        """The shape of one example, from the first array's header alone."""
        key = next(iter(self.keys.values()))[0]
        try:
            with self._archive.zip.open(f"{key}.npy") as member:
                version = np.lib.format.read_magic(member)
                formats = np.lib.format
                old = version == (1, 0)
                header = formats.read_array_header_1_0 if old else formats.read_array_header_2_0
                return header(member)[0][1:]
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{self.path}: array {key!r} cannot be read ({error}); write the file again."
            ) from error


def picture_files(folder):
    """Pictures of a folder with one sub-folder a class.

    Returns:
      A list of paths sorted by class and name, int32 labels `[pictures]`, and the class names.

    Raises:
      UserError: no such folder, or no sub-folders with pictures.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise UserError(f"There is no folder {folder}.")
    paths, labels, names = [], [], []
    for sub in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = sorted(path for path in sub.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
        if files:
            paths += files
            labels += [len(names)] * len(files)
            names.append(sub.name)
    if not names:
        raise UserError(
            f"{folder} holds no sub-folders with pictures; put the pictures of each class in a sub-folder."
        )
    return paths, np.array(labels, np.int32), tuple(names)


def picture_folders(folder):
    """The parts of a folder of pictures: dict of part -> what `picture_files` gives.

    With sub-folders train and test (and perhaps validation), these are the parts; else there is one, "all".

    Raises:
      UserError: as `picture_files`; or the parts have different classes.
    """
    root = pathlib.Path(folder)
    split = {name: root / name for name in SPLITS if (root / name).is_dir()}
    parts = {
        part: picture_files(path)
        for part, path in (split if {"train", "test"} <= split.keys() else {"all": root}).items()
    }
    names = {part: listed[2] for part, listed in parts.items()}
    if len(set(names.values())) > 1:
        raise UserError(f"{folder}: {' and '.join(names)} must have the same sub-folders, one a class.")
    return parts


def read_pictures(paths, resize=None):
    """Pictures as uint8 `[pictures, height, width, 1 or 3]`: one channel where all are grey.

    Args:
      paths: of the files.
      resize: side that every picture is brought to as it is read; None wants them all of one size.

    Raises:
      UserError: a file cannot be read, or sizes differ.
    """
    out, size = None, None
    colour = False
    for i, path in enumerate(paths):
        try:
            with Image.open(path) as image:
                grey = image.mode in ("1", "L", "LA")
                picture = image.convert("L" if grey else "RGB")
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise UserError(f"{path} is not a readable picture ({error}); remove or replace it.") from error
        if resize:
            picture = picture.resize((resize, resize), Image.Resampling.BILINEAR)
        if out is None:
            size = picture.size
            out = np.empty((len(paths), size[1], size[0], 3), np.uint8)
        if picture.size != size:
            raise UserError(
                f"pictures of mixed sizes: {paths[0]} is {size[0]}x{size[1]}, {path} is {picture.size[0]}x"
                f"{picture.size[1]}; make them one size, or ask for all to be brought to one (resize=32)."
            )
        colour |= not grey
        out[i] = np.asarray(picture).reshape(size[1], size[0], -1)
    return out if colour else np.ascontiguousarray(out[..., :1])


def idx_files(folder):
    """IDX files of a folder, named as MNIST's: dict of part -> (pictures' path, labels' path); may be empty.

    Raises:
      UserError: pictures without labels, or labels without pictures.
    """
    found = {}
    for path in sorted(pathlib.Path(folder).iterdir()):
        match = _IDX_FILE.match(path.name)
        if match:
            part = "train" if match[1] == "train" else "test"
            # A packed file beside the same one unpacked: the last in the order of names counts.
            found.setdefault(part, {})[match[2]] = path
    for part, pair in found.items():
        if len(pair) < 2:
            lacking = "labels" if "images" in pair else "images"
            raise UserError(f"{folder}: the IDX file of the {part} {lacking} is missing.")
    return {part: (pair["images"], pair["labels"]) for part, pair in found.items()}


def read_idx(path):
    """The array of an IDX file, packed with gzip or not (the format of LeCun's MNIST page).

    Raises:
      UserError: no such file, not IDX, or truncated.
    """
    opened = gzip.open if str(path).endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch it again.") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES or len(data) < 4 + 4 * data[3]:
        raise UserError(f"{path} is not an IDX file.")
    kind = np.dtype(_IDX_TYPES[data[2]])
    shape = tuple(int(length) for length in np.frombuffer(data, ">u4", data[3], offset=4))
    start = 4 + 4 * len(shape)
    if len(data) - start != math.prod(shape) * kind.itemsize:
        raise UserError(f"{path} is truncated or damaged: its header says {shape}; fetch it again.")
    return np.frombuffer(data, kind, offset=start).reshape(shape)
