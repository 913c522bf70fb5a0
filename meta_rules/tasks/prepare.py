"""Turns the user's pictures into a TensorFlow Datasets directory, which `tfds.load` reads without a network.

Input may be an npz file, a folder of IDX files as MNIST comes in, or a folder with one sub-folder of
pictures a class. The set is built in a temporary folder and moved to its place when it is whole.
"""

import contextlib
import importlib.util
import io
import os
import pathlib
import re
import shutil
import tempfile

import numpy as np

from meta_rules.errors import UserError
from meta_rules.tasks.sources import readers, tfds_builder
from meta_rules.tasks.sources.files import picture_array

_NAME = re.compile(r"^[a-z][a-z0-9_]*(/[\w.\-]+)?$")
_VERSION = re.compile(r"^\d+\.\d+\.\d+$")


def read_input(path, resize=None):
    """Pictures and labels of an npz file, of IDX files, or of a folder of pictures.

    Args:
      path: the file or folder.
      resize: side to bring the pictures of a folder to; None wants them all of one size.

    Returns:
      Dict of split -> (uint8 `[examples, height, width, channels]`, int32 labels `[examples]`), and the
      class names. What is not divided is all in "train".

    Raises:
      UserError: the input cannot be used; the line says why.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise UserError(f"There is no file or folder {path}.")
    if path.is_file():
        archive = readers.Npz(path)
        labels, names = archive.labels()
        examples = {part: archive.examples(part) for part in labels}
    elif readers.idx_files(path):
        files = readers.idx_files(path)
        if "train" not in files:
            raise UserError(f"{path} holds no IDX files of training pictures (train-images-idx3-ubyte).")
        labels, names = readers.number_jointly(
            {part: readers.read_idx(pair[1]) for part, pair in files.items()}, str(path)
        )
        examples = {part: readers.read_idx(pair[0]) for part, pair in files.items()}
    else:
        folders = readers.picture_folders(path)
        labels = {part: listed[1] for part, listed in folders.items()}
        names = next(iter(folders.values()))[2]
        examples = {part: readers.read_pictures(listed[0], resize) for part, listed in folders.items()}
    if len(names) < 2:
        raise UserError(f"{path} has {len(names)} class; a data set needs at least two.")
    splits = {}
    for part, pictures in examples.items():
        if len(pictures) != len(labels[part]):
            raise UserError(f"{path}: {len(pictures)} pictures but {len(labels[part])} labels in {part}.")
        if not len(pictures):
            raise UserError(f"{path}: the part {part} is empty.")
        if pictures.ndim == 2:
            raise UserError(f"{path} holds vectors, not pictures; use it as it is, by the name npz:{path}.")
        split = "train" if part == "all" else part
        splits[split] = (picture_array(pictures, str(path)), labels[part])
    shapes = {pictures.shape[1:] for pictures, _ in splits.values()}
    if len(shapes) > 1:
        raise UserError(
            f"{path}: the splits have pictures of different shapes, {' and '.join(map(str, shapes))}."
        )
    return splits, names


def prepare(source, name, data_dir, version=None, overwrite=False, resize=None):
    """Writes a prepared set.

    Args:
      source: path of the input; see `read_input`.
      name: as `tfds.load` will be given it: `my_set`, or `my_set/config`. A name that TensorFlow Datasets
        knows (`mnist`) wants pictures and classes like that set's.
      data_dir: folder of prepared sets; made if it is not there.
      version: as 1.0.0; None takes the version that the installed library gives the name, or 1.0.0.
      overwrite: replace a set that is there.
      resize: see `read_input`.

    Returns:
      The folder that was written, and dict of split -> number of examples.

    Raises:
      UserError: the input, the name or the version cannot be used, or there is such a set; nothing is
      written then.
    """
    if not _NAME.match(name):
        raise UserError(
            f"{name!r} cannot name a data set; use small letters, digits and underscores, as my_set."
        )
    if version is not None and not _VERSION.match(version):
        raise UserError(f"The version {version!r} must be three numbers, as 1.0.0.")
    splits, names = read_input(source, resize)
    known = _known(name)
    if known is not None:
        _must_fit(name, known, next(iter(splits.values()))[0].shape[1:], names)
    version = version or (str(known.version) if known is not None else "1.0.0")
    if "://" in str(data_dir):
        raise UserError(f"{data_dir}: prepare into a local folder and copy that to the bucket.")
    root = pathlib.Path(data_dir).expanduser()
    target = root / name / version
    if target.exists() and not overwrite:
        raise UserError(f"{target} is there; remove it, or add --overwrite.")
    # TensorFlow Datasets 4.9.10 does not require it, and uses it.
    if importlib.util.find_spec("importlib_resources") is None:
        raise UserError("tensorflow_datasets needs a package to write: pip install importlib_resources.")
    try:
        root.mkdir(parents=True, exist_ok=True)
        building = pathlib.Path(tempfile.mkdtemp(dir=root, prefix=".preparing-"))
    except OSError as error:
        raise UserError(f"Cannot write to {root} ({error.strerror}); name another folder.") from error
    try:
        _write(building, name, version, splits, names, source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            os.replace(target, building / "replaced")
        os.replace(building / name / version, target)
    except OSError as error:
        raise UserError(f"Cannot write {target} ({error}).") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target, {split: len(labels) for split, (_, labels) in splits.items()}


def _known(name):
    """The builder that the installed library has for a name, or None."""
    import tensorflow_datasets as tfds

    try:
        tfds.builder_cls(name.partition("/")[0])
    except tfds.core.DatasetNotFoundError:
        return None
    with tempfile.TemporaryDirectory() as nowhere:
        return tfds_builder.open_builder(name, nowhere)


def _must_fit(name, known, shape, names):
    import tensorflow_datasets as tfds

    features = known.info.features
    found = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    picture, label = found.get("image"), found.get("label")
    if (
        not isinstance(picture, tfds.features.Image)
        or not isinstance(label, tfds.features.ClassLabel)
        or len(found) > 2
    ):
        raise UserError(
            f"TensorFlow Datasets knows {name!r} as something else than labelled pictures; "
            "choose another name."
        )
    fits = all(own in (None, given) for own, given in zip(picture.shape, shape, strict=True))
    if not fits or label.num_classes != len(names):
        raise UserError(
            f"TensorFlow Datasets knows {name!r} as pictures of shape {tuple(picture.shape)} in "
            f"{label.num_classes} classes; "
            f"these have shape {tuple(shape)} and {len(names)} classes. Choose another name."
        )


def _write(folder, name, version, splits, names, source):
    import tensorflow_datasets as tfds

    set_name, _, config = name.partition("/")
    shape = next(iter(splits.values()))[0].shape[1:]
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=shape, dtype=np.uint8, encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list(names)),
        }
    )
    tfds.disable_progress_bar()
    # What it prints speaks of a download, and of the temporary folder.
    with contextlib.redirect_stdout(io.StringIO()), tfds_builder.quiet():
        tfds.dataset_builders.store_as_tfds_dataset(
            name=set_name,
            version=version,
            config=config or None,
            features=features,
            split_datasets={split: _Examples(*arrays) for split, arrays in splits.items()},
            data_dir=str(folder),
            description=f"Prepared by meta_rules from {pathlib.Path(source).name}.",
        )


class _Examples:
    """The (key, example) pairs of one split, made as they are asked for."""

    def __init__(self, pictures, labels):
        self._pictures, self._labels = pictures, labels

    def __iter__(self):
        for index, (picture, label) in enumerate(zip(self._pictures, self._labels, strict=True)):
            yield index, {"image": picture, "label": int(label)}
