"""Opening a TensorFlow Datasets set: from disk, else by a download that fails fast without a network.

`tensorflow_datasets` retries a download for minutes when there is no network. So the set's own server is
asked for a sign of life first, with a short limit.
"""

import contextlib
import difflib
import os
import re
import zlib

from absl import logging

from meta_rules.errors import UserError
from meta_rules.tasks.sources.base import known_names

#: `name`, `name/config`, `name:1.0.0`: what TensorFlow Datasets takes without asking other sites.
_NAME = re.compile(r"^[A-Za-z]\w*(/[\w.\-]+)?(:[\w.*]+)?$")
#: Seconds to wait for a server's first answer.
PATIENCE = 4.0


def data_dir(folder=None):
    """The folder of prepared sets: the one named, or `$TFDS_DATA_DIR`, or `~/tensorflow_datasets`.

    An `etils.epath.Path`, as TensorFlow Datasets uses them: the folder may lie in a bucket (`gs://...`).
    """
    from etils import epath

    return epath.Path(folder or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def open_builder(name, folder=None):
    """The `tfds.core.DatasetBuilder` of a name, prepared or not; touches no network.

    Raises:
      UserError: no such data set; the line names those spelt alike.
    """
    if not _NAME.match(name):
        raise UserError(f"No such data set: {name!r}; known: {known_names()}.")
    import tensorflow_datasets as tfds

    try:
        with quiet():
            builder = tfds.builder(name, data_dir=str(data_dir(folder)))
        return builder if is_prepared(builder) else _other_version(tfds, name, folder) or builder
    except tfds.core.DatasetNotFoundError as error:
        alike = difflib.get_close_matches(name.lower(), tfds.list_builders(), n=3)
        hint = f"did you mean {' or '.join(alike)}?" if alike else f"known: {known_names()}."
        raise UserError(f"No such data set: {name!r}; {hint}") from error
    except (ValueError, AssertionError, RuntimeError, OSError) as error:
        raise UserError(f"{name!r}: TensorFlow Datasets cannot open it ({_line(error)}).") from error


def is_prepared(builder):
    """Whether a builder's data are on disk."""
    with quiet():
        return builder.is_prepared()


@contextlib.contextmanager
def quiet():
    """Keeps back TensorFlow Datasets' warnings about every folder that it looks into and finds empty."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _other_version(tfds, name, folder):
    """A prepared version that is not the one the installed library would build, or None."""
    if ":" in name:
        return None
    root = data_dir(folder) / name
    for path in sorted(root.glob("*/features.json"), reverse=True):
        return tfds.builder_from_directory(str(path.parent))
    return None


def how_to_prepare(name, folder=None, copies=True):
    """What a user can do about a set that is not there; `copies`: whether `prepare_dataset` is of help."""
    root = data_dir(folder)
    advice = f"prepare it where there is a network with `tfds build {name} --data_dir={root}`"
    if copies:
        advice += (
            ", or from your own copy with "
            f"`python tools/prepare_dataset.py --input=PATH --name={name} --data_dir={root}`"
        )
    return advice


def prepared_builder(name, folder=None, download=True, copies=True):
    """As `open_builder`, but what it returns can be read; downloads and prepares the set if it must and can.

    Raises:
      UserError: as `open_builder`; or the set is neither prepared nor can be downloaded now; the line says
      how to prepare it.
    """
    builder = open_builder(name, folder)
    if is_prepared(builder):
        return builder
    advice = how_to_prepare(name, folder, copies)
    if not download:
        raise UserError(f"{name!r} is not prepared in {data_dir(folder)}; {advice}.")
    obstacle = _unreachable(builder)
    if obstacle:
        raise UserError(
            f"{name!r} is not prepared in {data_dir(folder)} and {obstacle} does not answer; {advice}."
        )
    logging.info("Downloading %s into %s.", name, data_dir(folder))
    try:
        builder.download_and_prepare()
    # Whatever a builder's code, the network or the disk may raise; the cause stays in the chain.
    except Exception as error:
        raise UserError(f"{name!r}: downloading and preparing failed ({_line(error)}); {advice}.") from error
    return builder


def _unreachable(builder):
    """The host that a download would need and that does not answer, or None."""
    import requests

    try:
        urls = sorted(builder.url_infos or ())
    except ModuleNotFoundError:
        # TensorFlow Datasets 4.9.10 uses importlib_resources here without requiring it.
        urls = []
    url = urls[0] if urls else "https://storage.googleapis.com/"
    try:
        requests.head(url, timeout=PATIENCE, allow_redirects=False)
    except requests.RequestException:
        return url.split("/")[2]
    return None


def _line(error):
    text = " ".join(str(error).split())
    return text[:200] + ("..." if len(text) > 200 else "") or type(error).__name__


def stamp(builder):
    """What changes when the prepared files do, JSON-ready, for cache keys."""
    from etils import epath

    info = epath.Path(builder.data_dir) / "dataset_info.json"
    return [str(builder.info.full_name), str(info), zlib.crc32(info.read_bytes()), info.stat().mtime]
