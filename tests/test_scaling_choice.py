"""What a table looks like decides how its columns are scaled."""

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_wine

from meta_rules import RuleLearner
from meta_rules.column_scaling import SCALERS
from meta_rules.scaling_choice import suitable


def random():
    return np.random.default_rng(0)


def words(rows=1000, columns=20):
    """Frequencies: mostly nothing, and sometimes ten times as much as usual."""
    there = random().uniform(size=(rows, columns)) < 0.15
    return there * random().lognormal(sigma=1.0, size=(rows, columns)) * np.arange(1.0, columns + 1.0)


def together(kinds, rows=1000, columns=12):
    """Measures of things of any size, all of which grow with it, and which differ in shape besides: by kinds, or not."""
    size = 3.0 * random().normal(size=(rows, 1))
    shape = 0.2 * random().normal(size=(rows, columns))
    if kinds:
        shape += random().normal(size=(kinds, columns))[random().integers(kinds, size=rows)]
    return (size + shape) * np.logspace(-2, 2, columns)


CASES = {
    "pixels": (load_digits().data, "range"),
    "measures": (load_wine().data, "range"),
    "words": (words(), "counts"),
    "words in any place": (5.0 - words(), "range"),
    "kinds beside a size": (together(6), "part-white"),
    "noise beside a size": (together(0), "range"),
    "kinds that differ in all ways": (together(40) - together(0), "range"),
    "few rows": (words(99), "range"),
    "one column": (words(columns=1), "range"),
    "nothing": (np.zeros([200, 3]), "range"),
}


@pytest.mark.parametrize("name", CASES)
def test_choice(name):
    X, expected = CASES[name]
    assert suitable(X) == expected and expected in SCALERS
    # Nothing of it depends on units, but that pixels share theirs, nor on what does not vary, nor on the rows' order.
    other = np.column_stack([3.0 * X + 7.0, np.full(len(X), 2.0)])[random().permutation(len(X))]
    assert suitable(other) == expected
    assert suitable(1e-200 * X) == suitable(1e200 * X) == expected


def test_rows_that_cannot_be_looked_at():
    with pytest.raises(ValueError, match="NaN"):
        suitable(np.full([200, 3], np.nan))


def test_a_learner_chooses_once():
    """A stream that begins with other rows than it goes on with keeps the scaling that its network grew up with."""
    settings = {"rule": "oja", "steps": 5, "random_state": 1, "batch_size": 32, "layer_sizes": (4,)}
    learner = RuleLearner(**settings).partial_fit(words())
    assert learner.scaling_ == "counts"
    learner.partial_fit(together(6, columns=20)).partial_fit(together(6, columns=20))
    assert learner.scaling_ == "counts" and isinstance(learner.scaler_, SCALERS["counts"])
    assert learner.fit(together(6)).scaling_ == "part-white"
    assert RuleLearner(**settings, scaling="standard").fit(words()).scaling_ == "standard"
