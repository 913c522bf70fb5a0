"""The ridge probe, and the meta-losses read from it, against the published code's figures and against scikit-learn."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss
from small_problems import SmallRule, small_family

from meta_rules import probes, stateless
from meta_rules.errors import UserError
from meta_rules.rules.base import per_task
from meta_rules.trajectories import RuleLearning

GOLDEN = os.path.join(os.path.dirname(__file__), "golden")
VARIANTS = {
    "": {},
    "raw_y_hat/": {"normalise_predictions": False},
    "uncentred/": {"centre_targets": False},
    "pm_one/": {"zero_one_labels": False},
}


def check_golden(path, prefix):
    data = np.load(path, allow_pickle=False)
    config = json.loads(data["config_json"].tobytes())
    names = ("features_train", "labels_onehot_train", "features_test", "labels_onehot_test")
    result = probes.ridge_probe(
        *(tf.constant(data[name][None]) for name in names), ridge=config["ridge_factor"], **VARIANTS[prefix]
    )
    expected = {
        "weights": "ridge_w",
        "query_error": "mse_test",
        "support_error": "mse_train",
        "ridge_term": "ridge_component",
        "loss": "loss",
        "query_accuracy": "accuracy_test",
        "support_accuracy": "accuracy_train",
    }
    for mine, golden in expected.items():
        reference = data[prefix + golden]
        gap = np.abs(getattr(result, mine)[0].numpy() - reference).max() / np.sqrt(np.mean(reference**2))
        assert gap < 5e-5, f"{prefix}{golden}: {gap:.1e}"


@pytest.mark.parametrize("prefix", VARIANTS)
def test_published_objective(prefix):
    check_golden(os.path.join(GOLDEN, "objective_a.npz"), prefix)


@pytest.mark.parametrize("prefix", VARIANTS)
def test_published_objective_larger(shared, prefix):
    check_golden(os.path.join(shared, "reference", "golden", "objective_b.npz"), prefix)


@pytest.mark.parametrize("width", [6, 50])
def test_weights_equal_scikit_learn_on_both_sides_of_the_dual(width):
    random = np.random.default_rng(0)
    features, targets = random.normal(size=(3, 20, width)), random.normal(size=(3, 20, 4))
    weights = probes.ridge_weights(tf.constant(features), tf.constant(targets), 0.7).numpy()
    for task in range(3):
        fitted = Ridge(alpha=0.7).fit(features[task], targets[task])
        np.testing.assert_allclose(weights[task, :-1], fitted.coef_.T, atol=1e-9)
        np.testing.assert_allclose(weights[task, -1], fitted.intercept_, atol=1e-9)


def test_one_task_does_not_see_another():
    random = np.random.default_rng(1)
    features = random.normal(size=(2, 20, 5)).astype(np.float32)
    labels = np.eye(4, dtype=np.float32)[random.integers(0, 4, size=(2, 20))]
    both = probes.ridge_probe(features, labels, features, labels)
    features[1] = np.nan
    spoilt = probes.ridge_probe(features, labels, features, labels)
    assert np.isnan(spoilt.loss[1]) and spoilt.loss[0] == both.loss[0]


def test_the_cross_entropy_is_scikit_learns_of_predictions_at_one_length():
    random = np.random.default_rng(2)
    features = random.normal(size=(2, 30, 5))
    of = np.concatenate([np.arange(4), random.integers(0, 4, size=26)])
    labels = np.broadcast_to(np.eye(4)[of], (2, 30, 4))
    support, query = slice(0, 18), slice(18, None)
    parts = [tf.constant(each[:, part]) for part in (support, query) for each in (features, labels)]
    found = probes.ridge_probe(*parts)
    for task in range(2):
        weights = found.weights[task].numpy()
        said = features[task, query] @ weights[:-1] + weights[-1]
        odds = np.exp(probes.CONFIDENCE * said / np.linalg.norm(said, axis=1, keepdims=True))
        expected = log_loss(of[query], odds / odds.sum(axis=1, keepdims=True), labels=range(4))
        np.testing.assert_allclose(found.query_cross_entropy[task], expected, rtol=1e-9)


def test_the_meta_loss_may_be_the_cross_entropy():
    rule, family = SmallRule(), small_family()
    squared, other = (
        RuleLearning(rule, family, objective=name) for name in ("squared_error", "cross_entropy")
    )
    pool = squared.initial(stateless.split(stateless.key(0), 3))
    copies = per_task(rule.theta(), 3)
    (squared_error, figures), (cross_entropy, others) = (each.loss(copies, pool) for each in (squared, other))
    assert np.all(cross_entropy != squared_error)
    np.testing.assert_array_equal(figures["accuracy"], others["accuracy"])
    with pytest.raises(UserError, match="cross_entropy"):
        RuleLearning(rule, family, objective="accuracy")
