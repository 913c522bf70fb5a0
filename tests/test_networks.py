"""The base network against stock Keras layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_rules import stateless
from meta_rules.errors import UserError
from meta_rules.networks import BaseNetwork, NetworkState, shortened
from meta_rules.rules import DefaultRule


def small_state(tasks=2, sizes=(7, 5, 3)):
    state = DefaultRule().initial_state(sizes, stateless.split(stateless.key(0), tasks))
    biases = tuple(
        tf.reshape(stateless.normal(stateless.key(9), tasks * size), [tasks, size]) for size in sizes[1:]
    )
    return state._replace(biases=biases)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_linear_top_leaves_out_the_last_activation_only(activation):
    inputs = tf.constant(np.random.default_rng(4).normal(size=(2, 11, 7)).astype(np.float32))
    state = small_state()
    usual = BaseNetwork((7, 5, 3), activation=activation).activities(state, inputs)
    linear = BaseNetwork((7, 5, 3), activation=activation, linear_top=True)
    found = linear.activities(state, inputs)
    np.testing.assert_array_equal(found.pre[2], usual.pre[2])
    np.testing.assert_array_equal(found.post[1], usual.post[1])
    np.testing.assert_array_equal(linear(state, inputs), usual.pre[2])


def test_features_without_their_length_keep_their_direction_only():
    inputs = tf.constant(np.random.default_rng(4).normal(size=(2, 11, 7)).astype(np.float32))
    state = small_state()
    usual = BaseNetwork((7, 5, 3), linear_top=True)(state, inputs).numpy()
    found = BaseNetwork((7, 5, 3), linear_top=True, length_kept=0.0)(state, inputs).numpy()
    lengths = np.linalg.norm(usual, axis=-1, keepdims=True)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 3**0.5, rtol=1e-5)
    np.testing.assert_allclose(found * lengths, usual * 3**0.5, rtol=1e-5, atol=1e-6)


def test_a_part_of_the_length_is_kept():
    activity = np.random.default_rng(5).normal(size=(2, 11, 4)) * 10.0 ** np.linspace(-3, 3, 11)[:, None]
    found = shortened(tf.constant(activity), 0.25).numpy()
    before, after = (np.sqrt(np.square(values).mean(axis=-1)) for values in (activity, found))
    np.testing.assert_allclose(found * before[..., None], activity * after[..., None], rtol=1e-9)
    # What is far below a root mean square of 1 doubles, what is far above comes down to one length.
    np.testing.assert_allclose(after[before < 0.01], 2.0 * before[before < 0.01], rtol=1e-3)
    np.testing.assert_allclose(after[before > 100], 0.75**-0.5, rtol=1e-3)
    usual = activity / before[..., None]
    np.testing.assert_allclose(shortened(tf.constant(usual), 0.25), usual, rtol=1e-9)
    np.testing.assert_array_equal(shortened(tf.constant(activity), 1.0), activity)


def test_one_feature_has_no_direction_and_zeros_have_none():
    inputs = tf.constant(np.random.default_rng(4).normal(size=(2, 11, 7)).astype(np.float32))
    state = small_state(sizes=(7, 5, 1))
    one, usual = (BaseNetwork((7, 5, 1), length_kept=kept)(state, inputs) for kept in (0.0, 1.0))
    np.testing.assert_array_equal(one, usual)
    nothing = tf.Variable(tf.zeros([2, 3, 4]))
    with tf.GradientTape() as tape:
        found = shortened(nothing, 0.0)
    np.testing.assert_array_equal(found, np.zeros([2, 3, 4]))
    assert np.isfinite(tape.gradient(found, nothing)).all()


@pytest.mark.parametrize("activation", ["relu", "elu", "tanh", "sigmoid"])
def test_equal_to_stock_keras_layers(activation):
    state = small_state()
    network = BaseNetwork((7, 5, 3), activation=activation, standardise_inputs=False)
    inputs = np.random.default_rng(0).normal(size=(2, 11, 7)).astype(np.float32)
    for task in range(2):
        layers = [keras.Input([7])]
        for size in (5, 3):
            layers += [
                keras.layers.Dense(size, use_bias=False),
                keras.layers.BatchNormalization(epsilon=1e-6, scale=False),
                keras.layers.Activation(activation),
            ]
        model = keras.Sequential(layers)
        for i in range(2):
            model.layers[3 * i].set_weights([state.kernels[i][task].numpy()])
            norm = model.layers[3 * i + 1]
            norm.beta.assign(state.biases[i][task])
        expected = model(inputs[task], training=True).numpy()
        np.testing.assert_allclose(network(state, inputs)[task], expected, atol=2e-5)


def test_frozen_statistics_reproduce_the_batch_and_serve_single_rows():
    state, network = small_state(), BaseNetwork((7, 5, 3))
    inputs = tf.constant(np.random.default_rng(1).normal(size=(2, 40, 7)).astype(np.float32))
    frozen = network.statistics(state, inputs)
    whole = network(state, inputs)
    np.testing.assert_allclose(network(state, inputs, frozen), whole, atol=1e-6)
    np.testing.assert_allclose(network(state, inputs[:, 3:4], frozen), whole[:, 3:4], atol=1e-5)


def test_constant_inputs_stay_finite():
    state, network = small_state(), BaseNetwork((7, 5, 3))
    for level in (0.0, 3.0):
        for layer in network.activities(state, tf.fill([2, 6, 7], level)).pre:
            assert np.isfinite(layer).all()


@pytest.mark.parametrize("sizes", [(4,), (4, 0, 2)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(UserError, match="layer_sizes"):
        BaseNetwork(sizes)


def test_unknown_activation_names_the_known_ones():
    with pytest.raises(UserError, match="relu"):
        BaseNetwork((3, 2), activation="rleu")


@pytest.mark.parametrize("kept", [-0.1, 1.5, float("nan")])
def test_a_length_that_cannot_be_kept(kept):
    with pytest.raises(UserError, match="length_kept must lie between 0 and 1"):
        BaseNetwork((3, 2), length_kept=kept)


def test_configuration_round_trip():
    network = BaseNetwork(
        (7, 5, 3),
        activation="tanh",
        epsilon=1e-4,
        standardise_inputs=False,
        linear_top=True,
        length_kept=0.25,
    )
    again = BaseNetwork.from_config(network.get_config())
    assert again.get_config() == network.get_config() and again.depth == 2
    assert isinstance(small_state(), NetworkState)
