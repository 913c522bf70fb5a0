"""Meta-gradient estimators against closed forms, and what all of them owe: purity, resumption, indifference to the split."""

import inspect

import cma
import numpy as np
import pytest
import tensorflow as tf
from small_problems import LinearQuadratic, SmallRule, derivative, small_family

from meta_rules import estimators, stateless
from meta_rules.checkpoints import RunCheckpoints
from meta_rules.errors import UserError
from meta_rules.estimators import (
    CMAES,
    NRES,
    PES,
    REGISTRY,
    AntitheticES,
    FullBPTT,
    OpenAIES,
    TruncatedBPTT,
    perturbations,
)
from meta_rules.estimators.black_box import ranks
from meta_rules.meta_trainer import MetaTrainer

THETA = {"shift": tf.constant(0.3, tf.float64)}
EXACT = {"before": 24.0802, "after": 32.0190}
PAIRS = (AntitheticES, NRES, PES)
ON_DEVICE = [name for name, cls in sorted(REGISTRY.items()) if not cls.host_update]


def summed(estimator, problem, windows, tasks=2):
    """Mean over tasks of the sums of window times gradient: what the derivative of the sum of losses is estimated by."""
    pool, total = estimator.initial(problem, THETA, problem.slots(tasks)), 0.0
    for window in windows:
        estimate = estimator.estimate(problem, THETA, pool, window)
        pool = estimate.pool
        total += window * float(estimate.gradient["shift"] / estimate.weight)
    return total


def particles(cls, problem, window, steps, tasks, compiled=True, reads=("after",), sigma=0.3):
    """For every way of reading, totals over `steps` meta-steps of window times gradient, one a particle."""
    each = [cls(sigma=sigma, loss="sum", read=read) for read in reads]

    def meta_step(pools):
        found = [e.contributions(problem, THETA, pool, window) for e, pool in zip(each, pools, strict=True)]
        return [gradient["shift"] for gradient, _, _ in found], [pool for _, pool, _ in found]

    if compiled:
        meta_step = tf.function(meta_step, jit_compile=True, autograph=False)
    pools, totals = [e.initial(problem, THETA, problem.slots(tasks)) for e in each], 0.0
    for _ in range(steps):
        gradients, pools = meta_step(pools)
        totals = totals + window * np.stack(gradients)
    return dict(zip(reads, totals, strict=True))


def assert_unbiased(totals):
    """Whether the mean of one-a-particle totals is the exact derivative, and known well enough to tell."""
    for read, values in totals.items():
        error = values.std(ddof=1) / len(values) ** 0.5
        assert error < 0.05
        assert abs(values.mean() - EXACT[read]) < 4 * error


def test_every_estimator_is_registered():
    public = {
        value
        for name in estimators.__all__
        if inspect.isclass(value := getattr(estimators, name)) and issubclass(value, estimators.Estimator)
    }
    bases = {estimators.Estimator, estimators.BlackBox}
    assert public - bases == set(REGISTRY.values())
    assert {cls.estimator_name for cls in public - bases} == set(REGISTRY)


@pytest.mark.parametrize(
    "read, windows, exact",
    [
        ("before", (4, 3), 11.0052),
        ("before", (2, 2, 2, 1), 3.7805),
        ("after", (4, 3), 19.7507),
        ("after", (2, 2, 2, 1), 12.9069),
    ],
)
def test_truncated_bptt_is_exact_for_its_windows(read, windows, exact):
    found = summed(TruncatedBPTT("sum", read), LinearQuadratic(), windows)
    assert found == pytest.approx(exact, abs=5e-5)
    assert found == pytest.approx(derivative(window=windows[0], read=read), rel=1e-12)


@pytest.mark.parametrize("read", EXACT)
def test_full_bptt_is_exact(read):
    assert summed(FullBPTT("sum", read), LinearQuadratic(), [7]) == pytest.approx(EXACT[read], abs=5e-5)


def test_full_lives_stop_at_their_own_horizons():
    lengths = (3, 7, 5)
    problem = LinearQuadratic(lengths=lengths)
    found = summed(FullBPTT("sum"), problem, [7], tasks=3) / 7
    assert found == pytest.approx(
        np.mean([derivative(length=n, read="after") / n for n in lengths]), rel=1e-12
    )
    estimator = FullBPTT("end")
    estimate = estimator.estimate(problem, THETA, estimator.initial(problem, THETA, problem.slots(3)), 7)
    # s_n = 0.9^n (s_0 - 10 theta) + 10 theta; d s_n / d theta = 10 (1 - 0.9^n).
    last = np.array([0.9**n * (2.0 - 3.0) + 3.0 for n in lengths])
    slopes = 10.0 * (1.0 - 0.9 ** np.array(lengths))
    assert float(estimate.gradient["shift"]) == pytest.approx(np.sum((last - 1.0) * slopes), rel=1e-12)
    np.testing.assert_allclose(estimate.metrics["loss"], 0.5 * (last - 1.0) ** 2, rtol=1e-12)
    np.testing.assert_array_equal(estimate.metrics["age"], lengths)


@pytest.mark.parametrize("window, tasks", [(3, 300_000), (4, 220_000), (8, 150_000)])
@pytest.mark.parametrize("cls", [PES, NRES])
def test_persistent_estimators_are_unbiased(cls, window, tasks):
    # 7 windows are a whole number of lives, of which 2 may end inside one window of 8.
    totals = particles(cls, LinearQuadratic(), window, 7, tasks, reads=EXACT)
    assert_unbiased({read: values / window for read, values in totals.items()})


def test_antithetic_es_is_unbiased():
    assert_unbiased(particles(AntitheticES, LinearQuadratic(), 7, 1, 1_000_000, reads=EXACT))


def test_pes_credits_each_loss_to_the_perturbations_of_its_own_life():
    """Two lives of 3 steps through windows of 2, replayed step by step with the same perturbations."""
    problem, sigma, tasks = LinearQuadratic(lengths=(3,)), 0.1, 4
    estimator = PES(sigma=sigma, loss="sum")
    slots = problem.slots(tasks)
    pool, found = estimator.initial(problem, THETA, slots), []
    for _ in range(3):
        gradient, pool, _ = estimator.contributions(problem, THETA, pool, 2)
        found.append(gradient["shift"].numpy())
    drawn = [
        perturbations.draw(stateless.fold(slots, "perturbation", tf.fill([tasks], n)), THETA)["shift"].numpy()
        for n in range(3)
    ]
    for task in range(tasks):
        state, persistent, age, expected = {1: 2.0, -1: 2.0}, 0.0, 0, []
        for window in range(3):
            noise, total = drawn[window][task], 0.0
            persistent += noise
            for _ in range(2):
                if age == 3:
                    state, persistent, age = {1: 2.0, -1: 2.0}, noise, 0
                state = {sign: 0.9 * s + 0.3 + sign * sigma * noise for sign, s in state.items()}
                age += 1
                difference = 0.5 * (state[1] - 1.0) ** 2 - 0.5 * (state[-1] - 1.0) ** 2
                total += difference * persistent / (2 * sigma)
            expected.append(total / 2)
        np.testing.assert_allclose([part[task] for part in found], expected, rtol=1e-9)
        assert float(pool.accumulated["shift"][task]) == pytest.approx(persistent, rel=1e-12)


@pytest.mark.parametrize("cls", PAIRS)
def test_arms_share_everything_but_the_perturbation(cls):
    window = 7 if cls is AntitheticES else 4

    def totals(effect):
        problem = LinearQuadratic(effect=effect, noise=1.0)
        return particles(cls, problem, window, 2, 50, compiled=False)["after"]

    np.testing.assert_array_equal(totals(0.0), 0.0)
    # With an effect the same noise makes a difference, so the zeros above are the arms' agreement.
    assert np.all(totals(1.0) != 0.0)


@pytest.mark.parametrize("name", ON_DEVICE)
def test_a_task_that_is_not_finite_is_left_out_by_itself(name):
    estimator, whole_lives = REGISTRY[name](loss="sum"), name in ("es", "full_bptt")
    sound, broken = LinearQuadratic(), LinearQuadratic(broken=(1, int(whole_lives), 2))
    window, slots = estimator.length(broken, 3), sound.slots(3)

    def first(problem, slots):
        return estimator.estimate(problem, THETA, estimator.initial(problem, THETA, slots), window)

    found, expected = first(broken, slots), first(sound, tf.gather(slots, [0, 2]))
    np.testing.assert_array_equal(found.metrics["used"], [1, 0, 1])
    np.testing.assert_allclose(found.gradient["shift"], expected.gradient["shift"], rtol=1e-12)
    assert float(found.weight) == (3 if name in ("nres", "pes") else 2)
    following = estimator.estimate(broken, THETA, found.pool, window)
    np.testing.assert_array_equal(following.metrics["used"], 1)
    assert np.isfinite(following.gradient["shift"])
    before, after = (estimator.trajectory(pool).count for pool in (found.pool, following.pool))
    # Whole lives all start afresh; in a window only the broken one does.
    np.testing.assert_array_equal(after - before, [1, 1, 1] if whole_lives else [0, 1, 0])


@pytest.mark.parametrize("name", ON_DEVICE)
def test_a_gradient_does_not_depend_on_how_slots_are_split(name):
    estimator, problem = REGISTRY[name](loss="sum"), LinearQuadratic(lengths=(2, 3), noise=0.5)
    window = estimator.length(problem, 2)

    def second(slots):
        pool = estimator.initial(problem, THETA, slots)
        for _ in range(2):
            estimate = estimator.estimate(problem, THETA, pool, window)
            pool = estimate.pool
        return float(estimate.gradient["shift"]), float(estimate.weight)

    slots = problem.slots(6)
    parts = np.add(second(slots[:2]), second(slots[2:]))
    np.testing.assert_allclose(second(slots), parts, rtol=1e-12)


class Lengths:
    """What the trainer asks of a family."""

    weight, windows = 1.0, (4,)


def trainer(name, monkeypatch, dtype="float32", **arguments):
    """A trainer of `SmallRule`'s numbers, with `LinearQuadratic` in the place of the real problem."""
    problem = LinearQuadratic(lengths=(3, 6, 5), dtype=tf.as_dtype(dtype))
    monkeypatch.setattr("meta_rules.meta_trainer.problem_of", lambda rule, family: problem)
    settings = {"meta_steps": 4, "tasks": 4, "jit_compile": False}
    return MetaTrainer(SmallRule(dtype=dtype), Lengths(), REGISTRY[name](**arguments), **settings)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_resumed_run_goes_on_exactly(name, monkeypatch, tmp_path):
    whole = trainer(name, monkeypatch)
    expected = []
    for step in range(4):
        if step == 2:
            RunCheckpoints(str(tmp_path), whole.variables()).save(step, whole.pools)
        expected.append(whole.meta_step()[0]["loss"])
    second = trainer(name, monkeypatch)
    second.pools = RunCheckpoints(str(tmp_path), second.variables()).restore(second.pools)
    assert second.step == 2
    found = [second.meta_step()[0]["loss"] for _ in range(2)]
    np.testing.assert_array_equal(found, expected[2:])
    for key, value in whole.theta().items():
        np.testing.assert_array_equal(second.theta()[key], value)
        assert np.any(value != SmallRule().theta()[key].numpy())


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_compiled_double_precision_is_the_same_as_eager(name, monkeypatch):
    run = trainer(name, monkeypatch, dtype="float64")
    pool, problem, window = run.pools[0], run.problems[0], run.estimator.length(run.problems[0], 4)
    theta = run.rule.theta()
    if run.estimator.host_update:
        theta = {key: tf.stack([value] * 4) for key, value in theta.items()}
    expected = run.estimator.estimate(problem, theta, pool, window)
    found = tf.function(run.estimator.estimate, jit_compile=True, autograph=False)(
        problem, theta, pool, window
    )
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["cma_es", "openai_es", "truncated_bptt"])
def test_a_trainer_in_double_precision(name, monkeypatch):
    run = trainer(name, monkeypatch, dtype="float64")
    metrics, _ = run.meta_step()
    assert metrics["loss"].dtype == np.float64
    assert all(value.dtype == np.float64 for value in run.theta().values())


@pytest.mark.parametrize(
    "name", ["pes", *(pytest.param(n, marks=pytest.mark.slow) for n in sorted(REGISTRY) if n != "pes")]
)
def test_learned_rules_with_every_estimator(name):
    family = small_family(horizon=(3, 6), windows=(4,))
    run = MetaTrainer(SmallRule(), family, REGISTRY[name](), meta_steps=4, tasks=4)
    for _ in range(3):
        metrics, scalars = run.meta_step()
        assert {"loss", "accuracy", "age", "used"} == set(metrics)
        assert all(np.isfinite(value).all() and value.shape == (4,) for value in metrics.values())
        assert np.isfinite(scalars["meta/gradient_norm"]) and scalars["meta/gradient_norm"] > 0


def test_task_steps_count_arms_and_whole_lives(monkeypatch):
    def steps(name):
        return trainer(name, monkeypatch).mean_task_steps()

    assert [steps("truncated_bptt"), steps("pes")] == [4 * 4, 4 * 4 * 2]
    assert [steps("es"), steps("cma_es")] == [4 * 6 * 2, 4 * 6]


def test_all_candidates_see_the_same_tasks():
    estimator, problem = OpenAIES(tasks_each=3), LinearQuadratic(noise=1.0)
    pool = estimator.initial(problem, THETA, estimator.slots(stateless.key(0), 6))
    for _ in range(2):
        estimate = estimator.estimate(problem, {"shift": tf.fill([6], THETA["shift"])}, pool, 7)
        losses, pool = estimate.metrics["loss"].numpy(), estimate.pool
        np.testing.assert_array_equal(losses[:3], losses[3:])
        assert len(set(losses)) == 3
    np.testing.assert_array_equal(
        estimator.candidates_of_slots(np.array([[1.0], [2.0]]))[:, 0], [1, 1, 1, 2, 2, 2]
    )
    found = {"loss": np.array([1, 2, 3, 4, 5, np.nan]), "used": np.array([1, 1, 1, 1, 1, 0])}
    means = estimator.losses_of_candidates(found)
    np.testing.assert_array_equal(means, [2, np.inf])


def quadratic(points):
    scales = 10.0 ** np.linspace(0, 3, points.shape[-1])
    return np.sum(scales * np.square(points - 1.0), axis=-1)


def test_cma_es_rebuilt_from_arrays_is_pycma():
    generations, population, size = 60, 8, 6
    ours, state = CMAES(sigma=0.5), CMAES(sigma=0.5).start(np.zeros(size), seed=3)
    numbers = iter([np.random.Generator(np.random.Philox(key=[3, n])) for n in range(generations)])
    options = {"popsize": population, "seed": np.nan, "verbose": -9, "verb_log": 0, "updatecovwait": 0}
    options |= {"conditioncov_alleviate": None, "randn": lambda *shape: next(numbers).standard_normal(shape)}
    theirs = cma.CMAEvolutionStrategy(np.zeros(size), 0.5, options)
    for _ in range(generations):
        candidates = ours.ask(state, None, population)
        expected = theirs.ask()
        np.testing.assert_array_equal(candidates, expected)
        state, mean = ours.tell(state, None, quadratic(candidates))
        theirs.tell(expected, list(quadratic(np.array(expected))))
    np.testing.assert_array_equal(mean, theirs.mean)
    assert quadratic(mean) < 1e-3 * quadratic(np.zeros(size))
    assert all(np.asarray(value).dtype.kind in "if" for value in state.values())


def test_cma_es_survives_failures():
    optimiser = CMAES(sigma=0.5)
    state = optimiser.start(np.zeros(3), seed=0)
    candidates = optimiser.ask(state, None, 6)
    after, theta = optimiser.tell(state, np.zeros(3), np.full(6, np.inf))
    np.testing.assert_array_equal(theta, 0.0)
    assert np.any(optimiser.ask(after, None, 6) != candidates)
    losses = quadratic(candidates)
    worst = np.argmax(losses)
    expected = optimiser.tell(state, np.zeros(3), losses)[1]
    losses[worst] = np.inf
    np.testing.assert_array_equal(optimiser.tell(state, np.zeros(3), losses)[1], expected)


def test_openai_es_descends_and_sees_only_ranks():
    optimiser = OpenAIES(sigma=0.1)
    theta, state = np.zeros(5), optimiser.start(np.zeros(5), seed=0)
    direction = np.array([1.0, -2.0, 0.5, 0.0, 3.0])
    candidates = optimiser.ask(state, theta, 4000)
    losses = candidates @ direction
    after, gradient = optimiser.tell(state, theta, losses)
    cosine = gradient @ direction / np.linalg.norm(gradient) / np.linalg.norm(direction)
    # The cosine of a mean of 2,000 pairs in 5 dimensions.
    assert cosine > 0.99
    np.testing.assert_array_equal(optimiser.tell(state, theta, np.exp(5 * losses))[1], gradient)
    assert np.any(optimiser.ask(after, theta, 4000) != candidates)


def test_ranks_are_centred_and_ties_share():
    np.testing.assert_allclose(ranks(np.array([3.0, 1.0, 2.0])), [0.5, -0.5, 0.0])
    np.testing.assert_allclose(ranks(np.array([1.0, 1.0, np.inf, np.inf])), [-1 / 3, -1 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_unknown_readings_are_refused(name):
    for wrong in ({"loss": "middle"}, {"read": "never"}):
        with pytest.raises(UserError, match=f"{REGISTRY[name].__name__}.{next(iter(wrong))}"):
            REGISTRY[name](**wrong)


def test_other_mistakes_are_one_clear_line():
    for cls in (AntitheticES, PES, NRES, OpenAIES, CMAES):
        with pytest.raises(UserError, match="sigma must be above 0"):
            cls(sigma=0.0)
    with pytest.raises(UserError, match="even number"):
        OpenAIES().check(5)
    with pytest.raises(UserError, match="tasks_each = 3"):
        CMAES(tasks_each=3).check(8)
    with pytest.raises(UserError, match="smaller rule"):
        CMAES().start(np.zeros(5000), seed=0)
