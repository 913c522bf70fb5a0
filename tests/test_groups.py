"""How many slots a replica works on at a time; that it makes no difference is in the contract suite."""

import pytest
import tensorflow as tf
from small_problems import SmallRule, small_family

from meta_rules import distribution, estimators, rules
from meta_rules.errors import UserError
from meta_rules.estimators.groups import map_groups, suitable_size, ungroup
from meta_rules.meta_trainer import MetaTrainer
from meta_rules.tasks.family import TaskFamily
from meta_rules.trajectories import RuleLearning


def trainer(**config):
    return MetaTrainer(SmallRule(), small_family(), estimators.TruncatedBPTT(), **config)


def test_groups_are_mapped_in_order():
    nest = {"a": tf.reshape(tf.range(12.0), [6, 2]), "b": tf.range(6)}
    found = map_groups(lambda group: {"sum": tf.reduce_sum(group["a"]), "b": group["b"] + 1}, nest, 2)
    assert found["sum"].numpy().tolist() == [6.0, 22.0, 38.0]
    assert ungroup({"b": found["b"]})["b"].numpy().tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("image_size", "hidden", "batch_size", "expected"),
    [(10, (64, 32), 64, 4), (14, (128, 32), 128, 1), (28, (512, 32), 512, 1), (8, (8, 4), 8, 8)],
)
def test_a_processor_works_on_what_its_caches_hold(image_size, hidden, batch_size, expected):
    family = TaskFamily(
        sources=("digits",), image_size=image_size, hidden=hidden, batch_size=batch_size, windows=(2,)
    )
    assert suitable_size(RuleLearning(rules.make("default"), family), 8, 1) == expected


def test_an_accelerator_gets_everything(monkeypatch):
    made = trainer(tasks=4)
    monkeypatch.setattr("meta_rules.meta_trainer.suitable_size", lambda *_: 2)
    assert made.tasks_at_once(0) == 2
    monkeypatch.setattr(distribution, "accelerators", lambda: ["GPU"])
    assert made.tasks_at_once(0) == 4
    assert trainer(tasks=4, tasks_at_once=1).tasks_at_once(0) == 1


@pytest.mark.parametrize("size", [0, 3])
def test_a_size_that_does_not_divide_is_refused(size):
    with pytest.raises(UserError, match="tasks_at_once"):
        trainer(tasks=4, tasks_at_once=size)
