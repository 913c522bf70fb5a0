"""Rules against the textbook: what each is known to find, and single changes written out in NumPy."""

import numpy as np
import print_rule
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver
from sklearn.decomposition import PCA

from meta_rules import rules, saved_rules, stateless
from meta_rules.errors import UserError
from meta_rules.inner_loop import unroll
from meta_rules.networks import BaseNetwork
from meta_rules.rules import genome
from meta_rules.rules.base import per_task
from meta_rules.rules.local import winners

KEYS = stateless.split(stateless.key(0), 1)


def learned(rule, network, sample, steps):
    """The first network's state after many public updates, each on the batch `sample(i)`, `[1, batch, in]`."""

    @tf.function(jit_compile=True, autograph=False)
    def run(theta):
        def step(copies, state, index):
            return rule.update(copies, network, state, tf.cast(sample(index), rule.dtype), KEYS), ()

        state = rule.initial_state(network.layer_sizes, KEYS)
        return unroll(step, per_task(theta, 1), state, steps, differentiable=False)[0]

    return run(rule.theta())


def drawn_from(rows, batch):
    """A `sample` of random batches of the rows."""
    rows = tf.constant(rows, tf.float32)

    def sample(index):
        chosen = stateless.integers(stateless.fold(KEYS, "draw", index), batch, rows.shape[0])
        return tf.gather(rows, chosen)

    return sample


def gaussian(seed, width=8):
    """Rows of an anisotropic Gaussian with a mean, and their principal components, one a row."""
    random = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(random.normal(size=(width, width)))
    deviations = 3.0 * 0.72 ** np.arange(width)
    rows = random.normal(size=(2000, width)) * deviations @ basis.T + random.normal(size=width)
    return rows, PCA().fit(rows).components_


def cosines(kernel, components):
    """Absolute cosine of each column with each component."""
    return np.abs(components @ kernel) / np.linalg.norm(kernel, axis=0)


@pytest.mark.parametrize("seed", range(3))
def test_oja_finds_the_first_principal_component(seed):
    rows, components = gaussian(seed)
    rule = rules.make("oja")
    kernel = learned(rule, rule.network((8, 3), "linear"), drawn_from(rows, 100), 500).kernels[0][0].numpy()
    assert np.all(cosines(kernel, components)[0] > 0.99)
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1.0, atol=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_sanger_finds_the_first_principal_components_in_order(seed):
    rows, components = gaussian(seed)
    rule = rules.make("sanger")
    kernel = learned(rule, rule.network((8, 5), "linear"), drawn_from(rows, 100), 1000).kernels[0][0].numpy()
    assert np.all(np.diag(cosines(kernel, components)) > 0.99)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(5), atol=0.05)


def test_competitive_finds_the_centres_of_clusters():
    random = np.random.default_rng(0)
    centres = 4.0 * random.normal(size=(6, 4))
    rows = np.concatenate([centre + 0.3 * random.normal(size=(300, 4)) for centre in centres])
    network = BaseNetwork((4, 6), "linear", standardise_inputs=False)
    state = learned(rules.make("competitive"), network, drawn_from(rows, 120), 1500)
    distance = np.linalg.norm(centres[:, :, None] - state.kernels[0][0].numpy()[None], axis=1)
    assert sorted(distance.argmin(axis=1)) == list(range(6))
    assert distance.min(axis=1).max() < 0.1
    np.testing.assert_allclose(state.memory[0][0, 0], 1 / 6, atol=0.04)


@pytest.mark.parametrize("seed", range(2))
def test_bcm_units_become_selective_and_answer_with_the_number_of_patterns(seed):
    patterns = np.random.default_rng(seed).uniform(size=(5, 12))
    rule = rules.make("bcm")
    state = learned(rule, rule.network((12, 6), "linear"), lambda _: tf.constant(patterns[None]), 20000)
    answers = patterns @ state.kernels[0][0].numpy()
    before = patterns @ rule.initial_state((12, 6), KEYS).kernels[0][0].numpy()
    # At the fixed point y = t and t = y^2 / K for the one pattern, so y = K (Intrator and Cooper 1992, section 3).
    np.testing.assert_allclose(
        np.sort(answers, axis=0), np.array([0, 0, 0, 0, 5.0])[:, None] + np.zeros(6), atol=0.1
    )
    np.testing.assert_allclose(state.memory[0][0, 0], 5.0, atol=0.1)
    selectivity = 1.0 - np.abs(before).mean(axis=0) / np.abs(before).max(axis=0)
    assert np.all(selectivity < 0.75)


def bars(index, side=8, batch=50):
    """Pictures in which each of the 16 horizontal and vertical bars is there with probability 1/8 (Földiák 1990)."""
    there = stateless.uniform(stateless.fold(KEYS, "bars", index), batch * 2 * side) < 1.0 / side
    there = tf.reshape(tf.cast(there, tf.float32), [1, batch, 2, side])
    return tf.reshape(tf.maximum(there[:, :, 0, :, None], there[:, :, 1, None, :]), [1, batch, side * side])


def test_foldiak_finds_the_bars_and_decorrelates():
    rule = rules.make("foldiak", sparsity=1 / 8)
    network = BaseNetwork((64, 16), standardise_inputs=False)
    state = learned(rule, network, bars, 1500)
    single = np.concatenate([np.kron(np.eye(8), np.ones(8)), np.kron(np.ones(8), np.eye(8))])
    likeness = np.corrcoef(state.kernels[0][0].numpy().T, single)[:16, 16:]
    assert likeness.max(axis=1).min() > 0.95
    assert sorted(likeness.argmax(axis=1)) == list(range(16))

    rows = tf.concat([bars(10**6 + i) for i in range(40)], axis=1)
    drive = network.activities(state, rows).pre[1][0].numpy().astype(float)
    lateral = state.memory[0][0].numpy().astype(float)

    def settled(lateral):
        y = np.zeros_like(drive)
        for _ in range(20):
            y += 0.2 * (1.0 / (1.0 + np.exp(-10.0 * (drive + y @ lateral))) - y)
        return y

    def together(y):
        correlation = np.corrcoef(y.T)
        return np.abs(correlation[~np.eye(16, dtype=bool)]).mean()

    y = settled(lateral)
    np.testing.assert_allclose(
        rule.settle(tf.constant(drive[None]), tf.constant(lateral[None]))[0], y, atol=1e-9
    )
    np.testing.assert_allclose(y.mean(axis=0), 1 / 8, atol=0.03)
    assert together(y) < 0.03 < 0.2 < together(settled(0.0 * lateral))
    assert lateral.max() == 0.0 and np.all(np.diag(lateral) == 0.0)


def test_foldiak_changes_with_what_both_units_see():
    rule = rules.make("foldiak", dtype="float64")
    random = np.random.default_rng(2)
    network, rows = rule.network((4, 3)), random.normal(size=(1, 9, 4))
    state = rule.initial_state((4, 3), KEYS)
    lateral = -random.uniform(size=(1, 3, 3)) * (1.0 - np.eye(3))
    state = state._replace(memory=(tf.constant(lateral),))
    activities = network.activities(state, tf.constant(rows))
    y = rule.settle(activities.pre[1], state.memory[0])[0].numpy()
    x, w = activities.pre[0][0].numpy(), state.kernels[0][0].numpy()
    after = rule(state, tf.constant(rows), network=network)
    hebb = w + 0.02 * (x[:, :, None] * y[:, None, :] - w * y[:, None, :]).mean(axis=0) / 0.1
    np.testing.assert_allclose(after.kernels[0][0], hebb, atol=1e-9)
    anti = np.minimum(lateral[0] - 0.5 * ((y[:, :, None] * y[:, None, :]).mean(axis=0) - 0.01), 0.0)
    np.testing.assert_allclose(after.memory[0][0], anti * (1.0 - np.eye(3)), atol=1e-9)
    np.testing.assert_allclose(after.biases[0][0], 0.2 * (0.1 - y.mean(axis=0)), atol=1e-9)


def test_upper_layers_read_the_outputs_of_the_lower_ones():
    rule = rules.make("oja", dtype="float64")
    network, state = rule.network((5, 4, 3)), rule.initial_state((5, 4, 3), KEYS)
    rows = tf.constant(np.random.default_rng(0).normal(size=(1, 20, 5)))
    x = network.activities(state, rows).post[1][0].numpy()
    x = x - x.mean(axis=0)
    w = state.kernels[1][0].numpy()
    y = x @ w
    change = ((x[:, :, None] * y[:, None, :]).mean(axis=0) - (y**2).mean(axis=0) * w) / (y**2).mean(axis=0)
    after = rule(state, rows, network=network).kernels[1][0]
    np.testing.assert_allclose(after, w + 0.02 * change, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("oja", {"step": 0.0}, "step"),
        ("bcm", {"threshold_step": 1.5}, "threshold_step"),
        ("competitive", {"conscience": -1.0}, "conscience"),
        ("competitive", {"memory": 0.0}, "memory"),
        ("foldiak", {"sparsity": 1.0}, "sparsity"),
        ("sanger", {"feedback": "random"}, "feedback"),
        ("default", {"planes": ("hebb", "heb")}, "planes"),
        ("default", {"planes": ("hebb", "oja")}, "normalise"),
        ("default", {"planes": ()}, "planes"),
        ("default", {"falling": True, "held": 0.0}, "held"),
        ("default", {"falling": True, "anneal": -1.0}, "anneal"),
    ],
)
def test_mistakes_are_one_clear_line(name, config, words):
    with pytest.raises(UserError, match=words):
        rules.make(name, **config)


def test_every_example_has_exactly_one_winner_however_it_is_compiled():
    random = np.random.default_rng(0)
    for seed in range(5):
        x, w = tf.constant(random.normal(size=(2, 9, 6))), tf.constant(random.normal(size=(2, 6, 5)))

        def won(x, w):
            current = (
                tf.reduce_sum(x * x, -1, keepdims=True)
                - 2.0 * (x @ w)
                + tf.reduce_sum(w * w, -2, keepdims=True)
            )
            return winners(-current * 1.1)

        for run in (won, tf.function(won, jit_compile=True)):
            np.testing.assert_array_equal(tf.reduce_sum(run(x, w), axis=-1), 1.0), seed
    assert winners(tf.zeros([1, 2, 3])).numpy().tolist() == [[[1, 0, 0], [1, 0, 0]]]


# The default rule set by hand


def by_hand(planes, step=0.01, **options):
    """A default rule whose change is the plain sum of these planes, and the numbers that make it so."""
    planes = ("learned", *planes)
    rule = rules.make("default", hidden=4, planes=planes, normalise=False, dtype="float64", **options)
    theta = rule.theta()
    theta["planes"] = tf.constant([0.0] + [1.0] * (len(planes) - 1), tf.float64)
    theta["step"] = tf.constant(np.log(step), tf.float64)
    theta["readout/bias"] = tf.zeros_like(theta["readout/bias"])
    rule.assign(theta)
    return rule


CLOSED_FORMS = {
    ("hebb",): lambda x, y, w: x.T @ y / len(x),
    ("hebb", "oja"): lambda x, y, w: np.mean(
        [np.outer(a, b) - b**2 * w for a, b in zip(x, y, strict=True)], axis=0
    ),
    ("hebb", "decay"): lambda x, y, w: x.T @ y / len(x) - w,
    ("hebb", "decorrelation"): lambda x, y, w: x.T @ y / len(x) - w @ y.T @ y / len(x),
    ("winner",): lambda x, y, w: x.T @ (y * (y == y.max(axis=1, keepdims=True))) / len(x),
}


@pytest.mark.parametrize("planes", CLOSED_FORMS, ids="+".join)
@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_the_default_rule_set_by_hand_is_exactly(planes, activation):
    rule = by_hand(planes)
    network = BaseNetwork((6, 5, 4), activation, standardise_inputs=False, dtype="float64")
    state = rule.initial_state((6, 5, 4), KEYS)
    rows = np.random.default_rng(1).normal(size=(1, 11, 6))
    after = rule(state, tf.constant(rows), network=network)
    for layer, x in enumerate((rows[0], network.activities(state, tf.constant(rows)).post[1][0].numpy())):
        w = state.kernels[layer][0].numpy()
        y = x @ w if activation == "linear" else np.tanh(x @ w)
        expected = w + 0.01 * CLOSED_FORMS[planes](x, y, w)
        np.testing.assert_allclose(after.kernels[layer][0], expected, rtol=1e-12, atol=1e-13)
        np.testing.assert_array_equal(after.biases[layer], 0.0)


@pytest.mark.parametrize("held,anneal", [(100.0, 0.5), (300.0, 1.0)])
def test_a_step_that_falls_is_smaller_by_the_age_of_the_network(held, anneal):
    rule = by_hand(("hebb",), falling=True, held=held, anneal=anneal)
    start = tf.constant(np.log(np.expm1(anneal)), tf.float64)
    np.testing.assert_allclose(rule.theta()["anneal"], start, rtol=1e-6)
    rule.assign(rule.theta() | {"anneal": start})
    network = BaseNetwork((6, 4), "linear", standardise_inputs=False, dtype="float64")
    state = rule.initial_state((6, 4), KEYS)
    rows = np.random.default_rng(1).normal(size=(1, 11, 6))
    whole = rows[0].T @ rows[0] @ state.kernels[0][0].numpy() / 11
    for age, share in ((0.0, 1.0), (300.0, (1 + 300.0 / held) ** -anneal)):
        memory = state.memory._replace(clock=tf.constant([age], tf.float64))
        after = rule(state._replace(memory=memory), tf.constant(rows), network=network)
        np.testing.assert_allclose(after.kernels[0] - state.kernels[0], 0.01 * share * whole[None], rtol=1e-9)
        assert after.memory.clock[0] == age + 1.0


def test_the_default_rule_set_by_hand_finds_the_first_principal_component():
    rows, components = gaussian(5)
    rule = by_hand(("hebb", "oja"), step=0.02)
    network = BaseNetwork((8, 1), "linear", standardise_inputs=False, dtype="float64")
    sample = drawn_from((rows - rows.mean(axis=0)) / 3.0, 100)
    kernel = learned(rule, network, sample, 1000).kernels[0][0].numpy()
    assert cosines(kernel, components)[0] > 0.99
    assert np.linalg.norm(kernel) == pytest.approx(1.0, abs=0.02)


# The genome


def normed(values):
    """Columns of mean 0 and variance 1, with the rule's epsilon."""
    return (values - values.mean(axis=0)) / np.sqrt(values.var(axis=0) + 1e-3)


def unit(matrix):
    return matrix / np.sqrt((matrix**2).mean(axis=0) + 1e-6)


def genome_planes(x_pre, z, y, e_below, e, w, threshold):
    """All planes of one layer in NumPy: sender's and receiver's activities, errors, kernel, threshold."""
    u, v, count, units = normed(x_pre), normed(y), len(y), y.shape[1]
    soft = np.exp(2.0 * z) / np.exp(2.0 * z).sum(axis=1, keepdims=True) * units - 1.0
    won = (z == z.max(axis=1, keepdims=True)).astype(float)
    gate = 1.0 / (1.0 + np.exp(-z))
    power = (y**2).mean(axis=0)
    correlation = v.T @ v / count
    return {
        "hebb": unit(u.T @ v / count),
        "winner": unit(u.T @ (v * won) / count),
        "soft_winner": unit(u.T @ soft / count),
        "bcm": unit(u.T @ (y * (y - threshold)) / count),
        "error": unit(u.T @ e / count),
        "gated_error": unit(u.T @ (e * gate) / count),
        "sender_error": unit(e_below.T @ v / count),
        "decorrelation": unit(-w @ correlation / np.sqrt(units)),
        "sanger": unit(-w @ np.triu(correlation) / np.sqrt(units)),
        "oja": -w * power / (power.mean() + 1e-6),
        "winner_decay": -w * units * won.mean(axis=0),
        "decay": -w,
    }


@pytest.fixture(scope="module")
def dissected():
    """A genome whose feedback is `symmetric`, a batch, and all planes of both layers in NumPy."""
    rule = rules.make("genome", feedback="symmetric", dtype="float64")
    network, state = rule.network((6, 5, 4)), rule.initial_state((6, 5, 4), KEYS)
    inputs = tf.constant(np.random.default_rng(4).normal(size=(1, 9, 6)))
    activities = network.activities(state, inputs)
    z = [layer[0].numpy() for layer in activities.pre]
    y = [layer[0].numpy() for layer in activities.post]
    w = [kernel[0].numpy() for kernel in state.kernels]

    def scaled(values):
        return (values - values.mean()) / np.sqrt(values.var() + 1e-3)

    top_won = (z[2] == z[2].max(axis=1, keepdims=True)).astype(float)
    errors = [None, None, scaled(0.5 * top_won + 0.5 * normed(y[2]))]
    for layer in (2, 1):
        gated = errors[layer] / (1.0 + np.exp(-z[layer])) + 0.1 * normed(y[layer])
        errors[layer - 1] = scaled(gated @ w[layer - 1].T)
    share = 1.0 / (1.0 + np.exp(2.0))
    thresholds = [1.0 + share * ((layer**2).mean(axis=0) - 1.0) for layer in y[1:]]
    planes = [
        genome_planes(z[i], z[i + 1], y[i + 1], errors[i], errors[i + 1], w[i], thresholds[i])
        for i in range(2)
    ]
    return rule, network, state, inputs, planes, thresholds


def with_coefficients(rule, **changes):
    """The rule's theta with all coefficients of planes 0 and neither annealing nor homeostasis, and these changes."""
    zeros = np.zeros(len(genome.PLANES))
    theta = {"planes": zeros, "planes_top": zeros, "anneal": -100.0, "homeostasis": -100.0} | changes
    return {**rule.theta(), **{name: tf.constant(value, tf.float64) for name, value in theta.items()}}


@pytest.mark.parametrize("name", genome.PLANES)
def test_each_plane_of_the_genome_is_what_it_is_called(dissected, name):
    rule, network, state, inputs, planes, thresholds = dissected
    coefficients = np.zeros(len(genome.PLANES))
    coefficients[list(genome.PLANES).index(name)] = -0.7
    theta = with_coefficients(rule, planes=coefficients, planes_top=-2.0 * coefficients)
    after = rule.update(per_task(theta, 1), network, state, inputs, KEYS)
    for i, coefficient in enumerate((-0.7, 0.7)):
        change = coefficient * planes[i][name]
        change = change / np.sqrt(0.01 + (change**2).mean(axis=0))
        found = after.kernels[i][0] - state.kernels[i][0]
        np.testing.assert_allclose(found, np.exp(-3.0) * change, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(after.memory.thresholds[i][0, 0], thresholds[i], rtol=1e-9)


def test_genome_steps_shrink_with_age_and_homeostasis_holds_columns(dissected):
    rule, network, state, inputs, planes, _ = dissected
    hebb = np.eye(len(genome.PLANES))[list(genome.PLANES).index("hebb")]
    theta = with_coefficients(rule, planes=hebb, anneal=np.log(np.e - 1.0))

    def change(age, theta=theta):
        old = state._replace(memory=state.memory._replace(clock=tf.constant([age], tf.float64)))
        after = rule.update(per_task(theta, 1), network, old, inputs, KEYS)
        np.testing.assert_array_equal(after.memory.clock, [age + 1])
        return (after.kernels[0] - state.kernels[0]).numpy()

    # softplus(log(e - 1)) = 1: at age 300 the step is a quarter.
    np.testing.assert_allclose(change(300.0), change(0.0) / 4.0, rtol=1e-9)
    held = with_coefficients(rule, planes=hebb, homeostasis=100.0)
    after = rule.update(per_task(held, 1), network, state, inputs, KEYS)
    for kernel in after.kernels:
        np.testing.assert_allclose((kernel.numpy() ** 2).mean(axis=1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("scheme", ["learned", "none"])
def test_the_genome_is_small_and_every_number_has_a_name(scheme):
    rule = rules.make("genome", feedback=scheme)
    count = sum(int(np.prod(value.shape)) for value in rule.theta().values())
    named = rule.coefficients()
    assert count == len(named) <= 64
    assert named["planes/hebb"] == 0.5 and named["planes/error"] == pytest.approx(0.1)
    assert named["step"] == pytest.approx(np.exp(-3.0))
    assert named["homeostasis"] == pytest.approx(1.0 / (1.0 + np.exp(-3.0)))
    # A change of any one number changes what is printed under one name (the step is part of two).
    for name, value in rule.theta().items():
        for i in range(int(np.prod(value.shape))):
            moved = np.array(value)
            moved.ravel()[i] -= 0.25
            other = rule.coefficients({**rule.theta(), name: moved})
            changed = [key for key in named if other[key] != named[key]]
            assert len(changed) == (2 if name == "step" else 1)


@pytest.fixture
def parsed_flags():
    """As after a start from the command line; flags without it cannot be read."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def test_the_coefficients_of_a_saved_genome_are_printed_and_drawn(parsed_flags, tmp_path, capsys):
    rule = rules.make("genome")
    theta = {name: value.numpy() for name, value in rule.theta().items()}
    theta["planes"][3] = -0.123
    saved_rules.save_rule(tmp_path / "rule", rule, theta=theta)
    with flagsaver.flagsaver(plot=str(tmp_path / "chart.png")):
        print_rule.main(["print_rule.py", str(tmp_path / "rule")])
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[:-1])
    assert lines.keys() == rule.coefficients().keys()
    assert lines["planes/bcm"] == "-0.1230" and lines["planes/hebb"] == "+0.5000"
    assert (tmp_path / "chart.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("argument", "plot", "words"),
    [("oja", None, "no named coefficients"), ("genome", "x.txt", ".png"), ("nothing", None, "No rule")],
)
def test_print_rule_says_what_is_wrong(parsed_flags, argument, plot, words, capsys):
    with flagsaver.flagsaver(plot=plot), pytest.raises(SystemExit) as stop:
        print_rule.main(["print_rule.py", argument])
    assert stop.value.code == 2 and words in capsys.readouterr().err
