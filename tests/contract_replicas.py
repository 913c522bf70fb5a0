"""Run by test_contract in a process of its own: every rule on two replicas, its gradient summed over them.

python contract_replicas.py OUT.npz
"""

import sys

import contract_cases as cases
import numpy as np
import tensorflow as tf

from meta_rules import distribution


def main(path):
    """One application and its gradient for every rule, half of the tasks on each replica."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # As in conftest.py.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    strategy = distribution.strategy("mirrored")
    found = {}
    for name in cases.RULES:
        with strategy.scope():
            rule = cases.make(name)
        # Labels and keys go with their tasks, to whichever replica has them.
        arguments = cases.initial(rule), cases.batches()[0], cases.told(rule)

        def on_replica(state, inputs, given, rule=rule, name=name):
            after, gradient = cases.one_step(rule, cases.network(name), rule.theta(), state, inputs, given)
            context = tf.distribute.get_replica_context()
            if not gradient:
                return after, gradient
            return after, context.all_reduce(tf.distribute.ReduceOp.SUM, gradient)

        step = tf.function(lambda *args, run=on_replica: strategy.run(run, args), autograph=False)
        after, gradient = step(*distribution.scatter(strategy, arguments))
        leaves = tf.nest.flatten(distribution.gather(strategy, after))
        found |= {f"{name} state {i}": leaf.numpy() for i, leaf in enumerate(leaves)}
        for key, value in gradient.items():
            for replica, part in enumerate(strategy.experimental_local_results(value)):
                found[f"{name} gradient {replica} {key}"] = part.numpy()
    np.savez(path, replicas=strategy.num_replicas_in_sync, **found)


if __name__ == "__main__":
    main(sys.argv[1])
