"""Columns of any units on a common scale."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from meta_rules.column_scaling import RangeScaler, offset_and_scale


@parametrize_with_checks([RangeScaler()])
def test_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("scaler", [RangeScaler(), StandardScaler()])
def test_offset_and_scale(scaler):
    X = np.random.default_rng(0).normal(size=(300, 4)) * [1.0, 1e-3, 1e3, 0.0] + 5.0
    scaler.fit(X)
    offset, scale = offset_and_scale(scaler)
    np.testing.assert_allclose(scaler.transform(X), (X - offset) / scale)


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
    assert np.abs(RangeScaler().fit_transform(X)[:, 7]).max() < 1e-14


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
