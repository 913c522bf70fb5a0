"""RuleLearner: a scikit-learn transformer in full, and the learning loop behind it."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import DataDimensionalityWarning, NotFittedError
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import meta_rules
from meta_rules import RuleLearner, learning, progress, rules, saved_rules
from meta_rules.errors import UserError
from meta_rules.learner import Settling, alignment
from meta_rules.rules import DefaultRule
from meta_rules.saved_model import LearnedFeatures

#: Checks of scikit-learn that are not asked for, and why. None: it passes them all.
SKIPPED = {}

DIGITS = load_digits()


def learner(**changes):
    settings = {"rule": "oja", "steps": 20, "random_state": 1, "batch_size": 32, "tol": None}
    return RuleLearner(**{"layer_sizes": (12, 7), **settings, **changes})


def rows(count=60, width=5, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, width)) @ random.normal(size=(width, width))


def scaled_by_hand(X, scaling):
    if scaling == "standard":
        return (X - X.mean(0)) / X.std(0)
    if scaling == "range":
        low, high = np.percentile(X, [0.1, 99.9], axis=0)
        return 4.0 * (X - low) / (high - low)
    if scaling == "counts":
        above = X - X.min(0)
        half = [np.percentile(column[column > 0.0], 10) for column in above.T]
        return 4.0 * above / (above + half)
    if scaling == "part-white":
        scaled = (X - X.mean(0)) / X.std(0)
        lifted = np.cov(scaled.T, bias=True) + 0.01 * np.eye(X.shape[1])
        mixed = scaled @ fractional_matrix_power(lifted, -0.25)
        return mixed / np.sqrt(mixed.var(0).mean())
    return X


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataDimensionalityWarning")
@parametrize_with_checks(
    [learner(layer_sizes=(6, 3), steps=5, random_state=None)],
    expected_failed_checks=lambda estimator: SKIPPED,
)
def test_scikit_learn(estimator, check):
    check(estimator)


def test_importing_the_package_does_not_import_tensorflow():
    code = "import sys, meta_rules; meta_rules.shipped_rules(); assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_features_are_those_of_the_exported_rule():
    """The SavedModel's functions draw the same network and the same batches from the same seed."""
    X = rows(50).astype(np.float32)
    rule = rules.make("oja")
    fitted = learner(scaling=None, steps=3).fit(X)
    module = LearnedFeatures(rule, (12, 7), "relu", 32)
    seed = np.random.RandomState(1).randint(2**31 - 1)
    found = module.features(X, 3, seed)["features"]
    np.testing.assert_allclose(fitted.transform(X), found, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scaling", ["range", "standard", "counts", "part-white", None])
def test_transform_by_hand(scaling):
    """Scaling, matrix products and normalisation written out in NumPy."""
    X = rows()
    fitted = learner(rule="genome", scaling=scaling).fit(X)
    part = fitted.learned_
    x = scaled_by_hand(X, scaling)
    x = (x - part["mean_0"]) / (np.sqrt(part["variance_0"]) + 0.1)
    for layer in (1, 2):
        current = x @ part[f"kernel_{layer}"]
        np.testing.assert_allclose(current.mean(0), part[f"mean_{layer}"], rtol=1e-3, atol=1e-4)
        current = (current - part[f"mean_{layer}"]) / np.sqrt(part[f"variance_{layer}"] + 1e-6)
        x = np.maximum(current + part[f"bias_{layer}"], 0)
    np.testing.assert_allclose(fitted.transform(X), x, rtol=1e-4, atol=1e-5)


def test_the_rule_is_applied():
    """Oja's rule turns the first of its units towards the principal component."""
    random = np.random.default_rng(0)
    direction = random.normal(size=8)
    X = random.normal(size=(400, 8)) + 3.0 * random.normal(size=(400, 1)) * direction
    fitted = learner(
        layer_sizes=(1,), activation="linear", rule="sanger", steps=400, scaling=None, batch_size=128
    ).fit(X)
    component = np.linalg.svd(X - X.mean(0))[2][0]
    found = fitted.transform(X)[:, 0]
    assert abs(np.corrcoef(found, (X - X.mean(0)) @ component)[0, 1]) > 0.95


def test_random_state_decides():
    X = rows()
    first = learner().fit_transform(X)
    np.testing.assert_array_equal(first, learner().fit_transform(X))
    assert np.any(first != learner(random_state=2).fit_transform(X))
    assert np.any(learner(random_state=None).fit_transform(X) != learner(random_state=None).fit_transform(X))


def test_pipeline_names_and_pickle():
    X, y = DIGITS.data[:300], DIGITS.target[:300]
    pipeline = make_pipeline(learner(layer_sizes=(40, 20)), RidgeClassifier()).fit(X, y)
    assert pipeline.score(X, y) > 0.5
    fitted = pipeline[0]
    assert list(fitted.get_feature_names_out()[:2]) == ["rulelearner0", "rulelearner1"]
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.transform(X), fitted.transform(X))
    again.partial_fit(X)
    assert again.n_iter_ == fitted.n_iter_ + 10
    with pytest.raises(NotFittedError):
        clone(fitted).transform(X)


def test_other_rows_and_widths_do_not_compile_again():
    settings = {"layer_sizes": (9, 4), "batch_size": 16}
    first = learner(**settings).fit(rows(40, 5))
    program = first._program()
    for count, width in ((55, 5), (33, 8), (70, 12)):
        assert learner(**settings, rule="oja").fit(rows(count, width))._program() is program
    counts = [
        getattr(program, name).experimental_get_tracing_count() for name in ("start", "advance", "learned")
    ]
    assert counts == [1, 1, 1]


@pytest.mark.parametrize("scaling", ["range", "standard", "counts", "part-white"])
def test_a_stream(scaling):
    X = rows(600)
    stream = learner(scaling=scaling)
    for part in np.split(X, 6):
        stream.partial_fit(part)
    assert stream.n_iter_ == 6 * 4
    # All rows fit into the sample: the scaling and the statistics are those of the whole stream.
    inputs = scaled_by_hand(X, scaling)
    np.testing.assert_allclose(stream.scaler_.transform(X), inputs)
    np.testing.assert_allclose(stream.learned_["variance_0"], inputs.var(0), rtol=1e-4)
    current = inputs @ stream.learned_["kernel_1"]
    np.testing.assert_allclose(stream.learned_["variance_1"], current.var(0), rtol=1e-3)


def test_the_sample_of_a_long_stream_is_even(monkeypatch):
    monkeypatch.setattr("meta_rules.learner.REMEMBERED", 200)
    stream = learner(scaling=None, layer_sizes=(3,))
    for start in range(0, 2000, 100):
        stream.partial_fit(np.arange(start, start + 100.0)[:, None] * np.ones((1, 2)))
    kept = stream._remembered[:, 0]
    assert len(kept) == len(np.unique(kept)) == 200
    # Mean of 200 of 2,000 numbers drawn without repeats: 999.5, give or take 39.
    assert abs(kept.mean() - 999.5) < 5 * 39


def test_alignment_against_its_definition():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(30, 4)), random.normal(size=(30, 6))
    centre = np.eye(30) - 1 / 30
    k, m = centre @ a @ a.T @ centre, centre @ b @ b.T @ centre
    assert alignment(a, b) == pytest.approx(np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m)))
    turn = np.linalg.qr(random.normal(size=(4, 4)))[0]
    assert alignment(a, 3.0 * a @ turn + 1.0) == pytest.approx(1.0)


def test_settling():
    random = np.random.default_rng(0)
    base, noise = random.normal(size=(50, 4)), random.normal(size=(12, 50, 4))
    falling, level = Settling(1e-9), Settling(1e-9)
    for i in range(12):
        falling.look(base + 0.5**i * noise[i])
        level.look(base + noise[i])
        assert not falling.settled
    assert level.settled
    same = Settling(1e-6)
    same.look(base)
    same.look(base)
    assert same.settled


def test_fit_stops_when_the_features_have_settled():
    X = rows(200)
    fitted = learner(steps=5000, tol=1e-4, check_every=10).fit(X)
    assert fitted.settled_ and fitted.n_iter_ < 5000
    through = learner(steps=30, tol=None, check_every=10).fit(X)
    assert not through.settled_ and through.n_iter_ == 30


def test_progress_is_shown_for_long_fits_only(monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")
    learner().fit(rows())
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    learner(check_every=5).fit(rows())
    assert "rule applications" in capfd.readouterr().err
    learner(verbose=False).fit(rows())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.ones((1, 4)), "minimum of 2"),
        (np.ones(4), "1D array"),
        (np.full((5, 3), np.nan), "NaN"),
        (np.array([["a", "b"], ["c", "d"]]), "convert string|could not convert"),
        (np.ones((9, 4)), "same"),
        (np.zeros((9, 0)), "0 feature"),
    ],
)
def test_bad_rows(X, words):
    with pytest.raises(ValueError, match=words):
        learner().fit(X)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer_sizes": ()}, "layer_sizes"),
        ({"layer_sizes": (4, 0)}, "layer_sizes"),
        ({"layer_sizes": ("many",)}, "layer_sizes"),
        ({"layer_sizes": (10**7,)}, "layer_sizes"),
        ({"steps": 0}, "steps"),
        ({"batch_size": 1}, "batch_size"),
        ({"scaling": "loud"}, "scaling"),
        ({"scaling": True}, "scaling"),
        ({"tol": -1.0}, "tol"),
        ({"activation": "sine"}, "activation"),
        ({"rule": 3}, "rule"),
        ({"rule": "no_such_rule"}, "No rule"),
        ({"rule": "pretrained:no_such_rule"}, "No rule"),
    ],
)
def test_bad_parameters(changes, words):
    with pytest.raises(ValueError, match=words):
        learner(**changes).fit(rows())


def test_constant_columns_and_too_many_features():
    X = rows()
    X[:, 2] = 7.0
    assert np.isfinite(learner().fit_transform(X)).all()
    with pytest.warns(DataDimensionalityWarning, match="features"):
        learner(layer_sizes=(100,)).fit(X[:20])


def test_a_rule_by_path_and_a_damaged_one(tmp_path):
    rule = DefaultRule(hidden=4, error_channels=2, factors=2)
    saved_rules.save_rule(tmp_path / "rule", rule)
    by_path = learner(rule=tmp_path / "rule", steps=3).fit_transform(rows())
    np.testing.assert_array_equal(by_path, learner(rule=rule, steps=3).fit_transform(rows()))
    (tmp_path / "rule" / "rule.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(UserError, match="not a saved rule"):
        learner(rule=str(tmp_path / "rule")).fit(rows())


def test_programs_do_not_share_meta_parameters():
    """The compiled functions are kept by a rule's configuration; its meta-parameters come in from outside."""
    one, two = (DefaultRule(hidden=4, error_channels=2, factors=2) for _ in range(2))
    two.assign({name: value + 0.3 for name, value in two.theta().items()})
    assert np.any(
        learner(rule=one, steps=3).fit_transform(rows()) != learner(rule=two, steps=3).fit_transform(rows())
    )
    assert learning.compiled.cache_info().hits > 0
    assert meta_rules.RuleLearner is RuleLearner
