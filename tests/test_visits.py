"""What a meta-step visits: one family drawn by its weight, or all of them, weighed."""

from unittest import mock

import numpy as np
import pytest
from small_problems import SmallRule, small_family

from meta_rules.errors import UserError
from meta_rules.estimators import CMAES, PES, OpenAIES, TruncatedBPTT
from meta_rules.meta_trainer import MetaTrainer

WEIGHTS = (1.0, 3.0)


def run(estimator, visits="all", **settings):
    families = [
        small_family(windows=(3,), horizon=(3, 3), weight=WEIGHTS[0]),
        small_family(windows=(2,), horizon=(3, 3), weight=WEIGHTS[1], ways=2),
    ]
    settings = {"meta_steps": 4, "tasks": 4, "jit_compile": False} | settings
    return MetaTrainer(SmallRule(), families, estimator, visits=visits, **settings)


def assert_compiled_once(trainer):
    assert len(trainer._programs) == 1 and len(trainer._compiled) == 2
    for program in (*trainer._programs.values(), *trainer._compiled.values()):
        assert program.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("make", [TruncatedBPTT, PES])
def test_the_gradients_of_all_families_are_averaged_by_weight(make):
    trainer = run(make())
    theta = trainer.rule.theta()
    pairs = zip(trainer.problems, trainer.pools, (3, 2), strict=True)
    alone = [trainer.estimator.estimate(problem, theta, pool, window) for problem, pool, window in pairs]
    with mock.patch.object(MetaTrainer, "_apply_in_replica", lambda self, gradient: gradient):
        found = trainer._replica_step(
            [trainer._estimate_in_replica(0, 3), trainer._estimate_in_replica(1, 2)],
            trainer.pools,
            trainer._shares([0, 1]),
        )[2]
    for name, value in found.items():
        parts = [each.gradient[name] / each.weight for each in alone]
        assert all(np.any(part != 0) for part in parts)
        np.testing.assert_allclose(value, 0.25 * parts[0] + 0.75 * parts[1], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("make", [CMAES, OpenAIES])
@pytest.mark.parametrize("criterion", ["loss", "error_rate"])
def test_candidates_are_compared_on_all_families(make, criterion):
    trainer = run(make(criterion=criterion))
    with mock.patch.object(make, "tell", autospec=True, side_effect=make.tell) as tell:
        metrics, scalars = trainer.meta_step()
    of_slots = metrics["loss"] if criterion == "loss" else 1.0 - metrics["accuracy"]
    assert of_slots.shape == (8,)
    np.testing.assert_allclose(tell.call_args.args[3], 0.25 * of_slots[:4] + 0.75 * of_slots[4:], rtol=1e-5)
    assert "meta/family" not in scalars and scalars["task_steps"] == 2 * 4 * 3
    trainer.meta_step()
    assert_compiled_once(trainer)


def test_a_candidate_that_fails_on_one_family_has_failed():
    estimator = CMAES()
    metrics = {
        "loss": np.array([1.0, np.nan, 2.0, 3.0]),
        "accuracy": np.array([0.5, np.nan, 0.25, 0.0]),
        "used": np.array([1.0, 0.0, 1.0, 1.0]),
    }
    np.testing.assert_array_equal(estimator.losses_of_candidates(metrics), [1.0, np.inf, 2.0, 3.0])
    by_errors = CMAES(criterion="error_rate")
    np.testing.assert_array_equal(by_errors.losses_of_candidates(metrics), [0.5, np.inf, 0.75, 1.0])


def test_several_steps_a_call_visit_all_families_in_each():
    one, two = run(TruncatedBPTT()), run(TruncatedBPTT(), steps_per_call=2)
    losses = [one.meta_step()[0]["loss"] for _ in range(2)]
    metrics, scalars = two.meta_step()
    np.testing.assert_allclose(metrics["loss"], np.concatenate(losses), rtol=1e-3)
    assert scalars["task_steps"] == 2 * 4 * (3 + 2) == 2 * two.mean_task_steps()
    assert {key: value.shape for key, value in metrics.items()}["accuracy"] == (16,)
    assert_compiled_once(one)


def test_one_family_a_step_is_drawn_by_weight():
    trainer = run(TruncatedBPTT(), visits="one")
    drawn = [trainer.choice(step) for step in range(2000)]
    assert {len(each) for each in drawn} == {1}
    share = np.mean([each[0][0] for each in drawn])
    assert abs(share - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 2000)
    assert run(TruncatedBPTT()).choice(0) == [(0, 3), (1, 2)]


def test_what_cannot_be():
    with pytest.raises(UserError, match="visits must be 'one' or 'all', got 'every'"):
        run(TruncatedBPTT(), visits="every")
    with pytest.raises(UserError, match="CMAES.criterion must be 'loss' or 'error_rate', got 'accuracy'"):
        CMAES(criterion="accuracy")
