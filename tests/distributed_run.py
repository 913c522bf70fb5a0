"""Meta-trains small problems under a strategy and writes what came of it: `distributed_run.py STRATEGY FILE CASE...`.

TensorFlow's devices and workers must be set up before anything else is, so each strategy needs a process of its own.
"""

import contextlib
import sys
from unittest import mock

import numpy as np
import tensorflow as tf
from small_problems import LinearQuadratic, SmallRule, small_family

from meta_rules import distribution
from meta_rules.estimators import REGISTRY
from meta_rules.meta_trainer import MetaTrainer

#: Estimators on the linear-quadratic problem, which compiles fast, and on tasks with a network.
EXACT, NETWORKS = (
    ("truncated_bptt", "pes", "openai_es", "cma_es", "truncated_bptt of all", "cma_es of all"),
    ("truncated_bptt on networks", "pes on networks"),
)
STEPS = 20


class Lengths:
    """What the trainer asks of a family."""

    weight, windows = 1.0, (4,)


def train(case, strategy):
    """What a few meta-steps give: theta, its average, metrics and the pool, a dict of name -> array."""
    name, networks, of_all = case.split()[0], case.endswith("networks"), case.endswith("of all")
    problem = LinearQuadratic(lengths=(3, 6, 5), noise=0.3, dtype=tf.float32)
    stub = mock.patch("meta_rules.meta_trainer.problem_of", lambda rule, family: problem)
    with strategy.scope():
        rule = SmallRule()
    with contextlib.nullcontext() if networks else stub:
        families = [small_family() if networks else Lengths()] * (2 if of_all else 1)
        settings = {"visits": "all" if of_all else "one", "meta_steps": 50, "tasks": 8, "strategy": strategy}
        trainer = MetaTrainer(rule, families, REGISTRY[name](), **settings)
    steps = [trainer.meta_step() for _ in range(STEPS)]
    found = {f"theta/{key}": value.numpy() for key, value in rule.theta().items()}
    found |= {f"average/{key}": value for key, value in trainer.theta().items()}
    found |= {f"metrics/{key}": np.stack([row[key] for row, _ in steps]) for key in steps[0][0]}
    found["norm"] = np.array([scalars["meta/gradient_norm"] for _, scalars in steps])
    # Adam hides a gradient that is too large by a factor; its moments show it.
    found |= {f"optimizer/{i}": value.numpy() for i, value in enumerate(trainer.optimizer.variables)}
    # A pool must survive being put together and taken apart.
    pool = distribution.gather(
        strategy, distribution.scatter(strategy, distribution.gather(strategy, trainer.pools[0]))
    )
    return found | {f"pool/{i}": leaf.numpy() for i, leaf in enumerate(tf.nest.flatten(pool))}


def train_all(cases, strategy):
    """Every case; dict of `CASE/NAME` -> array."""
    return {f"{case}/{key}": value for case in cases for key, value in train(case, strategy).items()}


def main(name, file, *cases):
    """Runs the cases and writes their arrays."""
    # As in conftest.py.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    strategy = distribution.strategy(name, cpu_devices=2 if name == "mirrored" else None)
    np.savez(file, replicas=strategy.num_replicas_in_sync, **train_all(cases, strategy))


if __name__ == "__main__":
    main(*sys.argv[1:])
