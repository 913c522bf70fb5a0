"""The user's own arrays, pictures and texts: read as they are, or refused in one line."""

import csv

import numpy as np
import pytest
from PIL import Image
from sklearn.feature_extraction.text import CountVectorizer
from source_helpers import (
    GOOD,
    LABELS,
    LATER,
    REVIEWS,
    no_sets_and_no_network,  # noqa: F401  (acts by being imported)
    refused,
    rows,
    write_npz,
)

from meta_rules.tasks import sources
from meta_rules.tasks.sources.text import learned_vocabulary, tokenised


def test_npz_with_train_and_test(tmp_path):
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (90, 5, 6), dtype=np.uint8), np.arange(90) % 3 * 2 + 4
    name = write_npz(tmp_path, x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    train, validation, test = (sources.load(name, split) for split in sources.SPLITS)
    assert train.class_names == ("4", "6", "8") and train.examples.shape == (54, 5, 6, 1)
    assert rows(train) | rows(validation) == {image.tobytes() for image in x[:60]}
    np.testing.assert_array_equal(test.examples[..., 0], x[60:])
    np.testing.assert_array_equal(test.labels * 2 + 4, y[60:])
    assert sources.describe(name).splits == {"train": 54, "validation": 6, "test": 30}


def test_npz_of_vectors(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 4))
    name = write_npz(tmp_path, x=x, y=np.arange(60) % 2)
    train = sources.load(name, "train")
    assert train.examples.dtype == np.float32
    np.testing.assert_array_equal(train.examples, x[:48].astype(np.float32))
    assert sources.describe(name).shape == (4,)


@pytest.mark.parametrize(
    "arrays, words",
    [
        ({"x": GOOD, "y": LABELS / 2}, "labels must be integers"),
        ({"x": GOOD, "y": np.array([str(label) for label in LABELS])}, "labels must be integers"),
        ({"x": GOOD, "y": np.eye(4, dtype=int)[LABELS]}, "one whole number an example"),
        ({"x": GOOD, "y": LABELS[:30]}, "30 labels"),
        ({"x": GOOD, "y": np.zeros(40, int)}, "1 class; a task needs at least two"),
        ({"x": np.where(GOOD > 250, np.nan, GOOD / 255), "y": LABELS}, "NaN"),
        ({"x": GOOD.astype(float), "y": LABELS}, "must lie in [0, 1]"),
        ({"x": GOOD.astype(int) - 3, "y": LABELS}, "must lie in 0..255"),
        (
            {"x": np.where(np.arange(25) == 7, np.nan, GOOD.reshape(40, 25)), "y": LABELS},
            "infinite values in column 7;",
        ),
        ({"x": GOOD[..., None].repeat(2, -1), "y": LABELS}, "neither vectors nor pictures"),
        ({"pictures": GOOD, "classes": LABELS}, "it holds classes, pictures"),
        ({"x": np.array([{"a": 1}] * 40, object), "y": LABELS}, "pickled objects, which are never loaded"),
        ({"x": GOOD, "y": np.array([None] * 40, object)}, "pickled objects, which are never loaded"),
    ],
)
def test_bad_npz_is_one_line(tmp_path, arrays, words):
    refused(write_npz(tmp_path, **arrays), words)


def test_constant_columns_are_named(tmp_path):
    vectors = GOOD.reshape(40, 25).copy()
    vectors[:, [2, 20]] = 9
    refused(
        write_npz(tmp_path, x=vectors, y=LABELS), "the same value in every example of columns 2, 20; drop"
    )


def test_files_that_are_no_npz(tmp_path):
    refused(f"npz:{tmp_path}/none.npz", "There is no file")
    np.save(tmp_path / "one.npz", GOOD)
    (tmp_path / "one.npz.npy").rename(tmp_path / "one.npz")
    refused(f"npz:{tmp_path}/one.npz", "holds a single array")
    (tmp_path / "text.npz").write_text("not arrays")
    refused(f"npz:{tmp_path}/text.npz", "not a readable npz file")
    whole = (tmp_path / write_npz(tmp_path, x=GOOD, y=LABELS).split("/")[-1]).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    refused(f"npz:{tmp_path}/cut.npz", "not a readable npz file")
    (tmp_path / "bent.npz").write_bytes(whole.replace(GOOD.tobytes(), GOOD[::-1].tobytes()))
    refused(f"npz:{tmp_path}/bent.npz", "cannot be read")


def write_folder(root, sizes=((6, 5),), classes=("cat", "dog"), each=10):
    for index, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(each):
            size = sizes[i % len(sizes)]
            Image.new("RGB", size, (index * 90, i * 20, 7)).save(root / name / f"{i}.png")
    return f"folder:{root}"


def test_folder_of_pictures(tmp_path):
    name = write_folder(tmp_path)
    parts = [sources.load(name, split, colour=True) for split in sources.SPLITS]
    assert [data.examples.shape for data in parts] == [(16, 5, 6, 3), (2, 5, 6, 3), (2, 5, 6, 3)]
    for data in parts:
        assert data.class_names == ("cat", "dog")
        np.testing.assert_array_equal(data.examples[:, 0, 0, 0], data.labels * 90)
    assert sources.describe(name)[1:4] == ((5, 6, 3), 2, {"train": 16, "validation": 2, "test": 2})


def test_folder_with_splits_of_its_own(tmp_path):
    for split, each in (("train", 9), ("validation", 5), ("test", 4)):
        write_folder(tmp_path / split, each=each)
    assert [len(sources.load(f"folder:{tmp_path}", split).labels) for split in sources.SPLITS] == [18, 10, 8]
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "wolf")
    refused(f"folder:{tmp_path}", "must have the same sub-folders")


def test_bad_folders(tmp_path):
    refused(f"folder:{tmp_path}/none", "There is no folder")
    refused(f"folder:{tmp_path}", "no sub-folders with pictures")
    mixed = write_folder(tmp_path / "mixed", sizes=((6, 5), (7, 7)))
    refused(mixed, "mixed sizes")
    assert sources.load(f"{mixed}?resize=4", "train").examples.shape[1:] == (4, 4, 1)
    single = write_folder(tmp_path / "single", classes=("cat",))
    refused(single, "1 class")
    (tmp_path / "mixed" / "cat" / "x.png").write_text("no picture")
    refused(f"{mixed}?resize=4", "not a readable picture")


# Text.


def write_csv(folder, table, header=("text", "label")):
    with open(folder / "own.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *table])
    return f"csv:{folder}/own.csv"


def test_bags_of_words_agree_with_scikit_learn(tmp_path):
    name = write_csv(tmp_path, [*REVIEWS, *LATER])
    train, validation, test = (sources.load(name, split) for split in sources.SPLITS)
    assert train.class_names == ("bad", "good") and [len(d.labels) for d in (train, validation, test)] == [
        20,
        2,
        2,
    ]

    counter = CountVectorizer(
        token_pattern=r"[\w']+", preprocessor=lambda text: text.lower().replace("<br />", " ")
    )
    counts = counter.fit_transform([text for text, _ in REVIEWS]).toarray()
    # "film" is in all of them and would be a constant column.
    frequency = dict(zip(counter.get_feature_names_out(), (counts > 0).sum(0), strict=True))
    words = sorted((w for w, f in frequency.items() if 2 <= f < 20), key=lambda w: (-frequency[w], w))
    columns = [counter.vocabulary_[word] for word in words]
    np.testing.assert_allclose(train.examples, np.log1p(counts[:, columns]), rtol=1e-6)
    later = np.log1p(counter.transform([text for text, _ in LATER]).toarray()[:, columns])
    np.testing.assert_allclose(validation.examples, later[:2], rtol=1e-6)
    np.testing.assert_allclose(test.examples, later[2:], rtol=1e-6)

    few = sources.load(f"{name}?vocabulary=3&counts=binary", "train").examples
    np.testing.assert_array_equal(few, counts[:, columns[:3]] > 0)


def test_the_vocabulary_is_learned_from_training_alone():
    word, document, words = tokenised([text for text, _ in REVIEWS])
    assert set(words) == {"a", "great", "film", "fun", "dull", "it's", "cast", "mess"}
    assert "zebra" not in learned_vocabulary(word, document, words, 99)


def test_csv_columns_and_labels(tmp_path):
    table = [(index, text, label == "good") for index, (text, label) in enumerate(REVIEWS)]
    name = write_csv(
        tmp_path, [(i, text, int(good)) for i, text, good in table], ("id", "review", "sentiment")
    )
    data = sources.load(f"{name}?text=review&label=sentiment", "train")
    assert data.class_names == ("0", "1")
    refused(name, "no column 'text', only 'id', 'review', 'sentiment'")
    refused(f"{name}?text=review&label=stars", "no column 'stars'")
    refused(f"csv:{tmp_path}/none.csv", "There is no file")


@pytest.mark.parametrize(
    "table, words",
    [
        ([("a b", "0.5"), ("a c", "1")] * 9, "neither a whole number nor a name"),
        ([("a b", "1"), ("a c", "")] * 9, "neither a whole number nor a name"),
        ([("a b", "1"), ("a",)] * 9, "too few columns"),
        ([("a b", "1"), ("b c", "1")] * 9, "1 class"),
        ([("a", "1"), ("a", "0")] * 9, "fewer than two words"),
        ([], "holds no rows"),
    ],
)
def test_bad_csv_is_one_line(tmp_path, table, words):
    refused(write_csv(tmp_path, table), words)
