"""Probes: classifiers from scikit-learn that are fitted on a few labelled features.

For every probe a few values of its one hyperparameter are tried; the one that does best on the validation examples is kept,
the most regularised one among equals. It is the same procedure for every method.
"""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgWarning
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier


class Probe(NamedTuple):
    """A kind of probe.

    Attributes:
      make: function of a value of the hyperparameter -> scikit-learn classifier.
      values: function of the number of labelled examples -> values to try, the most regularised first.
    """

    make: object
    values: object


PROBES = {
    "ridge": Probe(lambda value: RidgeClassifier(alpha=value), lambda _: tuple(10.0 ** np.arange(4, -3, -1))),
    "logistic": Probe(
        lambda value: LogisticRegression(C=value, max_iter=200, tol=1e-3),
        lambda _: (1e-3, 1e-2, 1e-1, 1.0, 10.0),
    ),
    "knn": Probe(
        lambda value: KNeighborsClassifier(n_neighbors=value),
        lambda examples: tuple(k for k in (15, 7, 3, 1) if k <= examples),
    ),
}


def chosen_on_validation(candidates, validation):
    """The classifier that is right most often on the validation examples, the first among equals.

    Args:
      candidates: iterable of fitted classifiers.
      validation: pair of examples `[examples, inputs]` and labels `[examples]`.
    """
    best, best_score = None, -1.0
    for candidate in candidates:
        score = float(np.mean(np.asarray(candidate.predict(validation[0])) == validation[1]))
        if score > best_score:
            best, best_score = candidate, score
    return best


def probe_accuracy(name, support, validation, query):
    """Accuracy of a probe on the query examples.

    Args:
      name: of `PROBES`.
      support, validation, query: pairs of features `[examples, features]` and labels `[examples]`: to fit on, to choose the
        hyperparameter on, to score on. Features are divided by the standard deviation of those of the support.

    Returns:
      The fraction right; chance if a feature is not finite.
    """
    if not all(np.isfinite(features).all() for features, _ in (support, validation, query)):
        return 1.0 / len(np.unique(support[1]))
    scale = support[0].std() + 1e-12
    (support_x, support_y), validation, (query_x, query_y) = (
        (features / scale, labels) for features, labels in (support, validation, query)
    )
    probe = PROBES[name]

    def candidates():
        for value in probe.values(len(support_y)):
            with warnings.catch_warnings():
                # A probe that has not quite converged, or is hardly regularised, is one candidate among several.
                warnings.simplefilter("ignore", ConvergenceWarning)
                warnings.simplefilter("ignore", LinAlgWarning)
                yield probe.make(value).fit(support_x, support_y)

    return float(chosen_on_validation(candidates(), validation).score(query_x, query_y))
