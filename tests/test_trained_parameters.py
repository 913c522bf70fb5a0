"""A run that changes only some of a rule's meta-parameters: `MetaTrainer.trained`."""

import numpy as np
import pytest
import tensorflow as tf
from small_problems import SmallRule, small_family

from meta_rules import rules, stateless
from meta_rules.checkpoints import RunCheckpoints
from meta_rules.errors import UserError
from meta_rules.estimators import REGISTRY, TruncatedBPTT
from meta_rules.meta_trainer import MetaTrainer
from meta_rules.trajectories import PartlyFixed, RuleLearning


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_run_may_train_some_of_the_meta_parameters_only(name):
    rule = SmallRule()
    first = {key: value.numpy() for key, value in rule.theta().items()}
    run = MetaTrainer(
        rule,
        small_family(),
        REGISTRY[name](),
        meta_steps=3,
        tasks=4,
        trained=("pl*",),
        averaging=0.0,
        jit_compile=False,
    )
    for _ in range(3):
        metrics, _ = run.meta_step()
        assert np.isfinite(metrics["loss"]).all()
    moved = {key for key, value in run.theta().items() if np.any(value != first[key])}
    assert moved == {"planes"}
    if name == "cma_es":
        assert {tuple(v.shape) for v in run.variables()["estimator"]} == {(), (2,), (2, 2)}


def test_names_of_what_is_trained_may_end_in_anything():
    rule = rules.make("genome", corruption=0.3, feedback="symmetric")
    run = MetaTrainer(rule, small_family(), TruncatedBPTT(), trained=("consistency/*", "step"))
    searched = {"consistency/sharpness", "consistency/certainty", "consistency/balance", "step"}
    assert run._searched().keys() == searched
    assert run._fixed().keys() == rule.theta().keys() - searched


def test_the_gradient_of_some_is_that_part_of_the_gradient_of_all():
    rule = rules.make("genome", corruption=0.3, feedback="symmetric")
    estimator, problem, theta = TruncatedBPTT(), RuleLearning(rule, small_family()), rule.theta()
    pool = estimator.initial(problem, theta, stateless.split(stateless.key(0), 2))
    expected = estimator.estimate(problem, theta, pool, 3).gradient
    searched = {key: theta[key] for key in theta if key.startswith("consistency")}
    fixed = {key: theta[key] for key in theta if key not in searched}
    found = estimator.estimate(PartlyFixed(problem, fixed), searched, pool, 3).gradient
    assert found.keys() == searched.keys()
    for key, value in found.items():
        assert value != 0.0
        np.testing.assert_allclose(value, expected[key], rtol=1e-4)


@pytest.mark.parametrize("name", ["truncated_bptt", "cma_es"])
def test_a_resumed_run_has_the_meta_parameters_that_it_leaves_alone_too(name, tmp_path):
    def run(rate):
        rule = SmallRule()
        rule.assign(rule.theta() | {"rate": tf.constant(rate)})
        settings = {"meta_steps": 4, "tasks": 4, "trained": ("planes",), "jit_compile": False}
        return MetaTrainer(rule, small_family(), REGISTRY[name](), **settings)

    first = run(-1.0)
    first.meta_step()
    RunCheckpoints(str(tmp_path), first.variables()).save(1, first.pools)
    expected = first.meta_step()[0]["loss"]
    # As if the rule that the run started from had changed meanwhile.
    second = run(1.0)
    second.pools = RunCheckpoints(str(tmp_path), second.variables()).restore(second.pools)
    np.testing.assert_array_equal(second.meta_step()[0]["loss"], expected)
    assert second.theta()["rate"] == -1.0


@pytest.mark.parametrize("trained", [("consistancy/*",), ("rate", "consistancy/*"), ()])
def test_a_name_to_train_that_there_is_not_is_refused(trained):
    with pytest.raises(UserError, match="no meta-parameter is called '.*'; there are rate, planes"):
        MetaTrainer(SmallRule(), small_family(), TruncatedBPTT(), trained=trained)
