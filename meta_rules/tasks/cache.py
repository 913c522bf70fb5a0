"""A cache of prepared arrays on disk, so that a data set is read, resized or drawn once.

One entry is one uncompressed `.npz` file, named by a hash of everything that the arrays depend on. It lies in
`$META_RULES_CACHE`, or in `~/.cache/meta_rules`. Each array carries the CRC-32 of its bytes (the zip
format's), which is checked on every read. Nothing in it is ever unpickled. Removing the folder is always
safe.
"""

import hashlib
import json
import os
import pathlib
import tempfile
import zipfile

import numpy as np
from absl import logging

#: Part of every key: entries of another layout are not looked at.
LAYOUT = 1


def folder():
    """The cache's folder, a `pathlib.Path`; it need not exist."""
    named = os.environ.get("META_RULES_CACHE")
    return pathlib.Path(named) if named else pathlib.Path.home() / ".cache" / "meta_rules"


def path_of(key):
    """The file of an entry. `key` is anything that JSON can write, and says all that the arrays depend on."""
    text = json.dumps([LAYOUT, key], sort_keys=True, default=str)
    return folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"


def fetch(key, build):
    """The arrays of an entry: read from disk if they are there and whole, else built and kept.

    A truncated or corrupted file is said in the log and built again. A folder that cannot be written is said
    too, and the arrays are returned without being kept.

    Args:
      key: see `path_of`.
      build: called without arguments; returns a dict of name -> array of numbers or strings.

    Returns:
      A dict of name -> array.
    """
    path = path_of(key)
    if path.exists():
        try:
            return _read(path)
        # Damaged zip files make the reader raise nearly anything; whatever it is, the entry is no good.
        except Exception as error:
            logging.warning("Cache file %s is damaged (%s); building it again.", path, error)
    arrays = build()
    try:
        _write(path, arrays)
    except OSError as error:
        logging.warning(
            "Cannot keep %s in the cache (%s); set META_RULES_CACHE to a folder with room.", path, error
        )
    return arrays


def _read(path):
    with zipfile.ZipFile(path) as archive:
        if "names.json" not in archive.namelist():
            raise ValueError("its list of arrays is missing")
        names = json.loads(archive.read("names.json"))
        arrays = {}
        for name in names:
            with archive.open(f"{name}.npy") as member:
                arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
                # The checksum is compared when the member's end is reached.
                if member.read(1):
                    raise ValueError(f"array {name} is longer than its header says")
        return arrays


def _write(path, arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=".npz")
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            # Entries without a time of day: the same arrays make the same file.
            archive.writestr(zipfile.ZipInfo("names.json"), json.dumps(sorted(arrays)))
            for name in sorted(arrays):
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.ascontiguousarray(arrays[name]), allow_pickle=False)
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise
