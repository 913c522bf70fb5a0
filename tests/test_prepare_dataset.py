"""Preparing: what `tfds.load` reads back is what went in, and a failure leaves nothing."""

import gzip
import os
import pathlib
import struct

import numpy as np
import pytest
from PIL import Image

from meta_rules.errors import UserError
from meta_rules.tasks import prepare, sources
from meta_rules.tasks.sources import readers

RANDOM = np.random.default_rng(11)
PICTURES = RANDOM.integers(0, 256, (50, 28, 28, 1), dtype=np.uint8)
LABELS = np.arange(50) % 10


def command(monkeypatch, *arguments):
    monkeypatch.syspath_prepend(os.path.join(os.path.dirname(__file__), "..", "tools"))
    import prepare_dataset

    prepare_dataset.main(arguments)


def read_back(name, folder, split):
    """Pictures and labels of a split, in an order of their own: a sorted list of (bytes, label)."""
    import tensorflow_datasets as tfds

    data = tfds.load(name, data_dir=str(folder), download=False, split=split)
    return sorted((example["image"].tobytes(), int(example["label"])) for example in tfds.as_numpy(data))


def pairs(pictures, labels):
    return sorted((picture.tobytes(), int(label)) for picture, label in zip(pictures, labels, strict=True))


def write_npz(folder, **arrays):
    np.savez(folder / "in.npz", **arrays)
    return folder / "in.npz"


def write_idx(path, array, kind=8):
    data = struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wb") as file:
        file.write(data)


def write_mnist(folder, suffix=""):
    write_idx(folder / f"train-images-idx3-ubyte{suffix}", PICTURES[:30, ..., 0])
    write_idx(folder / f"train-labels-idx1-ubyte{suffix}", LABELS[:30].astype(np.uint8))
    write_idx(folder / f"t10k-images-idx3-ubyte{suffix}", PICTURES[30:, ..., 0])
    write_idx(folder / f"t10k-labels-idx1-ubyte{suffix}", LABELS[30:].astype(np.uint8))
    return folder


def test_npz_under_a_name_that_the_library_knows(tmp_path, monkeypatch, capsys):
    train, test = slice(0, 30), slice(30, 50)
    source = write_npz(
        tmp_path,
        x_train=PICTURES[train, ..., 0],
        y_train=LABELS[train],
        x_test=PICTURES[test, ..., 0],
        y_test=LABELS[test],
    )
    command(monkeypatch, f"--input={source}", "--name=mnist", f"--data_dir={tmp_path}/sets")
    assert "mnist/3.0.1: 30 train, 20 test." in capsys.readouterr().out
    assert read_back("mnist", tmp_path / "sets", "train") == pairs(PICTURES[train], LABELS[train])
    assert read_back("mnist", tmp_path / "sets", "test") == pairs(PICTURES[test], LABELS[test])
    data = sources.load(f"mnist?data_dir={tmp_path}/sets", "test")
    assert pairs(data.examples, data.labels) == pairs(PICTURES[test], LABELS[test])
    assert [entry.name for entry in (tmp_path / "sets").iterdir()] == ["mnist"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files(tmp_path, suffix):
    (tmp_path / "idx").mkdir()
    _, counts = prepare.prepare(write_mnist(tmp_path / "idx", suffix), "own_digits", tmp_path / "sets")
    assert counts == {"train": 30, "test": 20}
    assert read_back("own_digits", tmp_path / "sets", "train") == pairs(PICTURES[:30], LABELS[:30])
    assert read_back("own_digits", tmp_path / "sets", "test") == pairs(PICTURES[30:], LABELS[30:])


def test_idx_numbers_of_other_types(tmp_path):
    array = RANDOM.normal(size=(3, 4)).astype(">f8")
    write_idx(tmp_path / "a", array, kind=14)
    np.testing.assert_array_equal(readers.read_idx(tmp_path / "a"), array)


def test_folder_of_pictures_with_a_configuration_and_version(tmp_path):
    colours = RANDOM.integers(0, 256, (12, 6, 4, 3), dtype=np.uint8)
    for i, picture in enumerate(colours):
        folder = tmp_path / "in" / ("odd" if i % 2 else "even")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{i}.png")
    folder, counts = prepare.prepare(tmp_path / "in", "own/small", tmp_path / "sets", version="2.1.0")
    assert folder == tmp_path / "sets" / "own" / "small" / "2.1.0" and counts == {"train": 12}
    assert read_back("own/small", tmp_path / "sets", "train") == pairs(colours, np.arange(12) % 2)
    data = sources.load(f"own/small?data_dir={tmp_path}/sets", "train", colour=True)
    assert data.class_names == ("even", "odd")


def test_a_set_that_is_there_is_kept_unless_told(tmp_path):
    source = write_npz(tmp_path, x=PICTURES, y=LABELS)
    prepare.prepare(source, "own", tmp_path / "sets")
    source = write_npz(tmp_path, x=PICTURES[:20], y=LABELS[:20])
    with pytest.raises(UserError, match="is there; remove it, or add --overwrite"):
        prepare.prepare(source, "own", tmp_path / "sets")
    assert len(read_back("own", tmp_path / "sets", "train")) == 50
    prepare.prepare(source, "own", tmp_path / "sets", overwrite=True)
    assert read_back("own", tmp_path / "sets", "train") == pairs(PICTURES[:20], LABELS[:20])
    assert [entry.name for entry in (tmp_path / "sets").iterdir()] == ["own"]


@pytest.mark.parametrize(
    "arrays, name, words",
    [
        ({"x": PICTURES, "y": LABELS / 2}, "own", "labels must be integers"),
        ({"x": PICTURES, "y": np.zeros(50, int)}, "own", "has 1 class"),
        ({"x": PICTURES, "y": LABELS[:40]}, "own", "40 labels"),
        ({"x": np.array([None] * 50, object), "y": LABELS}, "own", "pickled objects, which are never loaded"),
        ({"x": PICTURES.reshape(50, -1), "y": LABELS}, "own", "holds vectors, not pictures"),
        ({"x": np.where(PICTURES > 250, np.nan, PICTURES / 255), "y": LABELS}, "own", "NaN"),
        ({"x": PICTURES, "y": LABELS}, "Own Set", "cannot name a data set"),
        ({"x": PICTURES[:, :9, :9], "y": LABELS}, "mnist", "knows 'mnist' as pictures of shape (28, 28, 1)"),
        ({"x": PICTURES, "y": LABELS % 3}, "mnist", "10 classes; these have shape (28, 28, 1) and 3 classes"),
        ({"x": PICTURES, "y": LABELS}, "imdb_reviews", "something else than labelled pictures"),
        (
            {"x_train": PICTURES, "y_train": LABELS, "x_test": PICTURES[:, :8], "y_test": LABELS},
            "own",
            "pictures of different shapes",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys, arrays, name, words):
    source = write_npz(tmp_path, **arrays)
    with pytest.raises(SystemExit) as caught:
        command(monkeypatch, f"--input={source}", f"--name={name}", f"--data_dir={tmp_path}/sets")
    line = capsys.readouterr().err
    assert caught.value.code == 2 and line.startswith("error: ") and line.count("\n") == 1 and words in line
    assert not (tmp_path / "sets").exists()


def test_bad_idx_files(tmp_path):
    def refused(words):
        with pytest.raises(UserError, match=words):
            prepare.prepare(tmp_path, "own", tmp_path / "sets")
        assert not (tmp_path / "sets").exists()

    refused("no sub-folders with pictures")
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    write_idx(images, PICTURES[..., 0])
    refused("IDX file of the train labels is missing")
    labels.write_bytes(b"\0\0")
    refused("is not an IDX file")
    write_idx(labels, LABELS.astype(np.uint8))
    images.write_bytes(images.read_bytes()[:-1])
    refused("truncated or damaged")
    images.unlink()
    write_idx(images.with_suffix(".gz"), PICTURES[..., 0])
    images.with_suffix(".gz").write_bytes(images.with_suffix(".gz").read_bytes()[:-99])
    refused("cannot be read")


def test_a_write_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    written = prepare._Examples.__iter__

    def full(self):
        yield next(written(self))
        raise OSError("no space left")

    monkeypatch.setattr(prepare._Examples, "__iter__", full)
    source = write_npz(tmp_path, x=PICTURES, y=LABELS)
    with pytest.raises(UserError, match="no space left"):
        prepare.prepare(source, "own", tmp_path / "sets")
    assert not list((tmp_path / "sets").iterdir())


def test_input_that_is_not_there_and_folders_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="There is no file or folder"):
        prepare.prepare(tmp_path / "none", "own", tmp_path / "sets")
    source = write_npz(tmp_path, x=PICTURES, y=LABELS)
    with pytest.raises(UserError, match="Cannot write to"):
        prepare.prepare(source, "own", source)
    with pytest.raises(UserError, match="must be three numbers"):
        prepare.prepare(source, "own", tmp_path, version="new")


@pytest.mark.slow
def test_all_of_mnist(tmp_path, shared):
    path = pathlib.Path(shared) / "data" / "mnist.npz"
    if not path.is_file():
        pytest.skip("needs the developers' copy of MNIST")
    prepare.prepare(path, "mnist", tmp_path)
    with np.load(path) as whole:
        for split in ("train", "test"):
            wanted = pairs(whole[f"x_{split}"], whole[f"y_{split}"])
            assert read_back("mnist", tmp_path, split) == wanted
    name = f"mnist?data_dir={tmp_path}"
    sizes = [sources.load(name, split, size=14).examples.shape for split in sources.SPLITS]
    assert sizes == [(54001, 14, 14, 1), (5999, 14, 14, 1), (10000, 14, 14, 1)]
