"""What one would use on few labels instead of a learned rule, from scikit-learn.

A method's settings are the ones of its grid that do best on average on validation clouds of the same family: what a learned
rule got from meta-training, they get from this choice. All of them may read the coordinates or the activities of
the receptive fields that the network reads; that is one of the settings.
"""

import itertools
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from threadpoolctl import threadpool_limits


def _supervised(encoded, hidden, alpha):
    return MLPClassifier(hidden, alpha=alpha, solver="lbfgs", max_iter=200, random_state=0)


def _label_spreading(kernel, width, alpha):
    kind = {"gamma": width} if kernel == "rbf" else {"n_neighbors": width}
    return LabelSpreading(kernel, alpha=alpha, max_iter=300, **kind)


def _self_training(encoded, penalty, take):
    return SelfTrainingClassifier(
        LogisticRegression(C=1.0 / penalty), criterion="k_best", k_best=take, max_iter=None
    )


def _grid(**choices):
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


#: Name -> function that makes the classifier, and its settings to choose from.
PEERS = {
    # Backpropagation (Adam's place is taken by L-BFGS, which fits a handful of examples exactly) on the labels alone.
    "supervised": (_supervised, _grid(encoded=(False, True), hidden=((), (64,)), alpha=(1e-3, 1e-1, 1.0))),
    "label_spreading": (
        _label_spreading,
        _grid(kernel=("rbf",), width=(2, 5, 10, 20, 50, 100, 200), alpha=(0.2, 0.9, 0.99, 0.999))
        + _grid(kernel=("knn",), width=(5, 7, 10, 15, 25), alpha=(0.2, 0.9, 0.99)),
    ),
    "self_training": (
        _self_training,
        _grid(encoded=(False, True), penalty=(0.01, 0.1, 1.0), take=(4, 16)),
    ),
}


def peer_accuracy(method, settings, cloud):
    """Accuracy on all points of one cloud.

    Args:
      method: a name in `PEERS`.
      settings: one of its grid.
      cloud: `(points [points, 2], activities [points, units], labels [points], known [points])`.
    """
    points, encoded, labels, known = cloud
    inputs = encoded if settings.get("encoded") else points
    model = PEERS[method][0](**settings)
    # One thread: the problems are small, and waiting for one another costs more than threads gain.
    with warnings.catch_warnings(), threadpool_limits(1):
        # Too few iterations, points that no label reaches: part of what the choice of settings is about.
        warnings.simplefilter("ignore")
        if method == "supervised":
            found = model.fit(inputs[known], labels[known]).predict(inputs)
        else:
            model.fit(inputs, np.where(known, labels, -1))
            found = model.transduction_ if method == "label_spreading" else model.predict(inputs)
    return float(np.mean(found == labels))


def chosen_settings(method, clouds):
    """The settings of a method's grid with the highest mean accuracy on some clouds."""
    grid = PEERS[method][1]
    return max(
        grid, key=lambda settings: np.mean([peer_accuracy(method, settings, cloud) for cloud in clouds])
    )
