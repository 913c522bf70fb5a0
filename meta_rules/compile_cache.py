"""Compiled programs kept on disk: the same command, started again, loads them instead of compiling for half a minute.

XLA writes and finds the entries by itself; it traces and compares the whole program before it takes one, so a changed
rule, family or window never meets an old program. What is added here is what XLA does not do: programs of another
processor, TensorFlow or set of XLA flags lie in a folder of their own; an entry is loaded only if its SHA-256 is the
one that was noted when it was new (XLA ends the run over a damaged one); and the folder does not grow without bound.
It lies in `$META_RULES_CACHE/programs`, or in `~/.cache/meta_rules/programs`; removing it is always safe.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shutil

from absl import logging
from filelock import FileLock

from meta_rules.tasks import cache

#: Bytes of programs that are kept, the newest ones; one of the default rule takes about 12 MB.
LIMIT = 1 << 30
#: Bytes that must be free on the disk: a full one would end the run at its first compilation.
ROOM = 1 << 30
#: The devices whose programs are kept. On others it was never tried.
DEVICES = "CPU"
_OPTION = "--tf_xla_persistent_cache_directory"


def enable():
    """Makes XLA keep and find its programs; to be called before TensorFlow is imported.

    Damaged and old entries are removed first. A folder that cannot be used is said in the log, and then nothing is kept; a
    cache that the user has set up in `TF_XLA_FLAGS` is left as it is.

    Returns:
      The folder, a `pathlib.Path`, or None.
    """
    given = os.environ.get("TF_XLA_FLAGS", "")
    if _OPTION in given:
        return None
    root = cache.folder() / "programs"
    folder = root / _machine(given)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < ROOM:
            raise OSError("less than 1 GB is free on the disk")
        with FileLock(root / ".lock"):
            for path in folder.glob("*.pb"):
                if not _is_sealed(path):
                    _remove(path)
            _shrink(root)
    except OSError as error:
        logging.warning("Compiled programs are not kept in %s (%s).", folder, error)
        return None
    os.environ["TF_XLA_FLAGS"] = (
        f"{given} {_OPTION}={folder} --tf_xla_persistent_cache_device_types={DEVICES}".strip()
    )
    return folder


def seal(folder):
    """Notes the SHA-256 of the entries that came since `enable`, without which they would not be loaded next time.

    XLA writes an entry aside and renames it, so what is there is whole.

    Args:
      folder: as `enable` returned it; nothing is done for None.
    """
    if folder is None:
        return
    with contextlib.suppress(OSError), FileLock(folder.parent / ".lock"):
        for path in folder.glob("*.pb"):
            if not _seal_of(path).exists():
                aside = path.with_suffix(".tmp")
                aside.write_text(_digest(path))
                aside.replace(_seal_of(path))


def _machine(flags):
    """A name for all that a program depends on besides its own text: processor, TensorFlow, flags."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        processor = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        processor = [platform.machine(), platform.processor(), platform.node()]
    versions = [importlib.metadata.version("tensorflow"), platform.platform()]
    text = "\n".join([*processor, *versions, os.environ.get("XLA_FLAGS", ""), flags])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _seal_of(path):
    return path.with_suffix(".sha256")


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_sealed(path):
    seal = _seal_of(path)
    return seal.exists() and seal.read_text() == _digest(path)


def _remove(path):
    for each in (_seal_of(path), path):
        each.unlink(missing_ok=True)


def _shrink(root):
    newest_first = sorted(root.glob("*/*.pb"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in newest_first:
        total += path.stat().st_size
        if total > LIMIT:
            _remove(path)
