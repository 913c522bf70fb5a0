"""Compiled programs on disk: found again by another process, never loaded when damaged, bounded in size."""

import os
import subprocess
import sys

import pytest

from meta_rules import compile_cache

PROGRAM = """
from meta_rules import compile_cache
folder = compile_cache.enable()
import tensorflow as tf
product = tf.function(lambda x: tf.matmul(tf.tanh(x), x), jit_compile=True, autograph=False)
print(float(tf.reduce_sum(product(tf.eye(4)))))
compile_cache.seal(folder)
"""


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The cache's root, which is the environment's."""
    monkeypatch.setenv("META_RULES_CACHE", str(tmp_path))
    # Set first, so that what a test leaves there is taken back.
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    monkeypatch.delenv("TF_XLA_FLAGS")
    return tmp_path / "programs"


def run():
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return float(ran.stdout)


def entry(kept, content=b"a program"):
    """A sealed entry as a run leaves it; its path and the folder."""
    folder = compile_cache.enable()
    path = folder / "xla_compile_cache.pb"
    path.write_bytes(content)
    compile_cache.seal(folder)
    os.environ.pop("TF_XLA_FLAGS")
    return path


def test_another_process_loads_the_program_and_a_damaged_one_is_compiled_again(kept):
    first = run()
    (path,) = kept.glob("*/*.pb")
    # XLA writes every program that it compiles under a new inode; one that it finds it leaves alone.
    inode = path.stat().st_ino
    keep = path.with_suffix(".keep")
    os.link(path, keep)
    assert run() == first and path.stat().st_ino == inode
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[: len(whole) // 2])
    damaged = path.stat().st_ino
    assert run() == first
    assert path.stat().st_size == len(whole) and path.stat().st_ino != damaged


@pytest.mark.parametrize("harm", ["cut", "changed", "not sealed"])
def test_an_entry_that_is_not_as_it_was_sealed_is_removed(kept, harm):
    path = entry(kept)
    compile_cache.enable()
    assert path.exists()
    os.environ.pop("TF_XLA_FLAGS")
    if harm == "not sealed":
        path.with_suffix(".sha256").unlink()
    else:
        path.write_bytes({"cut": b"a prog", "changed": b"b program"}[harm])
    compile_cache.enable()
    assert not path.exists() and not path.with_suffix(".sha256").exists()


def test_the_oldest_programs_go_when_there_are_too_many(kept, monkeypatch):
    path = entry(kept, bytes(60))
    older, oldest = path.with_name("older.pb"), path.with_name("oldest.pb")
    for age, old in ((10, older), (20, oldest)):
        old.write_bytes(bytes(60))
        os.utime(old, (path.stat().st_mtime - age,) * 2)
    compile_cache.seal(path.parent)
    monkeypatch.setattr(compile_cache, "LIMIT", 130)
    compile_cache.enable()
    assert path.exists() and older.exists() and not oldest.exists()


def test_other_flags_of_the_compiler_have_a_folder_of_their_own(kept, monkeypatch):
    folder = compile_cache.enable()
    assert str(folder) in os.environ["TF_XLA_FLAGS"]
    # A cache that is set up already stays.
    assert compile_cache.enable() is None
    monkeypatch.delenv("TF_XLA_FLAGS")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert compile_cache.enable() not in (None, folder)


def test_a_folder_that_cannot_be_used_keeps_nothing(kept, monkeypatch):
    kept.write_text("a file where the folder should be")
    assert compile_cache.enable() is None and "TF_XLA_FLAGS" not in os.environ
    compile_cache.seal(None)
    kept.unlink()
    monkeypatch.setattr(compile_cache, "ROOM", 1 << 60)
    assert compile_cache.enable() is None and "TF_XLA_FLAGS" not in os.environ
