"""Columns of any units brought to a common scale, without making those that hardly vary as loud as the others."""

from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

#: Share of the rows at either end of a column that its range leaves out.
LEFT_OUT = 0.001
#: Share of the columns that must reach this share of the longest range, for all to have one range.
SHARING, NEARLY = 0.25, 0.9
#: What the ranges of columns of different units come to: an ordinary column then has a variance of about 1.
LENGTH = 4.0
#: A range below this share of the column's values is rounding, and the column constant (a sum of shares, say).
ROUNDING = 1e-12
#: The share of a column's counts above its lowest that lie below the one which comes half way.
RARE = 0.1
#: The power of the correlations' inverse that makes columns partly white; 1/2 would make them white.
WHITE = 0.25
#: Added to the variance of every component, of 1 on average: so none that hardly varies is made loud.
LIFT = 0.01
#: Columns that are mixed at most: the components of so many take seconds, and are taken anew whenever a stream goes on.
MOST_MIXED = 2000


class ColumnMap(NamedTuple):
    """What a fitted scaler does to rows.

    Attributes:
      squash: None, or `(low [columns], half [columns])`, both of it first: `u / (1 + |u|)` with `u = (X - low) / half`.
      offset, scale: `[columns]`, what is then taken off, and divided by.
      mixing: `[columns, columns]`, what the result is multiplied by, or None.
    """

    squash: tuple | None
    offset: np.ndarray
    scale: np.ndarray
    mixing: np.ndarray | None

    def __call__(self, X):
        """The rows of `X [rows, columns]`, mapped."""
        if self.squash is not None:
            low, half = self.squash
            X = (X - low) / half
            X = X / (1.0 + np.abs(X))
        scaled = (X - self.offset) / self.scale
        return scaled if self.mixing is None else scaled @ self.mixing


class _Scaler(TransformerMixin, BaseEstimator):
    """What `column_map` says, done to rows."""

    def transform(self, X):
        """The rows of `X [rows, columns]` as in `fit`: `[rows, columns]`, float64.

        Raises:
          ValueError: `X` is not like the rows of `fit`.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return column_map(self)(X)


class RangeScaler(_Scaler):
    """Brings the range of every column to [0, 4], or of columns that share a unit to [0, 1].

    Columns seem to share a unit, as pixels do, where all that vary begin at the same value, and a quarter of them reach the
    same highest value or nearly; they then share one range. So inputs are about as in meta-training, where pictures have
    pixels from 0 to 1 and columns of tables variance 1.

    The range leaves out a thousandth of the rows at either end, so that a few outliers, which come to lie outside of it,
    do not press all others together; of a column that is the same everywhere else, as a pixel at the border may be, it is
    the whole range. Such a column keeps a small variance, where division by the deviation would make its few other values
    the loudest of all.

    Attributes:
      low_: `[columns]`, what comes to 0.
      scale_: `[columns]`, what a column is then divided by; 1 for one that is constant.
      n_features_in_: columns.
    """

    def fit(self, X, y=None):
        """Takes the ranges from `X [rows, columns]`; `y` is ignored.

        Raises:
          ValueError: `X` is not of finite numbers, as for all of scikit-learn.
        """
        X = validate_data(self, X, dtype=np.float64)
        self.low_, length, varying = ranges(X)
        self.scale_ = np.where(varying, length / LENGTH, 1.0)
        if share_a_unit(self.low_, length, varying):
            self.scale_[varying] = length.max()
        return self


def ranges(X):
    """The range of every column of `X [rows, columns]`, outliers left out as `RangeScaler` says.

    Returns:
      Its lower end and its length, `[columns]`, and whether the column varies at all.
    """
    low, high = np.quantile(X, [LEFT_OUT, 1.0 - LEFT_OUT], axis=0)
    same = high <= low
    low[same], high[same] = X[:, same].min(axis=0), X[:, same].max(axis=0)
    length = high - low
    return low, length, length > ROUNDING * np.maximum(np.abs(low), np.abs(high))


def share_a_unit(low, length, varying):
    """Whether columns of such `ranges` seem to share a unit, see `RangeScaler`."""
    if not varying.any() or np.ptp(low[varying]) != 0.0:
        return False
    return np.mean(length[varying] >= NEARLY * length.max()) >= SHARING


class CountScaler(_Scaler):
    """Squashes counts: of n more than a column's least it makes 4 n / (n + c), where c is a small n of that column.

    So whether something is there at all counts most, and how often ever less. For tables most of whose columns are nearly
    everywhere the same and have a few large values, such as frequencies of words: brought to one range, or to variance 1,
    the few rows with large values are all that a network hears of.

    Source: as how often a term is in a document counts in BM25 (Robertson and Walker, SIGIR 1994).

    Attributes:
      low_: `[columns]`, the least value.
      half_: `[columns]`, c above: a tenth of the column's greater values exceed the least by less; 1 for a constant column.
      n_features_in_: columns.
    """

    def fit(self, X, y=None):
        """Takes least and small values from `X [rows, columns]`; `y` is ignored.

        Raises:
          ValueError: `X` is not of finite numbers, as for all of scikit-learn.
        """
        X = validate_data(self, X, dtype=np.float64)
        self.low_ = X.min(axis=0)
        above = X - self.low_
        # As in `ranges`: what is less is rounding.
        least = ROUNDING * np.abs(X).max(axis=0)
        self.half_ = np.ones(X.shape[1])
        for column in np.flatnonzero(above.max(axis=0) > least):
            values = above[:, column]
            self.half_[column] = np.quantile(values[values > least[column]], RARE)
        return self


class PartWhiteScaler(_Scaler):
    """Brings columns to variance 1 and takes half of the difference in deviation from their principal components.

    With R the correlations of the columns, and 0.01 added to its diagonal, rows are multiplied by R^(-1/4): a component that
    varies a tenth as much as another then varies about a third as much. The sum of the variances stays. For tables whose
    columns mostly go together and whose kinds differ in what is left (docs/evaluation.md). The root of a symmetric matrix is
    symmetric, so every column still stands mostly for what it stood for.

    Source: our own; with R^(-1/2) it would be the ZCA of the correlations (Kessy, Lewin and Strimmer, American Statistician
    72, 2018).

    Attributes:
      mean_, scale_: `[columns]`, as of `sklearn.preprocessing.StandardScaler`.
      mixing_: `[columns, columns]`, what the standardised rows are then multiplied by; symmetric, positive definite.
      n_features_in_: columns.
    """

    def fit(self, X, y=None):
        """Takes means, deviations and correlations from `X [rows, columns]`; `y` is ignored.

        Raises:
          ValueError: `X` is not of finite numbers, as for all of scikit-learn, or has more than `MOST_MIXED` columns.
        """
        X = validate_data(self, X, dtype=np.float64)
        if X.shape[1] > MOST_MIXED:
            raise ValueError(
                f"Columns are made white together up to {MOST_MIXED} of them, and these are {X.shape[1]}; "
                "take another scaling."
            )
        standard = StandardScaler().fit(X)
        self.mean_, self.scale_ = standard.mean_, standard.scale_
        scaled = standard.transform(X)
        variances, directions = components(scaled)
        factors = (variances + LIFT) ** -WHITE
        after = np.sum(variances * factors**2)
        # Nothing varies: nothing is to be kept.
        factors *= np.sqrt(np.sum(variances) / after) if after else 1.0
        self.mixing_ = (directions * factors) @ directions.T
        return self


def components(X):
    """The variances `[columns]`, none below 0, and directions `[columns, columns]` of the components of `X [rows, columns]`.

    Columns of `X` have mean 0; a direction is a column of the directions.
    """
    variances, directions = np.linalg.eigh(X.T @ X / len(X))
    return np.maximum(variances, 0.0), directions


#: How columns may be brought to a common scale, by name; None leaves them alone.
SCALERS = {
    "range": RangeScaler,
    "standard": StandardScaler,
    "counts": CountScaler,
    "part-white": PartWhiteScaler,
    None: None,
}


def column_map(scaler):
    """What a fitted scaler of `SCALERS` does to rows, a `ColumnMap`."""
    if isinstance(scaler, CountScaler):
        nothing = np.zeros_like(scaler.low_)
        return ColumnMap((scaler.low_, scaler.half_), nothing, nothing + 1.0 / LENGTH, None)
    offset = scaler.low_ if isinstance(scaler, RangeScaler) else scaler.mean_
    return ColumnMap(None, offset, scaler.scale_, getattr(scaler, "mixing_", None))
