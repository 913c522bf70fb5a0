"""Sources of made-up vectors: what their options promise, seen in what they draw."""

import numpy as np
from sklearn.linear_model import RidgeClassifier

from meta_rules.tasks import sources


def accuracy(name):
    """Of a linear classifier from the training to the test split."""
    train, test = (sources.load(name, split, cache=False) for split in ("train", "test"))
    return RidgeClassifier(alpha=10.0).fit(train.examples, train.labels).score(test.examples, test.labels)


def test_documents_are_counts_of_the_length_asked_for_and_told_apart_by_topics_alone():
    counts = np.expm1(sources.load("topics?words=60", "test", cache=False).examples)
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-4)
    assert abs(np.median(counts.sum(axis=1)) / 60 - 1) < 0.1
    assert accuracy("topics?classes=10") > 0.5
    # One topic is nothing to tell classes apart by: one guess in ten is right, up to chance (1,000 documents).
    assert abs(accuracy("topics?classes=10&topics=1") - 0.1) < 0.05


def test_frequencies_of_words_differ_as_in_text():
    share = (sources.load("topics", "train", cache=False).examples > 0).mean(axis=0)
    low, high = np.percentile(share, [5, 95])
    assert high > 5 * low > 0


def test_columns_of_a_table_have_one_scale_and_shapes_of_their_own():
    examples = sources.load("tables?features=40", "train", cache=False).examples
    np.testing.assert_allclose(examples.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(examples.std(axis=0), 1, atol=0.4)
    skewness = np.mean(examples**3, axis=0)
    assert np.sum(np.abs(skewness) < 0.3) > 4 and np.sum(skewness > 1) > 4
    levels = np.array([len(np.unique(column)) for column in examples.T])
    assert np.any(levels < 20) and np.any(levels > 10_000)


def test_tables_are_told_apart_by_the_spread_of_their_clouds():
    near, far = (accuracy(f"tables?classes=10&spread={spread}") for spread in (0.01, 10))
    assert near < 0.35 and far > 0.7


def test_every_curve_has_one_mean_and_one_scale_and_only_what_is_asked_for_varies():
    drawn = sources.load("curves", "train", cache=False).examples
    np.testing.assert_allclose(drawn.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(drawn.std(axis=1), 1, atol=1e-3)
    alike = []
    for options in (
        "variation=0&shift=0&noise=0",
        "variation=0&shift=0.1&noise=0",
        "variation=2&shift=0&noise=0",
    ):
        data = sources.load(f"curves?classes=5&waves=2&{options}", "test", cache=False)
        same = [np.corrcoef(data.examples[data.labels == label]).mean() for label in range(5)]
        alike.append(np.mean(same))
    assert alike[0] > 0.95 > max(alike[1:]) + 0.1
