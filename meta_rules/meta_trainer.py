"""The outer loop: pools of tasks, the optimizer of the meta-parameters, and the meta-step under a strategy."""


import keras
import numpy as np
import tensorflow as tf

from meta_rules import distribution, stateless
from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.trajectories import RuleLearning

#: Meta-steps in a row with no finite task after which a run gives up.
PATIENCE = 50


@configurable
class MetaTrainer:
    """Meta-trains a rule on a mixture of task families.

    All random numbers come from `seed` and from global slot numbers, so a run does not depend on the number of replicas.

    Args:
      rule: an `UpdateRule` to train.
      families: `TaskFamily` or list of them; each has a pool of its own, and every meta-step visits one.
      estimator: of the meta-gradient.
      meta_steps: length of the run.
      tasks: slots a pool, over all replicas.
      learning_rate: of Adam at the start; it falls to 1/100 over the run along a cosine.
      clip_norm: bound on the global norm of the meta-gradient.
      averaging: decay of the running average of theta, which is what is saved and judged.
      seed: of everything random.
      strategy: a `tf.distribute` strategy; the current one if None.

    Raises:
      UserError: tasks that do not divide by the replicas.
    """

    def __init__(
        self,
        rule,
        families,
        estimator,
        meta_steps: int = 1000,
        tasks: int = 8,
        learning_rate: float = 3e-3,
        clip_norm: float = 1.0,
        averaging: float = 0.98,
        seed: int = 0,
        strategy=None,
    ):
        self.rule, self.estimator = rule, estimator
        self.families = list(families) if isinstance(families, list | tuple) else [families]
        self.meta_steps, self.tasks, self.seed = meta_steps, tasks, seed
        self.clip_norm, self.averaging = clip_norm, averaging
        self.strategy = strategy or tf.distribute.get_strategy()
        if not self.families or meta_steps < 1 or tasks < 1:
            raise UserError("MetaTrainer needs at least one family, one meta-step and one task.")
        if tasks % self.strategy.num_replicas_in_sync:
            raise UserError(
                f"MetaTrainer.tasks is {tasks}, which does not divide by "
                f"{self.strategy.num_replicas_in_sync} replicas."
            )
        self.problems = [RuleLearning(rule, family) for family in self.families]
        self._names = list(rule.variables_by_name())
        with self.strategy.scope():
            schedule = keras.optimizers.schedules.CosineDecay(learning_rate, meta_steps, alpha=0.01)
            self.optimizer = keras.optimizers.Adam(schedule, beta_2=0.99)
            self.optimizer.build([rule.variables_by_name()[name] for name in self._names])
            self._average = {name: tf.Variable(value, trainable=False) for name, value in rule.theta().items()}
            self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._estimates = {}
        self.pools = [self._first_pool(i) for i in range(len(self.problems))]

    @property
    def step(self):
        """Meta-steps done."""
        return int(self._step.numpy())

    def theta(self):
        """The running average of the meta-parameters, a dict of name -> array: what is saved and judged."""
        return {name: value.numpy() for name, value in self._average.items()}

    def variables(self):
        """Every live variable of the run, a dict of name -> list of `tf.Variable`, for a checkpoint."""
        weights = self.rule.variables_by_name()
        return {
            "theta": [weights[name].value for name in self._names],
            "average": [self._average[name] for name in self._names],
            "optimizer": [variable.value for variable in self.optimizer.variables],
            "step": [self._step],
        }

    def _first_pool(self, index):
        root = stateless.fold(stateless.key(self.seed), "pool", index)
        slots = stateless.split(root, self.tasks)
        first = tf.function(
            lambda slot: self.estimator.initial(self.problems[index], self.rule.theta(), slot),
            autograph=False,
        )
        return distribution.scatter(self.strategy, first(slots))

    def choice(self, step):
        """Which family and window a meta-step visits, `(index, window)`; the same on all replicas."""
        random = np.random.Generator(np.random.Philox(key=[self.seed, step]))
        weights = np.array([family.weight for family in self.families], float)
        index = int(random.choice(len(self.families), p=weights / weights.sum()))
        return index, int(random.choice(self.families[index].windows))

    def _estimate(self, index, window):
        if (index, window) not in self._estimates:
            problem = self.problems[index]
            compiled = tf.function(
                lambda theta, pool: self.estimator.estimate(problem, theta, pool, window),
                jit_compile=True,
                autograph=False,
            )
            self._estimates[index, window] = tf.function(
                lambda pool: self.strategy.run(self._replica_step, (compiled, pool)), autograph=False
            )
        return self._estimates[index, window]

    def _replica_step(self, compiled, pool):
        theta = self.rule.theta()
        estimate = compiled(theta, pool)
        context = tf.distribute.get_replica_context()
        total = {name: estimate.gradient[name] for name in self._names}
        weight = estimate.weight
        if self.strategy.num_replicas_in_sync > 1:
            total, weight = context.all_reduce(tf.distribute.ReduceOp.SUM, [total, weight])
        norm = self._apply_in_replica(total, weight)
        return estimate.pool, estimate.metrics, norm

    def _apply_in_replica(self, total, weight):
        gradient = [total[name] / tf.maximum(weight, 1.0) for name in self._names]
        norm = tf.sqrt(sum(tf.reduce_sum(tf.square(part)) for part in gradient) + 1e-20)
        scale = tf.minimum(1.0, self.clip_norm / norm)
        weights = self.rule.variables_by_name()
        self.optimizer.apply([part * scale for part in gradient], [weights[name] for name in self._names])
        # Early on the average follows theta closely: it must not remember the initial values.
        step = tf.cast(self._step, tf.float32)
        decay = tf.minimum(self.averaging, (1.0 + step) / (10.0 + step))
        for name, average in self._average.items():
            average.assign(decay * average + (1.0 - decay) * weights[name])
        self._step.assign_add(1)
        return norm

    def meta_step(self):
        """One meta-step.

        Returns:
          A dict of name -> `[tasks]` array (see `Estimate.metrics`), and a dict of scalars about the step.
        """
        index, window = self.choice(self.step)
        rate = float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))
        pool, metrics, norm = self._estimate(index, window)(self.pools[index])
        self.pools[index] = pool
        metrics = {
            name: value.numpy() for name, value in distribution.gather(self.strategy, metrics).items()
        }
        norm = self.strategy.experimental_local_results(norm)[0]
        scalars = {
            "meta/gradient_norm": float(norm),
            "meta/learning_rate": rate,
            "meta/family": index,
            "task_steps": self.tasks * window,
        }
        return metrics, scalars

    def train(self, on_step, patience=PATIENCE):
        """Meta-steps until `meta_steps` are done, or `on_step` asks to stop.

        Args:
          on_step: called after every meta-step with `(step, metrics, scalars)`; a true answer stops the run.
          patience: meta-steps in a row with no finite task after which the run ends.

        Returns:
          Whether the run is complete.

        Raises:
          UserError: no task stayed finite for `patience` meta-steps.
        """
        barren = 0
        while self.step < self.meta_steps:
            metrics, scalars = self.meta_step()
            barren = 0 if metrics["used"].any() else barren + 1
            if barren >= patience:
                raise UserError(
                    f"No task has stayed finite for {patience} meta-steps (now at {self.step}): the run has diverged. "
                    f"Lower MetaTrainer.learning_rate, or resume from an earlier checkpoint."
                )
            if on_step(self.step, metrics, scalars):
                return False
        return True
