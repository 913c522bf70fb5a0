"""Relations between examples: targets against scikit-learn, errors against automatic differentiation, when they are kept."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax
from sklearn.metrics.pairwise import cosine_similarity

from meta_rules import rules, stateless
from meta_rules.errors import UserError
from meta_rules.rules import consistency, kinds
from meta_rules.rules.base import per_task
from meta_rules.rules.contrast import contrast_errors, sought_examples
from meta_rules.rules.relations import Kept, relation_errors, relations

TEMPERATURE = 0.3
#: Of directions beside classes, with a contrast of 0.8.
STRENGTH = 0.8 / consistency.WEIGHTS["sharpness"]
COLD = tf.constant([TEMPERATURE] * 2, tf.float64)
KEYS = stateless.split(stateless.key(5), 2)
RELATED = {
    "planes": ("learned", "consistency"),
    "corruption": 0.3,
    "directions": 0.5,
    "kinds": True,
    "linear_top": True,
    "falling": True,
    "feedback": "symmetric",
}


def drawn(*shape, seed=0):
    """Normal numbers as a tensor of float64."""
    return tf.constant(np.random.default_rng(seed).normal(size=shape))


def test_examples_are_wanted_as_near_as_the_angles_between_their_inputs_say():
    inputs = drawn(2, 9, 4).numpy() + 3.0
    found = relations(tf.constant(inputs), COLD)
    for task in range(2):
        alike = cosine_similarity(inputs[task] - inputs[task].mean(axis=0))
        np.testing.assert_allclose(found[task], softmax(alike / TEMPERATURE, axis=1), atol=1e-5)


def test_errors_are_the_gradient_of_the_objective_for_every_task():
    z, wanted = drawn(2, 9, 5), relations(drawn(2, 9, 4, seed=1), COLD)
    found = relation_errors(z, COLD, wanted)
    for task in range(2):
        with tf.GradientTape() as tape:
            tape.watch(z)
            along = tf.math.l2_normalize(z[task], axis=1)
            value = 0.0
            for i in range(9):
                near = tf.reduce_sum(along[i] * along, axis=1) / TEMPERATURE
                value += tf.reduce_sum(wanted[task, i] * tf.nn.log_softmax(near)) / 9
        # The epsilons inside the lengths of the rule are no part of the objective here.
        np.testing.assert_allclose(found[task], 9 * tape.gradient(value, z)[task], atol=1e-5)


def test_nothing_is_wrong_with_inputs_that_were_only_turned():
    inputs = drawn(2, 9, 4)
    inputs -= tf.reduce_mean(inputs, axis=1, keepdims=True)
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))
    wanted = relations(inputs, COLD)
    np.testing.assert_allclose(relation_errors(3.0 * inputs @ turn, COLD, wanted), 0.0, atol=1e-5)
    assert np.abs(relation_errors(inputs[..., :2], COLD, wanted)).max() > 0.1


def test_examples_without_an_answer_or_an_input_have_finite_errors():
    silent = tf.concat([tf.zeros([2, 1, 4], tf.float64), drawn(2, 6, 4)], axis=1)
    for inputs in (silent, tf.zeros_like(silent)):
        wanted = relations(inputs, COLD)
        assert np.isfinite(relation_errors(silent, 0.01 * COLD, wanted)).all()


def errors(related, classes=4, units=7):
    """What a layer finds wrong where relations are kept so far; without relations; and by relations in all of its units."""
    z, view, inputs = drawn(2, 9, units), drawn(2, 9, units, seed=1), drawn(2, 9, 4, seed=2)
    theta = {
        f"consistency/{name}": tf.fill([2], tf.constant(np.log(value), tf.float64))
        for name, value in (consistency.WEIGHTS | {"contrast": 0.8, "temperature": TEMPERATURE}).items()
    }
    sought, wanted = sought_examples(inputs, 0.2), relations(inputs, COLD)
    share = 1.0 - classes / units
    plain = consistency.own_errors(theta, z, view, share, sought)
    found = consistency.own_errors(
        theta, z, view, share, sought, Kept(tf.constant(related, tf.float64), wanted)
    )
    return found, plain, STRENGTH * relation_errors(z, COLD, wanted)


def test_every_task_keeps_its_relations_in_all_units_or_has_the_objectives_without_them():
    found, plain, kept = errors(related=[0.0, 1.0])
    np.testing.assert_allclose(found[0], plain[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[1, 0], kept[1], rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found[1, 1], np.zeros_like(kept[1]))


def test_in_between_units_for_classes_are_directions_as_far_as_relations_are_kept():
    found, plain, _ = errors(related=[0.25, 0.25])
    part = tf.constant([0.25] * 4 + [1.0] * 3, tf.float64)
    z, view, inputs = drawn(2, 9, 7), drawn(2, 9, 7, seed=1), drawn(2, 9, 4, seed=2)
    expected = 0.75 * contrast_errors(part * z, part * view, COLD, sought_examples(inputs, 0.2)).numpy()
    expected[:, 0] += 0.25 * relation_errors(part * z, COLD, relations(inputs, COLD)).numpy()
    expected = STRENGTH * part * expected
    np.testing.assert_allclose(found[..., 4:], expected[..., 4:], rtol=1e-9)
    np.testing.assert_allclose(found[..., :4], (expected + 0.75 * plain)[..., :4], rtol=1e-9)


def learned(rule, inputs, steps, sizes=(20, 16, 6)):
    """Network and state after some applications to the same batch."""
    network, state = rule.network(sizes), rule.initial_state(sizes, KEYS)
    learn = tf.function(
        lambda state, keys: rule.update(per_task(rule.theta(), 2), network, state, inputs, keys)
    )
    for step in range(steps):
        state = learn(state, stateless.fold(KEYS, "step", step))
    return network, state


def held(rule, few):
    """The rule with its gate held at many or few kinds, whatever a batch holds."""
    levels = {"gate/few": tf.constant([few, 0.0, 0.0]), "gate/natural": tf.constant([40.0, 0.0, 0.0])}
    rule.assign(rule.theta() | levels)
    return rule


def test_where_kinds_are_few_the_rule_is_the_one_that_knows_no_relations():
    inputs = tf.cast(drawn(2, 12, 20), tf.float32)
    rule = held(rules.make("default", relations=True, seed=1, **RELATED), few=40.0)
    plain = rules.make("default", seed=1, **RELATED)
    plain.assign({name: value for name, value in rule.theta().items() if not name.startswith("gate/")})
    # Always the same batch, so what is remembered of it is what it tells.
    (_, found), (_, expected) = learned(rule, inputs, 3), learned(plain, inputs, 3)
    for pair in zip(found.kernels + found.biases, expected.kernels + expected.biases, strict=True):
        np.testing.assert_allclose(*pair, atol=1e-4)


def test_features_come_to_be_as_near_each_other_as_the_inputs_where_relations_are_kept():
    """Six units for inputs of six dimensions: the angles between examples, which a random network bends, come back."""
    inputs = tf.cast(drawn(2, 60, 6) @ drawn(6, 20, seed=1), tf.float32)
    rule = held(rules.make("default", relations=True, **RELATED), few=-40.0)
    rule.assign(rule.theta() | {"readout/bias": tf.ones([rule.hidden, 1]), "bias_step": tf.constant(-1.0)})
    angles = [cosine_similarity(each - each.mean(axis=0)) for each in inputs.numpy()]
    kept = []
    for steps in (0, 150):
        network, state = learned(rule, inputs, steps)
        features = network(state, inputs).numpy()
        pairs = [
            (wanted.ravel(), cosine_similarity(each).ravel())
            for wanted, each in zip(angles, features, strict=True)
        ]
        kept.append([np.corrcoef(*pair)[0, 1] for pair in pairs])
    assert min(kept[1]) > 0.9 > max(kept[0])
    # Biases that were told to move have hardly done so.
    assert max(np.abs(bias).max() for bias in state.biases) < 1e-3


def test_the_gate_opens_where_neither_sigmoid_says_no():
    theta = {"gate/few": [[0.5, 2.0, -1.0]], "gate/natural": [[-0.2, 1.0, 3.0]]}
    theta = {name: tf.constant(value) for name, value in theta.items()}
    found = kinds.gate(theta, tf.constant([[0.3, -0.4]]))
    np.testing.assert_allclose(found, [(1 - 1 / (1 + np.exp(-1.5))) / (1 + np.exp(1.1))], rtol=1e-6)


def test_what_batches_told_is_remembered_as_their_mean_and_later_as_that_of_the_last():
    told = np.random.default_rng(6).normal(size=(300, 1, 2)).astype(np.float32)
    mean = tf.fill([1, 2], 7.0)
    for age, seen in enumerate(told):
        mean = kinds.remembered(mean, tf.constant(seen), tf.constant([float(age)]))
        if age in (0, 40):
            np.testing.assert_allclose(mean, told[: age + 1].mean(axis=0), atol=1e-5)
    weights = (1 / 101) * (100 / 101) ** np.arange(199)
    recent = np.tensordot(weights, told[:100:-1], 1)
    np.testing.assert_allclose(mean, recent + (100 / 101) ** 199 * told[:101].mean(axis=0), atol=1e-4)


@pytest.mark.parametrize("missing", [{"kinds": False}, {"directions": 0.0}, {"planes": ("learned", "hebb")}])
def test_relations_without_what_they_need_are_refused(missing):
    with pytest.raises(UserError, match="kinds = True, directions"):
        rules.make("default", relations=True, **RELATED | missing)
