"""The contrast between two views: its errors are the gradient of the objective in the module's text, and act in the genome."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics.pairwise import cosine_distances

from meta_rules import rules, stateless
from meta_rules.errors import UserError
from meta_rules.rules import consistency
from meta_rules.rules.base import per_task
from meta_rules.rules.contrast import contrast_errors, sought_examples

TEMPERATURE = 0.3
KEYS = stateless.split(stateless.key(5), 2)
TWO_VIEWS = {"corruption": 0.4, "feedback": "symmetric", "dtype": "float64"}


def objective(z, view, sought):
    """The objective for `[batch, units]`, example by example: how surely each view finds whom it seeks, `[batch, batch]`."""
    z, view = (tf.math.l2_normalize(each, axis=1) for each in (z, view))
    total = 0.0
    for i in range(len(z)):
        by_row = sum(tf.exp(tf.reduce_sum(z[i] * other) / TEMPERATURE) for other in view)
        by_column = sum(tf.exp(tf.reduce_sum(other * view[i]) / TEMPERATURE) for other in z)
        for j, share in enumerate(sought[i]):
            found = tf.reduce_sum(z[i] * view[j]) + tf.reduce_sum(z[j] * view[i])
            total += share * (found / TEMPERATURE - tf.math.log(by_row) - tf.math.log(by_column))
    return total / (2 * len(z))


def nearest(z, view):
    """Whether the second view of an example is nearer to its first, by angle, than that of any other: `[batch]`."""
    z, view = (np.asarray(each) / np.linalg.norm(each, axis=1, keepdims=True) for each in (z, view))
    return np.argmax(z @ view.T, axis=1) == np.arange(len(z))


@pytest.mark.parametrize("neighbours", [0.0, 0.4])
def test_errors_are_the_gradient_of_the_objective_for_every_task(neighbours):
    random = np.random.default_rng(0)
    z, view = (tf.constant(random.normal(size=(2, 9, 5))) for _ in range(2))
    inputs = random.normal(size=(2, 9, 3))
    sought = np.broadcast_to(sought_examples(tf.constant(inputs), neighbours), [2, 9, 9])
    found = contrast_errors(z, view, tf.constant([TEMPERATURE] * 2, tf.float64), tf.constant(sought))
    for task in range(2):
        pair = z[task], view[task]
        with tf.GradientTape() as tape:
            tape.watch(pair)
            value = objective(*pair, sought[task])
        # The epsilons inside the lengths of the rule are no part of the objective here.
        np.testing.assert_allclose(found[task], 9 * tf.stack(tape.gradient(value, pair)), atol=1e-5)


def test_an_example_that_no_unit_answers_to_has_finite_errors():
    z = tf.constant(np.random.default_rng(1).normal(size=(1, 6, 4)), tf.float32)
    silent = tf.concat([tf.zeros([1, 1, 4]), z[:, 1:]], axis=1)
    for neighbours in (0.0, 0.5):
        sought = sought_examples(silent, neighbours)
        assert np.isfinite(contrast_errors(silent, z, tf.constant([0.01]), sought)).all()


def test_an_example_seeks_itself_and_the_one_at_the_smallest_angle():
    inputs = np.random.default_rng(4).normal(size=(2, 8, 3)).astype(np.float32)
    inputs[0, 5] = -0.5 * inputs[0, 2]
    found = sought_examples(tf.constant(inputs), 0.25)
    for task in range(2):
        angle = cosine_distances(inputs[task]) + 9.0 * np.eye(8)
        expected = 0.75 * np.eye(8) + 0.25 * np.eye(8)[angle.argmin(axis=1)]
        np.testing.assert_allclose(found[task], expected, atol=1e-6)
    np.testing.assert_array_equal(sought_examples(tf.constant(inputs)), np.eye(8)[None])


def test_a_share_too_small_for_a_unit_is_no_contrast_and_its_parameters_have_a_gradient_of_zero():
    random = np.random.default_rng(3)
    z, view = (tf.constant(random.normal(size=(2, 9, 5)), tf.float32) for _ in range(2))
    theta = per_task(rules.make("genome", directions=0.01, **TWO_VIEWS).theta(), 2)
    theta = {name: tf.cast(value, tf.float32) for name, value in theta.items()}
    with tf.GradientTape() as tape:
        tape.watch(theta)
        found = consistency.own_errors(theta, z, view, 0.01, sought_examples(z))
        total = tf.reduce_sum(tf.square(found))
    np.testing.assert_array_equal(found, consistency.own_errors(theta, z, view, 0.0))
    gradient = tape.gradient(total, theta)
    for name in consistency.CONTRAST:
        np.testing.assert_array_equal(gradient[f"consistency/{name}"], [0.0, 0.0])
    for name in consistency.WEIGHTS:
        assert np.all(gradient[f"consistency/{name}"] != 0.0)


def test_views_of_an_example_find_each_other_in_the_units_for_contrast_once_the_genome_has_learned():
    rule = rules.make("genome", directions=0.7, linear_top=True, **TWO_VIEWS)
    sizes = (20, 16, 10)
    network, state = rule.network(sizes), rule.initial_state(sizes, KEYS)
    random = np.random.default_rng(2)
    mixing = random.normal(size=(6, 20))
    inputs = tf.constant(random.normal(size=(2, 40, 6)) @ mixing)

    def found(state):
        pair = network(state, inputs), network(state, inputs + random.normal(size=inputs.shape))
        return np.mean([np.mean(nearest(*(each[task][:, 3:] for each in pair))) for task in range(2)])

    first = found(state)
    learn = tf.function(
        lambda state, keys: rule.update(per_task(rule.theta(), 2), network, state, inputs, keys)
    )
    for step in range(100):
        state = learn(state, stateless.fold(KEYS, "step", step))
    assert found(state) > first + 0.2


@pytest.mark.parametrize(("directions", "classes"), [(0.0, 7), (0.4, 4), (0.99, 1)])
def test_every_unit_has_one_objective(directions, classes):
    """Classes first, the rest for contrast, each as if the others were not there."""
    random = np.random.default_rng(3)
    z, view = (tf.constant(random.normal(size=(1, 9, 7))) for _ in range(2))
    weights = {
        "sharpness": 1.7,
        "certainty": 0.2,
        "balance": 0.5,
        "contrast": 0.8,
        "temperature": TEMPERATURE,
    }
    theta = {
        f"consistency/{name}": tf.constant([np.log(value)], tf.float64) for name, value in weights.items()
    }
    sought = sought_examples(z, 0.2)
    found = consistency.own_errors(theta, z, view, directions, sought)
    wanted = consistency.consistency_errors(
        z[..., :classes], view[..., :classes],
        *(tf.constant([weights[name]], tf.float64) for name in consistency.WEIGHTS),
    )  # fmt: skip
    np.testing.assert_allclose(found[..., :classes], wanted, rtol=1e-12)
    if classes < 7:
        wanted = contrast_errors(
            z[..., classes:], view[..., classes:], tf.constant([TEMPERATURE], tf.float64), sought
        )
        np.testing.assert_allclose(found[..., classes:], 0.8 / 1.7 * wanted, rtol=1e-12)


def test_a_layer_of_one_unit_stands_for_classes():
    z = tf.constant(np.random.default_rng(4).normal(size=(2, 9, 1)))
    theta = {
        f"consistency/{name}": tf.zeros([2], tf.float64)
        for name in consistency.WEIGHTS | consistency.CONTRAST
    }
    assert consistency.own_errors(theta, z, z, 0.9, sought_examples(z)).shape == (2, 2, 9, 1)


@pytest.mark.parametrize("name", ["default", "genome"])
@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("corruption", {"directions": 0.5}),
        (r"\[0, 1\)", {"directions": 1.0, "corruption": 0.3}),
        (r"\[0, 1\)", {"directions": -0.1, "corruption": 0.3}),
        (r"neighbours must be in \[0, 1\)", {"neighbours": 1.5, "directions": 0.5, "corruption": 0.3}),
        ("sought by directions", {"neighbours": 0.3, "corruption": 0.3}),
    ],
)
def test_directions_that_there_cannot_be_are_refused(name, words, options):
    with pytest.raises(UserError, match=words):
        rules.make(name, **options)
