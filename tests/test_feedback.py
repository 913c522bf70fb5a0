"""Feedback schemes in closed form, and the gin files that choose them."""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

import gin
from meta_rules import configuration, estimators, feedback, rules, stateless, training_run  # noqa: F401  known to gin
from meta_rules.errors import UserError
from meta_rules.networks import NetworkState

SIZES = (6, 5, 4, 3)
GIN = os.path.join(os.path.dirname(__file__), "..", "gin", "feedback")


@pytest.fixture(params=sorted(feedback.SCHEMES))
def name(request):
    return request.param


def draw(keys, rows, columns):
    return tf.reshape(stateless.normal(keys, rows * columns, tf.float64), [-1, rows, columns])


def setting(name):
    """A scheme, a state with its matrices, and errors `[2 tasks, 3 channels, 7 examples, units]` of every layer."""
    scheme, keys = feedback.scheme(name), stateless.split(stateless.key(1), 2)
    shapes = list(zip(SIZES[:-1], SIZES[1:], strict=True))
    kernels = tuple(draw(stateless.fold(keys, "w", i), *shape) for i, shape in enumerate(shapes))
    biases = tuple(tf.zeros([2, units], tf.float64) for units in SIZES[1:])
    state = NetworkState(kernels, biases, scheme.initial(SIZES, stateless.fold(keys, "v"), draw))
    random = np.random.default_rng(0)
    errors = [tf.constant(random.normal(size=(2, 3, 7, units))) for units in SIZES]
    return scheme, state, errors


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_errors_go_down_through_the_matrix_of_the_scheme(name, layer):
    scheme, state, errors = setting(name)
    found = scheme.down(state, layer, errors[layer], errors[-1])
    assert found.dtype == tf.float64 and found.shape == (2, 3, 7, SIZES[layer - 1])
    sent = errors[-1] if name == "direct" else errors[layer]
    matrix = {
        "learned": lambda: state.feedback[layer - 1],
        "random": lambda: state.feedback[layer - 1],
        "direct": lambda: state.feedback[layer - 1],
        "symmetric": lambda: state.kernels[layer - 1],
        "none": lambda: tf.zeros([2, SIZES[layer - 1], SIZES[layer]], tf.float64),
    }[name]()
    expected = np.zeros(found.shape)
    for task in range(2):
        for channel in range(3):
            expected[task, channel] = sent[task, channel].numpy() @ matrix[task].numpy().T
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_symmetric_is_the_derivative_of_the_way_up():
    scheme, state, errors = setting("symmetric")
    below = tf.constant(np.random.default_rng(1).normal(size=(2, 7, 5)))
    with tf.GradientTape() as tape:
        tape.watch(below)
        above = tf.matmul(below, state.kernels[1])
    expected = tape.gradient(above, below, output_gradients=errors[2][:, 0])
    np.testing.assert_allclose(scheme.down(state, 2, errors[2], errors[-1])[:, 0], expected, rtol=1e-12)


def test_matrices_of_a_fresh_network(name):
    _, state, _ = setting(name)
    shapes = [tuple(matrix.shape) for matrix in state.feedback]
    if name in ("learned", "random"):
        assert shapes == [tuple(kernel.shape) for kernel in state.kernels]
        # Of their own: a copy of W would be `symmetric` at the start.
        for matrix, kernel in zip(state.feedback, state.kernels, strict=True):
            assert abs(np.corrcoef(matrix.numpy().ravel(), kernel.numpy().ravel())[0, 1]) < 0.6
    elif name == "direct":
        assert shapes == [(2, 6, 3), (2, 5, 3), (2, 4, 3)]
    else:
        assert shapes == []
    for matrix in state.feedback:
        assert np.any(matrix[0] != matrix[1])


def test_only_learned_changes_its_matrices(name):
    assert feedback.scheme(name).learned == (name == "learned")


def test_an_unknown_scheme_names_the_known_ones():
    with pytest.raises(UserError, match="learned, random, symmetric, direct, none"):
        rules.make("genome", feedback="lerned")


def test_none_leaves_lower_layers_without_error_and_zeros_stay_zeros_beside_a_broken_network():
    scheme, state, errors = setting("none")
    broken = state._replace(kernels=tuple(kernel * np.nan for kernel in state.kernels))
    np.testing.assert_array_equal(scheme.down(broken, 2, errors[2], errors[-1]), 0.0)


def test_there_is_a_gin_file_for_every_scheme():
    assert {file.removesuffix(".gin") for file in os.listdir(GIN)} == set(feedback.SCHEMES)


@pytest.mark.parametrize("spelled", ["gin/feedback/{}.gin", "feedback/{}.gin"])
def test_gin_files_choose_the_scheme_from_any_folder(name, spelled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configuration.parse([spelled.format(name)], [])
    assert gin.query_parameter("DefaultRule.feedback") == name
    # The rest of the job is there too.
    assert "DefaultRule" in str(gin.query_parameter("MetaTrainer.rule"))
    assert configuration.build(rules.DefaultRule).scheme.__class__ is feedback.SCHEMES[name]


def test_a_user_may_change_a_copy_of_such_a_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(os.path.join(GIN, f"{name}.gin"), tmp_path / "mine.gin")
    configuration.parse([str(tmp_path / "mine.gin")], ["DefaultRule.hidden = 6"])
    rule = configuration.build(rules.DefaultRule)
    assert (rule.feedback, rule.hidden) == (name, 6)
