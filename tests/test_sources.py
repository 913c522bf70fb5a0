"""Sources: what they say is what they give, splits share nothing, seeds repeat, bad input is one line."""

import hashlib
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import RidgeClassifier
from source_helpers import (
    GOOD,
    LABELS,
    no_sets_and_no_network,  # noqa: F401  (acts by being imported)
    refused,
    rows,
    write_npz,
)

from meta_rules.errors import UserError
from meta_rules.tasks import contact_sheet, sources
from meta_rules.tasks.dataset import Dataset
from meta_rules.tasks.sources import glyphs, readers
from meta_rules.tasks.sources.splits import Part, cut, cut_parts

DRAWN = [
    "curves?examples=24",
    "gaussian_mixtures?examples=24",
    "glyphs?examples=24",
    "patches?examples=24",
    "strokes?examples=24&classes=20",
    "tables?examples=24",
    "textures?examples=24",
    "topics?examples=24",
]
CARRIED = [*DRAWN, "digits", "mnist_sample"]


def digest(*names):
    """SHA-256 of all splits of sources, by which two processes compare what they drew."""
    total = hashlib.sha256()
    for name in names:
        for split in sources.SPLITS:
            data = sources.load(name, split, size=12, cache=False, seed=5)
            total.update(data.examples.tobytes() + data.labels.tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("name", CARRIED)
def test_what_a_source_says_is_what_it_gives(name):
    info = sources.describe(name)
    assert info.available and info.origin
    for split in sources.SPLITS:
        data = sources.load(name, split)
        assert data.examples.shape == (info.splits[split], *info.shape)
        assert data.examples.dtype == (np.float32 if len(info.shape) == 1 else np.uint8)
        assert data.labels.dtype == np.int32 and len(data.class_names) == info.classes
        assert set(data.labels) == set(range(info.classes))
        assert (data.name, data.origin) == (name, info.origin)
        assert np.isfinite(data.examples).all() and data.examples.std() > 0


@pytest.mark.parametrize("name", CARRIED)
def test_splits_share_no_example(name):
    train, validation, test = (rows(sources.load(name, split)) for split in sources.SPLITS)
    assert not train & validation and not train & test and not validation & test


def test_another_process_draws_the_same_bytes():
    names = [*DRAWN, "digits"]
    code = f"import test_sources; print(test_sources.digest(*{names!r}))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert run.stdout.strip() == digest(*names), run.stderr


@pytest.mark.parametrize("name", DRAWN)
def test_another_seed_draws_others(name):
    first, second = (rows(sources.load(name, "train", seed=seed)) for seed in (1, 2))
    assert not first & second


@pytest.mark.parametrize(
    "name, least",
    [
        ("curves?examples=60&classes=20", 0.6),
        ("gaussian_mixtures?examples=60&classes=20", 0.4),
        ("glyphs?examples=60&rotation=0&shift=0&inverted=0", 0.6),
        ("patches?examples=60", 0.3),
        ("strokes?examples=60&classes=20", 0.5),
        ("tables?examples=60&classes=20", 0.4),
        ("textures?examples=60&classes=20", 0.6),
        ("topics?examples=60&classes=20", 0.35),
        ("digits", 0.85),
        ("mnist_sample", 0.75),
    ],
)
def test_a_linear_classifier_carries_over_from_training_to_test(name, least):
    train, test = (sources.load(name, split, size=14) for split in ("train", "test"))
    scale = 255 if train.examples.dtype == np.uint8 else 1
    flat = [data.examples.reshape(len(data.labels), -1) / scale for data in (train, test)]
    model = RidgeClassifier(alpha=10.0).fit(flat[0], train.labels)
    assert model.score(flat[1], test.labels) > least


def test_size_and_colour():
    for name in (
        "glyphs?examples=4",
        "strokes?examples=4",
        "textures?examples=4",
        "patches?examples=4",
        "digits",
    ):
        assert sources.load(name, "test", size=9, colour=True).examples.shape[1:] == (9, 9, 3)
        assert sources.load(name, "test", size=17).examples.shape[1:] == (17, 17, 1)
    assert sources.load("gaussian_mixtures?examples=4", "test", size=9).examples.shape[1:] == (81,)
    assert sources.load("gaussian_mixtures?examples=4&features=7", "test", size=9).examples.shape[1:] == (7,)


def test_grey_and_resized_pictures_agree_with_tensorflow(tmp_path):
    import tensorflow as tf

    pictures = np.random.default_rng(0).integers(0, 256, (30, 23, 31, 3), dtype=np.uint8)
    np.savez(tmp_path / "p.npz", x=pictures, y=np.arange(30) % 2)
    name = f"npz:{tmp_path}/p.npz"
    kept = cut(np.arange(30) % 2, Part("all", "train", validation=0.1, test=0.1))
    for colour in (True, False):
        wanted = tf.cast(pictures[kept], tf.float32)
        wanted = wanted if colour else tf.image.rgb_to_grayscale(wanted)
        wanted = tf.image.resize(wanted, [11, 11], "bilinear", antialias=True).numpy()
        given = sources.load(name, "train", size=11, colour=colour).examples
        assert np.abs(given - wanted).max() < 2


def test_cut_gives_every_example_to_one_split():
    labels = np.random.default_rng(1).integers(0, 7, 400)
    labels[:2] = 7
    parts = cut_parts(("all",))
    chosen = {split: cut(labels, part) for split, part in parts.items()}
    assert sorted(np.concatenate(list(chosen.values()))) == list(range(400))
    for label in range(7):
        members = np.flatnonzero(labels == label)
        for split, share in (("validation", 0.1), ("test", 0.1)):
            assert abs((labels[chosen[split]] == label).sum() - share * len(members)) <= 0.5
        ends = [chosen[split][labels[chosen[split]] == label] for split in sources.SPLITS]
        np.testing.assert_array_equal(np.concatenate(ends), members)


def test_fonts_differ_between_splits_and_digits_are_never_drawn_unasked():
    fonts = glyphs.font_files()
    by_split = [set(glyphs.split_fonts(fonts, split)) for split in sources.SPLITS]
    assert set.union(*by_split) == set(fonts) and sum(map(len, by_split)) == len(fonts)
    assert min(map(len, by_split)) >= 3
    names = sources.load("glyphs?examples=4", "train").class_names
    assert len(names) == 52 and all(name.isalpha() for name in names)
    assert sources.load("glyphs?examples=4&characters=3A%26", "train").class_names == ("3", "A", "&")


def test_system_fonts_are_an_option():
    assert {path.name for path in glyphs.font_files(system=True)} >= {
        path.name for path in glyphs.font_files()
    }
    assert sources.load("glyphs?fonts=all&examples=4", "test").examples.any()


def test_importing_sources_loads_neither_tensorflow_nor_its_data_sets():
    code = (
        "import sys; from meta_rules.tasks import sources;"
        "sources.load('glyphs?examples=4', 'train', cache=False);"
        "print([name for name in ('tensorflow', 'tensorflow_datasets', 'keras') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


# Names, options, splits.


@pytest.mark.parametrize(
    "name, words",
    [
        ("fashon_mnist", "did you mean fashion_mnist"),
        ("no such set", "No such data set"),
        ("xyz:/somewhere", "No such data set"),
        ("", "needs a name"),
        ("npz", "names no file"),
        ("digits:/path", "takes no path"),
        ("glyphs?colour=red", "unknown option 'colour'; known: characters"),
        ("glyphs?noise", "write options as"),
        ("glyphs?noise=7", "cannot be '7' (at least 0.0, at most 1.0)"),
        ("glyphs?examples=many", "cannot be 'many'"),
        ("glyphs?characters=AA", "different characters"),
        ("glyphs?characters=AB%E4%BA%BA", "no font of the split train has '人'"),
        ("glyphs?fonts=mine", "one of bundled, all"),
        ("coco", "not an image classification set"),
        ("cifar10?classes=3", "two or more classes"),
    ],
)
def test_bad_names_are_one_line(name, words):
    refused(name, words)


def test_unknown_split_and_size():
    refused("digits", "Unknown split 'dev'", split="dev")
    with pytest.raises(UserError, match="must be positive"):
        sources.load("digits", "train", size=0)


def test_few_shot_needs_enough_classes_and_examples():
    data = Dataset(
        np.zeros((7, 2), np.float32), np.array([0, 0, 0, 1, 1, 1, 2], np.int32), ("a", "b", "c"), "n", "o"
    )
    sources.check_few_shot(data, 2, 3)
    with pytest.raises(UserError, match="has 3 classes, fewer than the 4 ways"):
        sources.check_few_shot(data, 4, 1)
    with pytest.raises(UserError, match=r"only 2 classes have the 3 examples.*class 'c' has 1"):
        sources.check_few_shot(data, 3, 3)


# The cache.


def test_a_damaged_cache_is_rebuilt_and_never_believed(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("META_RULES_CACHE", str(tmp_path))
    name = "textures?examples=4&classes=3"
    fresh = sources.load(name, "test", size=6)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    random, told = np.random.default_rng(0), 0
    damaged = [whole[:cut_at] for cut_at in (0, 10, len(whole) // 2, len(whole) - 1)]
    for place in random.choice(len(whole), 80, replace=False):
        damaged.append(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
    for content in damaged:
        path.write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="absl"):
            again = sources.load(name, "test", size=6)
        np.testing.assert_array_equal(again.examples, fresh.examples)
        np.testing.assert_array_equal(again.labels, fresh.labels)
        assert again.class_names == fresh.class_names
        if "building it again" in caplog.text:
            told += 1
            assert path.read_bytes() == whole
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert told > 60


def test_the_cache_is_used_and_notices_changed_files(tmp_path, monkeypatch):
    monkeypatch.setenv("META_RULES_CACHE", str(tmp_path / "cache"))
    name = write_npz(tmp_path, x=GOOD, y=LABELS)
    first = sources.load(name, "train")
    reads = []
    monkeypatch.setattr(readers.Npz, "examples", lambda self, part: reads.append(part) or GOOD[::-1])
    np.testing.assert_array_equal(sources.load(name, "train").examples, first.examples)
    assert not reads
    os.utime(tmp_path / "own.npz", (1, 1))
    changed = sources.load(name, "train")
    assert reads == ["all"] and (changed.examples != first.examples).any()
    sources.load(name, "train", cache=False)
    assert reads == ["all", "all"]


def test_a_cache_that_cannot_be_written_is_said_and_does_not_stop(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("META_RULES_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert len(sources.load("mnist_sample", "test").labels) == 1000
    assert "META_RULES_CACHE" in caplog.text


# The command that shows them.


def command(monkeypatch, *arguments):
    monkeypatch.syspath_prepend(os.path.join(os.path.dirname(__file__), "..", "tools"))
    import show_sources

    show_sources.main(arguments)


def test_all_sources_are_listed(monkeypatch, capsys):
    command(monkeypatch)
    shown = capsys.readouterr().out
    for name in sources.names():
        assert name in shown
    assert "npz:/path" in shown and "28 x 28 x 1" in shown and "3,500 / 500 / 1,000" in shown


def test_contact_sheets(tmp_path, monkeypatch, capsys):
    command(monkeypatch, "--source=digits", f"--preview={tmp_path}/d.png")
    assert "digits" in capsys.readouterr().out
    sheet = np.asarray(Image.open(tmp_path / "d.png"))
    data = sources.load("digits", "train")
    first = np.kron(data.examples[data.labels == 0][0, ..., 0], np.ones((5, 5), np.uint8))
    # The first example of the first class lies behind the title, enlarged five times.
    np.testing.assert_array_equal(sheet[4:44, 170:210, 0], first)
    vectors = contact_sheet.sheet([("v", np.arange(12, dtype=np.float32).reshape(2, 6))])
    assert vectors.mode == "RGB"
    for bad in (f"--preview={tmp_path}/none/d.png", f"--preview={tmp_path}/d.xyz", "--source=nonesuch"):
        with pytest.raises(SystemExit) as caught:
            command(monkeypatch, *(["--source=digits", bad] if "preview" in bad else [bad]))
        assert caught.value.code == 2
    assert os.listdir(tmp_path) == ["d.png"]
