"""Figures of the simulation of replicas, on samples whose variance is known; the number of tasks and replicas."""

import numpy as np
import pytest
import simulate_replicas
from small_problems import SmallRule, small_family

from meta_rules import estimators
from meta_rules.meta_trainer import MetaTrainer


def test_independent_gradients_follow_the_law():
    random = np.random.default_rng(0)
    found = simulate_replicas.analyse(3.0 + 2.0 * random.normal(size=(64, 64, 5)))
    for row in found["replicas"]:
        assert row["variance"] == pytest.approx(5 * 4.0 / row["replicas"], rel=0.15)
    assert found["signal"] == pytest.approx(45.0, rel=0.02)
    assert abs(found["shared"]) < 0.2
    assert simulate_replicas.slope(found["replicas"], "replicas") == pytest.approx(-1.0, abs=0.05)


def test_what_replicas_share_does_not_fall():
    random = np.random.default_rng(1)
    shared = random.normal(size=(256, 1, 5))
    found = simulate_replicas.analyse(shared + random.normal(size=(256, 32, 5)))
    assert found["shared"] == pytest.approx(5.0, rel=0.2)


def test_steps_in_a_row_that_hang_together_fall_slower():
    random = np.random.default_rng(2)
    steps = [random.normal(size=(64, 5))]
    for _ in range(63):
        steps.append(0.8 * steps[-1] + 0.6 * random.normal(size=(64, 5)))
    found = simulate_replicas.analyse(np.stack(steps))
    assert simulate_replicas.slope(found["steps_in_a_row"], "steps") > -0.75
    assert simulate_replicas.slope(found["replicas"], "replicas") == pytest.approx(-1.0, abs=0.15)


def test_the_tool_runs_on_real_gradients(tmp_path):
    trainer = MetaTrainer(SmallRule(), small_family(), estimators.TruncatedBPTT(), tasks_per_replica=8)
    assert trainer.tasks == 8
    theta = trainer.theta()
    gradients = simulate_replicas.gradients(trainer, replicas=4, steps=2, warm_up=1)
    assert gradients.shape == (2, 4, 3) and np.isfinite(gradients).all()
    assert (np.ptp(gradients, axis=1) > 0).all()
    for name, value in trainer.rule.theta().items():
        np.testing.assert_array_equal(value, theta[name])
    simulate_replicas.draw(simulate_replicas.analyse(gradients), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
