"""Columns of any units on a common scale."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from meta_rules.column_scaling import LIFT, CountScaler, PartWhiteScaler, RangeScaler, column_map


@parametrize_with_checks([RangeScaler(), CountScaler(), PartWhiteScaler()])
def test_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("scaler", [RangeScaler(), StandardScaler(), CountScaler(), PartWhiteScaler()])
def test_column_map(scaler):
    X = np.random.default_rng(0).normal(size=(300, 4)) * [1.0, 1e-3, 1e3, 0.0] + 5.0
    scaler.fit(X)
    squash, offset, scale, mixing = column_map(scaler)
    inputs = X
    if squash is not None:
        inputs = (X - squash[0]) / (np.abs(X - squash[0]) + squash[1])
    expected = (inputs - offset) / scale
    expected = expected if mixing is None else expected @ mixing
    np.testing.assert_allclose(scaler.transform(X), expected)
    np.testing.assert_allclose(column_map(scaler)(X), expected)


def test_counts_are_squashed():
    """A tenth of a column's counts above its least are smaller than what comes half way."""
    random = np.random.default_rng(0)
    X = np.where(random.uniform(size=(5000, 3)) < 0.2, random.geometric(0.05, size=(5000, 3)), 0.0)
    X[:, 1] = 100.0 * X[:, 0] - 7.0
    X[:, 2] = 3.0
    scaler = CountScaler().fit(X)
    few = np.quantile(X[X[:, 0] > 0, 0], 0.1)
    probe = np.array([[0.0, -7.0, 3.0], [few, 100.0 * few - 7.0, 3.0], [1e9, 1e12, 3.0]])
    np.testing.assert_allclose(
        scaler.transform(probe), [[0, 0, 0], [2, 2, 0], [4, 4, 0]], rtol=1e-6, atol=1e-9
    )
    scaled = scaler.transform(X)
    assert np.all(np.diff(scaled[np.argsort(X[:, 0]), 0]) >= 0.0) and scaled.max() < 4.0
    # Less than anything in training.
    assert -4.0 < scaler.transform([[-few, -7.0, 3.0]])[0, 0] < 0.0


def test_part_white_takes_half_of_the_difference_between_components():
    """Columns of variance 1 with correlation r: their sum varies by 1 + r, their difference by 1 - r."""
    random = np.random.default_rng(0)
    common, own = random.normal(size=(2, 20000, 2))
    X = (common[:, :1] + 0.3 * own) * [2.0, 50.0] + [7.0, -3.0]
    scaled = PartWhiteScaler().fit_transform(X)
    r = np.corrcoef(X.T)[0, 1]
    total, difference = scaled.sum(axis=1).var(), np.diff(scaled, axis=1).var()
    expected = (1 + r) * (1 + r + LIFT) ** -0.5 / ((1 - r) * (1 - r + LIFT) ** -0.5)
    assert total / difference == pytest.approx(expected)
    assert scaled.var(axis=0).mean() == pytest.approx(1.0) and np.abs(scaled.mean(axis=0)).max() < 1e-9
    # A column still stands for what it stood for.
    assert np.corrcoef(scaled[:, 0], X[:, 0])[0, 1] > 0.9


def test_part_white_of_what_does_not_vary():
    X = np.column_stack([np.full(50, 3.0), np.zeros(50)])
    assert not PartWhiteScaler().fit_transform(X).any()
    # Nor is rounding made loud where there is nothing else, and what does vary keeps its variance beside it.
    shares = np.random.default_rng(0).dirichlet(np.ones(7), size=3000)
    constant = shares.sum(axis=1, keepdims=True)
    assert np.abs(PartWhiteScaler().fit_transform(constant)).max() < 1e-14
    both = PartWhiteScaler().fit_transform(np.column_stack([shares, constant]))
    assert both.var(axis=0).sum() == pytest.approx(7.0) and np.abs(both[:, 7]).max() < 1e-14
    with pytest.raises(ValueError, match="another scaling"):
        PartWhiteScaler().fit(np.zeros([3, 2001]))


def test_the_range_of_a_column():
    """Outliers do not press a column together, and a pixel that is hardly ever lit does not become loud."""
    random = np.random.default_rng(0)
    X = random.uniform(2.0, 4.0, size=(5000, 4))
    X[:4, 0] = 1e6
    X[:, 1] = 0.0
    X[:3, 1] = (10.0, 100.0, 200.0)
    X[:, 2] = 7.0
    scaled = RangeScaler().fit_transform(X)
    assert abs(scaled[4:, 0].std() - 4 * 12**-0.5) < 0.04 and scaled[:4, 0].min() > 1e5
    np.testing.assert_allclose(scaled[:4, 1], (0.2, 2.0, 4.0, 0.0))
    assert scaled[:, 1].std() < 0.08
    assert not scaled[:, 2].any()
    assert -0.04 < scaled[:, 3].min() < 0.0 and 4.0 < scaled[:, 3].max() < 4.04


def test_a_column_constant_but_for_rounding_stays_quiet():
    shares = np.random.default_rng(0).uniform(size=(3000, 7))
    shares /= shares.sum(axis=1, keepdims=True)
    X = np.column_stack([shares, shares.sum(axis=1)])
    assert 0.0 < np.ptp(X[:, 7]) < 1e-14
    for scaler in (RangeScaler(), CountScaler()):
        assert np.abs(scaler.fit_transform(X)[:, 7]).max() < 1e-13


def test_pixels_share_one_range():
    """Pixels from 0 to 255, one of which is never bright; the same columns in other units do not share a range."""
    random = np.random.default_rng(0)
    X = random.integers(0, 256, size=(5000, 5)).astype(float) * random.integers(0, 2, size=(5000, 5))
    X[:, 3] = np.where(random.uniform(size=5000) < 0.01, 60.0, 0.0)
    X[:, 4] = 0.0
    np.testing.assert_array_equal(RangeScaler().fit_transform(X), X / 255.0)
    unlike = X * [1.0, 10.0, 100.0, 1000.0, 1.0] + [0.0, 1.0, 2.0, 3.0, 4.0]
    scaled = RangeScaler().fit_transform(unlike)
    assert scaled[:, :4].max() == pytest.approx(4.0) and scaled[:, 3].max() == pytest.approx(4.0)
