"""What every registered rule and estimator owes, whoever wrote it.

The suite finds rules and estimators in their registries; `contract_cases` makes them small.
"""

import functools
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys

import contract_cases as cases
import numpy as np
import pytest
import tensorflow as tf
from contract_cases import BATCH, RULES, SIZES, TASKS
from small_problems import SmallRule, small_family

from meta_rules import estimators, feedback, rules, saved_rules
from meta_rules.estimators import Estimator
from meta_rules.estimators.groups import estimate_in_groups
from meta_rules.rules import UpdateRule
from meta_rules.saved_model import LearnedFeatures
from meta_rules.trajectories import RuleLearning

every_rule = pytest.mark.parametrize("name", RULES)
with_errors = [name for name in RULES if cases.has_error_signal(name)]


def flat(nest):
    return [leaf.numpy() for leaf in tf.nest.flatten(nest)]


def assert_nests_close(found, expected, **tolerance):
    for a, b in zip(flat(found), flat(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def specs(nest):
    return tf.nest.map_structure(lambda leaf: (tuple(leaf.shape), leaf.dtype), nest)


# The registries


def unregistered(package, base, registry):
    """Public subclasses of `base` in the modules of a package that are neither registered nor the base of one that is."""
    known = set(registry.values())
    missing = set()
    for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        module = importlib.import_module(info.name)
        for name, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, base) and cls is not base and not name.startswith("_"):
                if cls not in known and not any(issubclass(other, cls) for other in known):
                    missing.add(name)
    return missing


@pytest.mark.parametrize(
    ("package", "base", "registry"),
    [(rules, UpdateRule, rules.REGISTRY), (estimators, Estimator, estimators.REGISTRY)],
    ids=["rules", "estimators"],
)
def test_everything_public_is_registered(package, base, registry, monkeypatch):
    assert not unregistered(package, base, registry)
    # And the check sees a class that is not.
    name, cls = max(registry.items())
    monkeypatch.delitem(registry, name)
    assert unregistered(package, base, registry) == {cls.__name__}


def test_every_rule_has_a_small_case():
    assert set(cases.SMALL) == set(rules.REGISTRY)


# Rules


@every_rule
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shapes_and_dtypes_are_stable(name, dtype):
    rule = cases.make(name, dtype)
    state, theta = cases.initial(rule), rule.theta()
    assert all(value.dtype == dtype for value in theta.values())
    after, _ = cases.one_step(rule, rule.network(SIZES), theta, state, cases.batches(dtype=dtype)[0])
    tf.nest.assert_same_structure(state, after)
    assert specs(after) == specs(state)
    assert all(leaf.dtype == dtype and leaf.shape[0] == TASKS for leaf in tf.nest.flatten(after))
    assert [kernel.shape[1:] for kernel in after.kernels] == [(6, 5), (5, 4)]
    # A rule that leaves its network alone would pass most of what follows.
    assert all(np.any(a != b) for a, b in zip(flat(after.kernels), flat(state.kernels), strict=True))


@every_rule
def test_compiled_equals_eager_and_does_not_retrace(name):
    rule, run = cases.make(name), cases.compiled(cases.learn, name)
    state, data = cases.initial(rule), cases.batches()
    found = run(rule.theta(), state, data)
    expected = state
    for i in range(cases.STEPS):
        expected, _ = cases.one_step(rule, cases.network(name), rule.theta(), expected, data[i])
    assert_nests_close(found, expected, rtol=1e-7, atol=1e-9)
    # What came out goes in again, with other data.
    run({key: value + 0.01 for key, value in rule.theta().items()}, found, cases.batches(seed=2))
    assert run.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("name", [name for name in RULES if cases.make(name).permutation_equivariant])
def test_permuting_the_inputs_permutes_the_rows_of_the_first_kernel_alone(name):
    rule, run = cases.make(name), cases.compiled(cases.learn, name)
    state, data = cases.initial(rule), cases.batches()
    order = np.array([4, 0, 5, 2, 1, 3])

    def permuted(state):
        def first(matrices):
            return tuple(tf.gather(m, order, axis=1) if i == 0 else m for i, m in enumerate(matrices))

        return state._replace(kernels=first(state.kernels), feedback=first(state.feedback))

    found = run(rule.theta(), permuted(state), tf.gather(data, order, axis=3))
    assert_nests_close(found, permuted(run(rule.theta(), state, data)), rtol=1e-7, atol=1e-9)


def cut_off(state):
    """The same for feedback and lateral weights: what `test_a_local_rule...` moves reaches its units on no way round.

    Unit 1 of the first layer, and unit 0 of the second, receive nothing from their layers, to which units 3 and 2 send
    nothing; of the second layer only unit 0 sends an error down, and not to unit 1.
    """
    random = np.random.default_rng(6)
    feedback = [leaf.numpy() for leaf in state.feedback]
    for matrix in feedback[1:]:
        matrix[:, :, 1:] = 0.0
        matrix[:, 1] = 0.0
    memory = []
    for layer, leaf in enumerate(tf.nest.flatten(state.memory)):
        values = leaf.numpy()
        if values.ndim == 3 and values.shape[1] == values.shape[2]:
            values = -0.1 * np.abs(random.normal(size=values.shape)) * (1.0 - np.eye(values.shape[1]))
            values[:, (3, 2)[layer]] = 0.0
            values[:, :, (1, 0)[layer]] = 0.0
        memory.append(tf.constant(values))
    return state._replace(
        feedback=tuple(map(tf.constant, feedback)), memory=tf.nest.pack_sequence_as(state.memory, memory)
    )


@pytest.mark.parametrize("name", [name for name in RULES if cases.kind(name).neuron_local])
def test_a_local_rule_ignores_what_its_units_cannot_see(name):
    rule = cases.make(name)
    net, state, inputs = cases.network(name), cases.initial(rule), cases.batches()[0]
    # Input 2 does not reach unit 1 of the first layer, nor does that layer's unit 3 reach unit 0 of the second.
    first, second = (kernel.numpy() for kernel in state.kernels)
    first[:, 2, 1] = 0.0
    second[:, 3, 0] = 0.0
    state = cut_off(state)

    def changes(first, second, inputs):
        before = state._replace(kernels=(tf.constant(first), tf.constant(second)))
        after, _ = cases.one_step(rule, net, rule.theta(), before, inputs)
        return [a - b for a, b in zip(flat(after.kernels), (first, second), strict=True)]

    def same(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)

    plain = changes(first, second, inputs)
    random = np.random.default_rng(0)

    moved = inputs.numpy()
    moved[:, :, 2] = random.normal(size=moved.shape[:2])
    other = changes(first, second, tf.constant(moved))
    same(np.delete(other[0], 2, axis=1)[:, :, 1], np.delete(plain[0], 2, axis=1)[:, :, 1])
    assert np.all(other[0][:, 2, 1] != plain[0][:, 2, 1])

    moved = first.copy()
    moved[:, :, 3] += random.normal(size=moved.shape[:2])
    other = changes(moved, second, inputs)
    same(np.delete(other[0], 3, axis=2), np.delete(plain[0], 3, axis=2))
    same(np.delete(other[1], 3, axis=1)[:, :, 0], np.delete(plain[1], 3, axis=1)[:, :, 0])
    assert np.all(other[1][:, 3, 0] != plain[1][:, 3, 0])

    moved = second.copy()
    moved[:, :, 2] += random.normal(size=moved.shape[:2])
    other = changes(first, moved, inputs)
    same(np.delete(other[1], 2, axis=2), np.delete(plain[1], 2, axis=2))
    assert np.all(other[1][:, :, 2] != plain[1][:, :, 2])


@every_rule
def test_a_rule_s_docstring_says_whether_it_is_local(name):
    text = " ".join(inspect.getdoc(cases.kind(name)).lower().split())
    assert "neuron-local" in text
    assert ("not neuron-local" in text) == (not cases.kind(name).neuron_local)


def test_some_rules_claim_locality_and_equivariance():
    claims = [(cls.neuron_local, cls.permutation_equivariant) for cls in rules.REGISTRY.values()]
    assert all(map(any, zip(*claims, strict=True)))


@every_rule
def test_gradient_equals_finite_differences(name):
    rule, run = cases.make(name), cases.compiled(cases.gradient, name, jit_compile=False)
    theta, state, data = rule.theta(), cases.initial(rule), cases.batches()
    _, found = run(theta, state, data)
    assert found.keys() == theta.keys()
    # So small that hardly ever a relu or a winner changes within it.
    random, epsilon, largest = np.random.default_rng(3), 1e-7, 0.0
    for key, value in theta.items():
        direction = random.normal(size=value.shape)

        def loss(sign, key=key, value=value, direction=direction):
            return float(run({**theta, key: value + sign * epsilon * direction}, state, data)[0])

        numeric = (loss(1) - loss(-1)) / (2 * epsilon)
        assert float(tf.reduce_sum(found[key] * direction)) == pytest.approx(numeric, rel=1e-5, abs=2e-6), key
        largest = max(largest, abs(numeric))
    assert largest > 1e-4


@every_rule
def test_a_saved_rule_comes_back(name, tmp_path):
    rule = cases.make(name, "float32")
    saved_rules.save_rule(tmp_path, rule)
    again = saved_rules.load_rule(str(tmp_path))
    assert type(again) is type(rule) and again.rule_config() == rule.rule_config()
    assert again.theta().keys() == rule.theta().keys()
    state, inputs = cases.initial(rule), cases.batches(dtype="float32")[0]
    expected = rule(state, inputs, network=rule.network(SIZES))
    assert_nests_close(again(state, inputs, network=again.network(SIZES)), expected, rtol=0)


def exported_equals_eager(rule, path, steps=2):
    """Exports, loads and compares the features for rows of two widths."""
    # Not relu: it makes rows of zeros, which are equally near to all units of `competitive`.
    module = LearnedFeatures(rule, hidden=SIZES[1:], activation="tanh", batch_size=BATCH)
    tf.saved_model.save(module, str(path))
    loaded = tf.saved_model.load(str(path))
    for width in (SIZES[0], 9):
        rows = tf.constant(np.random.default_rng(width).normal(size=(20, width)), tf.float32)
        found = loaded.features(rows, steps, 11)["features"]
        tf.config.run_functions_eagerly(True)
        try:
            expected = module.features(rows, tf.constant(steps), tf.constant(11))["features"]
        finally:
            tf.config.run_functions_eagerly(False)
        assert found.shape == (20, SIZES[-1])
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


#: Large programs, which take half a minute to export.
LARGE = ("default", "metz2019")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in RULES]
)
def test_an_exported_rule_gives_the_same_features(name, tmp_path):
    exported_equals_eager(cases.make(name, "float32"), tmp_path / "model")


@every_rule
def test_states_stay_finite(name):
    rule, run = cases.make(name, "float32"), cases.compiled(cases.learn, name, "float32", jit_compile=False)
    data = cases.batches(50, dtype="float32").numpy()
    dead, constant = data.copy(), np.broadcast_to(data[:1, :, :1], data.shape)
    dead[..., [0, 3]] = 0.0
    for inputs in (data, 100.0 * data, dead, constant, np.zeros_like(data)):
        after = run(rule.theta(), cases.initial(rule), tf.constant(inputs))
        assert all(np.isfinite(leaf).all() for leaf in flat(after))


@every_rule
@pytest.mark.parametrize("inputs", ["dead", "constant", "zero"])
def test_gradients_stay_finite(name, inputs):
    rule, data = cases.make(name, "float32"), cases.batches(dtype="float32").numpy()[0]
    data[..., [0, 3]] = 0.0
    if inputs != "dead":
        data[:] = data[:1, :1] if inputs == "constant" else 0.0
    _, gradient = cases.one_step(
        rule, rule.network(SIZES), rule.theta(), cases.initial(rule), tf.constant(data)
    )
    assert all(np.isfinite(value).all() for value in gradient.values())


@pytest.mark.parametrize("scheme", sorted(feedback.SCHEMES))
@pytest.mark.parametrize("name", with_errors)
def test_every_feedback_scheme_works(name, scheme):
    rule = cases.make(name, feedback=scheme)
    state, inputs = cases.initial(rule), cases.batches()[0]
    after, gradient = cases.one_step(rule, cases.network(name, feedback=scheme), rule.theta(), state, inputs)
    assert specs(after) == specs(state)
    # None would be a parameter that this scheme leaves without a use.
    assert all(value is not None and np.isfinite(value).all() for value in gradient.values())
    assert all(np.isfinite(leaf).all() for leaf in flat(after))
    changed = [np.any(a != b) for a, b in zip(flat(after.feedback), flat(state.feedback), strict=True)]
    assert changed == [rule.scheme.learned] * len(state.feedback)
    rewired = state._replace(feedback=tf.nest.map_structure(lambda leaf: leaf[:, ::-1], state.feedback))
    other, _ = cases.one_step(rule, cases.network(name, feedback=scheme), rule.theta(), rewired, inputs)
    moved = any(np.any(a != b) for a, b in zip(flat(other.kernels), flat(after.kernels), strict=True))
    assert moved == bool(state.feedback)


def test_two_replicas_equal_one(tmp_path):
    path = tmp_path / "replicas.npz"
    script = os.path.join(os.path.dirname(__file__), "contract_replicas.py")
    done = subprocess.run([sys.executable, script, str(path)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = dict(np.load(path))
    assert found["replicas"] == 2
    for name in RULES:
        rule = cases.make(name)
        state, gradient = cases.one_step(
            rule, cases.network(name), rule.theta(), cases.initial(rule), cases.batches()[0]
        )
        for i, leaf in enumerate(flat(state)):
            np.testing.assert_allclose(found[f"{name} state {i}"], leaf, rtol=1e-9, atol=1e-10)
        for key, value in gradient.items():
            for replica in range(2):
                part = found[f"{name} gradient {replica} {key}"]
                np.testing.assert_allclose(part, value, rtol=1e-6, atol=1e-9)


class WithoutParameters(UpdateRule):
    """Plain Hebb with a fixed step."""

    def __init__(self, feedback="none", seed=0, **kwargs):
        super().__init__(feedback=feedback, seed=seed, **kwargs)
        self.build_parameters()

    def parameters(self):
        return {}

    def update(self, theta, network, state, inputs, keys):
        below = network.activities(state, inputs).pre[:-1]
        kernels = [
            w + 0.1 * tf.matmul(x, x @ w, transpose_a=True) for w, x in zip(state.kernels, below, strict=True)
        ]
        return state._replace(kernels=tuple(kernels))


def test_a_rule_without_parameters_runs_and_is_saved_and_exported(tmp_path, monkeypatch):
    monkeypatch.setattr(WithoutParameters, "rule_name", "plain")
    monkeypatch.setitem(rules.REGISTRY, "plain", WithoutParameters)
    rule = rules.make("plain")
    saved_rules.save_rule(tmp_path / "rule", rule)
    again = saved_rules.load_rule(str(tmp_path / "rule"))
    assert again.theta() == {}
    data = cases.batches(dtype="float32")
    run = tf.function(lambda s, d: cases.learn(again, again.network(SIZES), {}, s, d), jit_compile=True)
    after = run(cases.initial(rule), data)
    assert np.any(after.kernels[0] != cases.initial(rule).kernels[0])
    exported_equals_eager(again, tmp_path / "model")


# Estimators


ESTIMATORS = sorted(estimators.REGISTRY)
WINDOW = 3


class Breakable(RuleLearning):
    """Rule learning in which the network in one slot has no finite loss."""

    broken = tf.zeros([2], tf.int32)

    def loss(self, theta, trajectory):
        loss, figures = super().loss(theta, trajectory)
        hit = tf.reduce_all(trajectory.slot == self.broken, axis=-1)
        return loss * tf.where(hit, tf.constant(float("nan"), loss.dtype), tf.ones_like(loss)), figures


@functools.cache
def estimation(name):
    """An estimator, meta-parameters as it wants them, its first pool of three slots, and its compiled estimate."""
    estimator, problem = estimators.REGISTRY[name](), Breakable(SmallRule(), small_family())
    theta = problem.rule.theta()
    slots = estimator.slots(tf.constant([3, 4]), TASKS)
    pool = estimator.initial(problem, theta, slots)
    if estimator.host_update:
        random = np.random.default_rng(0)
        theta = {k: v + 0.1 * random.normal(size=[TASKS, *v.shape]).astype("f") for k, v in theta.items()}
    length = estimator.length(problem, WINDOW)

    def estimate(theta, pool, broken):
        problem.broken = broken
        return estimator.estimate(problem, theta, pool, length)

    return estimator, theta, pool, tf.function(estimate, jit_compile=True, autograph=False)


NOBODY = tf.constant([0, 0])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimate_is_complete_repeatable_and_compiled_once(name):
    estimator, theta, pool, run = estimation(name)
    found = run(theta, pool, NOBODY)
    assert specs(found.pool) == specs(pool)
    assert {"loss", "age", "used"} <= found.metrics.keys()
    assert all(value.shape == (TASKS,) and np.isfinite(value).all() for value in found.metrics.values())
    assert float(found.weight) == TASKS and np.all(found.metrics["used"] == 1)
    if estimator.host_update:
        assert found.gradient == {}
    else:
        assert specs(found.gradient) == specs(theta)
        assert all(np.isfinite(value).all() and np.any(value != 0.0) for value in found.gradient.values())
    assert_nests_close(run(theta, pool, NOBODY), found, rtol=0)
    following = run(theta, found.pool, NOBODY)
    assert np.any(following.metrics["loss"] != found.metrics["loss"])
    assert run.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimate_in_groups_is_that_of_all_slots_at_once(name):
    estimator, theta, pool, run = estimation(name)
    problem = RuleLearning(SmallRule(), small_family())
    length = estimator.length(problem, WINDOW)
    for size in (1, 2):
        grouped = tf.function(
            lambda theta, pool, size=size: estimate_in_groups(estimator, problem, theta, pool, length, size),
            autograph=False,
        )
        assert_nests_close(grouped(theta, pool), run(theta, pool, NOBODY), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_task_that_is_not_finite_does_not_touch_the_others(name):
    estimator, theta, pool, run = estimation(name)
    whole = run(theta, pool, NOBODY)
    if estimator.host_update:
        # All candidates live through the same tasks, so it is a candidate that is broken.
        lost = {key: tf.tensor_scatter_nd_update(v, [[1]], v[1:2] * np.nan) for key, v in theta.items()}
        found = run(lost, pool, NOBODY)
        np.testing.assert_array_equal(found.metrics["used"], [1, 0, 1, 1])
        np.testing.assert_array_equal(
            np.delete(found.metrics["loss"], 1), np.delete(whole.metrics["loss"], 1)
        )
        return
    slots = estimator.slots(tf.constant([3, 4]), TASKS)
    found = [run(theta, pool, slot) for slot in slots]
    np.testing.assert_array_equal([part.metrics["used"] for part in found], 1 - np.eye(TASKS))
    # Every task's share is in all sums but the one that it is broken in.
    for key, value in whole.gradient.items():
        total = sum(part.gradient[key] for part in found)
        np.testing.assert_allclose(total, (TASKS - 1) * value, rtol=1e-3, atol=1e-5)
