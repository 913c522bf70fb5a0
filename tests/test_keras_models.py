"""Learned networks as Keras models, and a user's own model trained in place: the same features, by stock layers."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import meta_rules
from meta_rules import RuleLearner, rules
from meta_rules.errors import UserError

CHECK = """
import sys
sys.modules["meta_rules"] = None  # any import of the package fails
import keras, numpy as np
data = np.load(sys.argv[2])
model = keras.saving.load_model(sys.argv[1])
found = model.predict(data["rows"], verbose=0)
np.testing.assert_allclose(found, data["features"], rtol=1e-5, atol=1e-5)
kinds = {type(layer).__name__ for layer in model.layers}
assert kinds == {"InputLayer", "Dense", "BatchNormalization", "Activation"}, kinds
"""


def data(rows=200, width=9):
    """Columns that hang together, of different units and places, one of them constant."""
    random = np.random.default_rng(0)
    found = random.normal(size=(rows, width)) @ random.normal(size=(width, width))
    found = found * np.logspace(-2, 2, width) + np.arange(width)
    found[:, 3] = 5.0
    return found.astype(np.float32)


def learner(**changes):
    settings = {"rule": "oja", "steps": 20, "random_state": 1, "batch_size": 32, "tol": None}
    return RuleLearner(**{"layer_sizes": (12, 7), **settings, **changes})


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "tanh", "sigmoid", "swish", "linear"])
def test_the_keras_model_gives_the_same_features(activation):
    rows = data()
    fitted = learner(activation=activation).fit(rows)
    found = fitted.to_keras().predict(rows, verbose=0)
    expected = fitted.transform(rows)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_same_with_a_linear_top():
    rows = data()
    rule = rules.make("genome", corruption=0.3, linear_top=True)
    fitted = learner(rule=rule).fit(rows)
    expected = fitted.transform(rows)
    assert expected.min() < -0.5
    np.testing.assert_allclose(fitted.to_keras().predict(rows, verbose=0), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kept", [0.0, 0.25])
@pytest.mark.parametrize("sizes", [(12, 7), (12, 1)])
def test_the_same_with_features_that_keep_a_part_of_their_length(sizes, kept, tmp_path):
    rows = data()
    rule = rules.make("genome", corruption=0.3, directions=0.5, linear_top=True, length_kept=kept)
    fitted = learner(rule=rule, layer_sizes=sizes).fit(rows)
    expected = fitted.transform(rows)
    if sizes[-1] > 1 and not kept:
        np.testing.assert_allclose(np.square(expected).mean(axis=1), 1.0, rtol=1e-5)
    fitted.to_keras().save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(rows, verbose=0), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scaling", ["standard", "counts", "part-white", None])
def test_the_same_with_another_scaling(scaling):
    rows = data() / 50.0
    fitted = learner(scaling=scaling).fit(rows)
    np.testing.assert_allclose(
        fitted.to_keras().predict(rows, verbose=0), fitted.transform(rows), rtol=1e-5, atol=1e-5
    )


def test_a_saved_model_loads_without_the_package(tmp_path):
    rows = data()
    fitted = learner().fit(rows)
    fitted.to_keras().save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", rows=rows, features=fitted.transform(rows))
    done = subprocess.run(
        [sys.executable, "-c", CHECK, "model.keras", "data.npz"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_model_can_be_trained_further():
    rows = data()
    labels = (rows[:, 0] > np.median(rows[:, 0])).astype(int)
    body = learner().fit(rows).to_keras()
    start = [weight.copy() for weight in body.get_weights()]
    model = keras.Sequential([body, keras.layers.Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(rows, labels, epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    changed = [np.any(a != b) for a, b in zip(start, body.get_weights(), strict=True)]
    # The scaling of the inputs, first of all, is not trained.
    assert changed[:2] == [False, False] and all(changed[2:])


def test_a_step_has_no_keras_activation():
    with pytest.raises(ValueError, match="step"):
        learner(activation="step").fit(data()).to_keras()


L = keras.layers
MODELS = {
    "plain": lambda: [L.Dense(12, "relu"), L.Dense(7, "relu"), L.Dense(3, "softmax")],
    "logits": lambda: [L.Dense(12), L.ReLU(), L.Dropout(0.5), L.Dense(7), L.Activation("relu"), L.Dense(3)],
    "normalised": lambda: [
        L.Dense(12, use_bias=False), L.BatchNormalization(), L.Activation("relu"),
        L.Dense(7), L.BatchNormalization(scale=False), L.Activation("relu"),
        L.Dense(3, "softmax"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("scaling", ["range", "part-white"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_pretrain_puts_the_learned_network_into_the_users_layers(name, scaling):
    rows = data()
    model = keras.Sequential(MODELS[name]())
    model.build((None, rows.shape[1]))
    head = [weight.copy() for weight in model.layers[-1].get_weights()]
    settings = {"rule": "oja", "steps": 20, "random_state": 1, "batch_size": 32, "tol": None}
    assert meta_rules.pretrain(model, rows, scaling=scaling, **settings) is model
    body = keras.Sequential([keras.Input([rows.shape[1]]), *model.layers[:-1]])
    expected = learner(activation="relu", scaling=scaling).fit(rows).transform(rows)
    np.testing.assert_allclose(body.predict(rows, verbose=0), expected, rtol=1e-4, atol=1e-4)
    for before, after in zip(head, model.layers[-1].get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_pretrain_says_that_counts_cannot_be_folded():
    """And learns all the same, from what the layers can hold."""
    random = np.random.default_rng(0)
    counts = random.poisson(0.3 * random.lognormal(sigma=1.5, size=(200, 9))).astype(np.float32)
    settings = {"rule": "oja", "steps": 5, "random_state": 1, "batch_size": 32, "tol": None}
    model = keras.Sequential([L.Dense(6, "relu")])
    with pytest.warns(UserWarning, match="look like counts"):
        meta_rules.pretrain(model, counts, **settings)
    expected = learner(layer_sizes=(6,), scaling="range", steps=5).fit_transform(counts)
    np.testing.assert_allclose(model.predict(counts, verbose=0), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="softsign"):
        meta_rules.pretrain(model, counts, scaling="counts", **settings)


def test_pretrain_reads_pictures_through_the_layers_before():
    pictures = data(width=9).reshape(-1, 3, 3, 1)
    model = keras.Sequential([L.Rescaling(0.5), L.Flatten(), L.Dense(6, "tanh")])
    meta_rules.pretrain(model, pictures, rule="oja", steps=10, random_state=1, batch_size=32, tol=None)
    expected = learner(layer_sizes=(6,), activation="tanh", steps=10)
    rows = 0.5 * pictures.reshape(len(pictures), -1)
    np.testing.assert_allclose(
        model.predict(pictures, verbose=0), expected.fit_transform(rows), rtol=1e-4, atol=1e-4
    )


def test_models_that_cannot_be_trained_say_why():
    rows = data()
    cases = {
        "keras.Sequential": keras.Model(x := keras.Input([9]), L.Dense(3, "relu")(x)),
        "first Dense layer": keras.Sequential([L.Dense(3, "softmax")]),
        "use_bias=True": keras.Sequential([L.Dense(3, "relu", use_bias=False)]),
        "behind the activation": keras.Sequential([L.Dense(3, "relu"), L.BatchNormalization()]),
    }
    for words, model in cases.items():
        with pytest.raises(UserError, match=words):
            meta_rules.pretrain(model, rows, rule="oja")
    model = keras.Sequential([L.Dense(3, "relu")])
    with pytest.raises(UserError, match="from 1 to 1"):
        meta_rules.pretrain(model, rows, layers=2, rule="oja")
    with pytest.raises(UserError, match="layer_sizes"):
        meta_rules.pretrain(model, rows, layer_sizes=(3,), rule="oja")
