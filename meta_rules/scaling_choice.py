"""Which scaling suits a table, by its looks: `scaling="auto"` of `RuleLearner`."""

import numpy as np
from sklearn.cluster import KMeans
from sklearn.preprocessing import scale
from sklearn.utils import check_array

from meta_rules.column_scaling import LIFT, MOST_MIXED, components, ranges, share_a_unit

#: Rows that are looked at at most, and those below which nothing is read from them.
LOOKED_AT, FEW = 2000, 100
#: Where counts are: share of a column's rows that must have its least value, and share of the columns of that kind.
MOSTLY = 0.5
#: Kurtosis (3 of normal numbers) above which a column has a few values that are large for it.
LONG_TAILED = 10.0
#: Share of the columns' number that their effective number must not reach, for columns to go together mostly.
TOGETHER = 0.3
#: Clusters that are looked for in white rows, and the share of what they leave of noise that they must explain beyond noise.
CLUSTERS, CLUSTERED = 10, 0.08


def suitable(X):
    """The name, in `SCALERS`, of the scaling that suits rows `X [rows, columns]`.

    `"range"` where columns share a unit, as pixels do, and wherever nothing speaks for another; `"counts"` for `counts`; and
    `"part-white"` where columns `go_together` and are `clustered` in what is left. Read from at most 2,000 rows, drawn at
    random with a fixed seed; of fewer than 100, `"range"`.

    Raises:
      ValueError: `X` is not of finite numbers.
    """
    X = check_array(X, dtype=np.float64, ensure_min_samples=2)
    if len(X) > LOOKED_AT:
        X = X[np.random.default_rng(0).choice(len(X), LOOKED_AT, replace=False)]
    low, length, varying = ranges(X)
    if len(X) < FEW or not varying.any() or share_a_unit(low, length, varying):
        return "range"
    # None of what follows depends on units; by way of the ranges it does not overflow in any.
    X = scale((X[:, varying] - low[varying]) / length[varying])
    if counts(X):
        return "counts"
    if X.shape[1] <= MOST_MIXED and go_together(X) and clustered(X):
        return "part-white"
    return "range"


def counts(X):
    """Whether most columns of standardised `X [rows, columns]` are mostly at their least value and have long tails."""
    mostly_least = np.mean(X == X.min(axis=0), axis=0) > MOSTLY
    long_tailed = np.mean(X**4, axis=0) > LONG_TAILED
    return np.mean(mostly_least & long_tailed) > MOSTLY


def go_together(X):
    """Whether few components have most of the variance of standardised `X [rows, columns]`.

    Their effective number is `sum(v)^2 / sum(v^2)` of the variances v.

    Source: the participation ratio, see `meta_rules.rules.kinds`.
    """
    # The trace of the correlations is the number of columns, the sum of their squares that of the variances.
    return X.shape[1] / np.sum(np.square(X.T @ X / len(X))) < TOGETHER


def clustered(X):
    """Whether k-means explains clearly more of standardised `X [rows, columns]`, made white, than of normal noise.

    Where it does not, white columns would mostly be noise.

    Source: our own, after the gap statistic (Tibshirani, Walther and Hastie, JRSS B 63, 2001), which compares so too.
    """
    variances, directions = components(X)
    white = X @ (directions * (variances + LIFT) ** -0.5)
    noise = np.random.default_rng(0).normal(size=white.shape) * white.std(axis=0)

    def left(rows):
        means = KMeans(CLUSTERS, n_init=3, random_state=0).fit(rows)
        return means.inertia_ / np.sum(np.square(rows - rows.mean(axis=0)))

    return 1.0 - left(white) / left(noise) > CLUSTERED
