"""Three meta-steps on two replicas, a checkpoint, and three more to compare with: `survival_run.py FOLDER`.

Logical devices must be set up before TensorFlow uses any, hence a process of its own.
"""

import os
import sys

import numpy as np

from meta_rules import distribution

if __name__ == "__main__":
    strategy = distribution.strategy("mirrored", cpu_devices=2)
    from small_problems import SmallRule, small_family

    from meta_rules import estimators
    from meta_rules.checkpoints import RunCheckpoints
    from meta_rules.meta_trainer import MetaTrainer

    folder = sys.argv[1]
    with strategy.scope():
        rule = SmallRule()
    trainer = MetaTrainer(
        rule, small_family(), estimators.TruncatedBPTT(), meta_steps=400, tasks=4, strategy=strategy
    )
    for _ in range(3):
        trainer.meta_step()
    pools = [distribution.gather(strategy, pool) for pool in trainer.pools]
    RunCheckpoints(os.path.join(folder, "checkpoints"), trainer.variables()).save(3, pools)
    losses = np.stack([trainer.meta_step()[0]["loss"] for _ in range(3)])
    np.savez(os.path.join(folder, "expected.npz"), losses=losses, **trainer.theta())
