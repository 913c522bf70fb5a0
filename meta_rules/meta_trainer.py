"""The outer loop: pools of tasks, the optimizer of the meta-parameters, and the meta-step under a strategy.

Most estimators give a gradient a replica, and the whole meta-step is one device program. A black-box optimiser makes its step
on the host, from the losses of the whole population; its state is plain arrays, which live in variables like all else
that a checkpoint holds.
"""

import fnmatch
import functools

import keras
import numpy as np
import tensorflow as tf

from meta_rules import distribution, saved_rules, stateless
from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.estimators.black_box import flatten, unflatten
from meta_rules.estimators.groups import estimate_in_groups, suitable_size
from meta_rules.semi_supervised_learning import problem_of
from meta_rules.trajectories import PartlyFixed

#: Meta-steps in a row with no finite task after which a run gives up.
PATIENCE = 50


@configurable
class MetaTrainer:
    """Meta-trains a rule on a mixture of task families.

    All random numbers come from `seed` and from global slot numbers, so a run does not depend on the number of replicas.

    Args:
      rule: an `UpdateRule` to train, made in the scope of the strategy.
      families: `TaskFamily` or list of them, each with a pool of its own.
      estimator: of the meta-gradient, or a black-box optimiser.
      meta_steps: length of the run.
      tasks: slots a pool, over all replicas: a run is the same on any number of them.
      tasks_per_replica: slots a pool and replica, instead of `tasks`: more replicas then average over more tasks. Such a run
        goes on only on the same number of them.
      tasks_at_once: slots that a replica works on at a time; a run is the same but for rounding. By default all on an
        accelerator, and on a processor as many as its caches hold, see `estimators/groups.py`.
      learning_rate: of Adam at the start; it falls to 1/100 over the run along a cosine.
      clip_norm: bound on the global norm of the meta-gradient.
      averaging: decay of the running average of theta, which is what is saved and judged.
      steps_per_call: meta-steps that the host starts at once, all with the same visits and windows; more cost less of its time.
      visits: what a meta-step visits: `one` family, drawn by its weight; or `all` of them, whose gradients (or losses of
        candidates) are averaged by weight. Where a step compares a few candidates, all should be compared on everything.
      seed: of everything random.
      trained: names of the meta-parameters that the run may change, with `*` for any ending ("consistency/*"); all if None.
        A black-box optimiser then searches a space of that many dimensions.
      start_from: a shipped rule (`pretrained:...`) or the path of a saved one whose meta-parameters the run begins with; the
        rule's own initial ones if None. The optimizer starts afresh.
      strategy: a `tf.distribute` strategy; the current one if None.
      jit_compile: whether XLA compiles the estimates. Without it a run begins sooner and holds less memory, a meta-step takes
        longer, and figures differ by rounding: for a look at something small. A TPU compiles all the same.

    Raises:
      UserError: an unknown kind of visits; tasks that do not divide by the replicas, or that the estimator cannot work with;
        meta-steps that do not divide by those of a call; a saved rule to start from that is not there or does not fit; a name
        in `trained` that no meta-parameter has.
    """

    def __init__(
        self,
        rule,
        families,
        estimator,
        meta_steps: int = 1000,
        tasks: int = 8,
        tasks_per_replica: int | None = None,
        tasks_at_once: int | None = None,
        learning_rate: float = 3e-3,
        clip_norm: float = 1.0,
        averaging: float = 0.98,
        steps_per_call: int = 1,
        visits: str = "one",
        seed: int = 0,
        trained: tuple | None = None,
        start_from: str | None = None,
        strategy=None,
        jit_compile: bool = True,
    ):
        self.rule, self.estimator = rule, estimator
        self.families = list(families) if isinstance(families, list | tuple) else [families]
        self.strategy = strategy or tf.distribute.get_strategy()
        if tasks_per_replica is not None:
            tasks = tasks_per_replica * self.strategy.num_replicas_in_sync
        self.meta_steps, self.tasks, self.seed = meta_steps, tasks, seed
        self.clip_norm, self.averaging = clip_norm, averaging
        self.steps_per_call = 1 if estimator.host_update else steps_per_call
        if visits not in ("one", "all"):
            raise UserError(f"MetaTrainer.visits must be 'one' or 'all', got {visits!r}.")
        self.visits_all = visits == "all"
        if not self.families or meta_steps < 1 or tasks < 1:
            raise UserError("MetaTrainer needs at least one family, one meta-step and one task.")
        if tasks % self.strategy.num_replicas_in_sync:
            raise UserError(
                f"MetaTrainer.tasks is {tasks}, which does not divide by "
                f"{self.strategy.num_replicas_in_sync} replicas."
            )
        if steps_per_call < 1 or meta_steps % steps_per_call:
            raise UserError(
                f"MetaTrainer.meta_steps is {meta_steps}, which does not divide by steps_per_call {steps_per_call}."
            )
        self._jit_compile = jit_compile
        self._share, self._at_once = tasks // self.strategy.num_replicas_in_sync, tasks_at_once
        if tasks_at_once is not None and (tasks_at_once < 1 or self._share % tasks_at_once):
            raise UserError(
                f"MetaTrainer.tasks_at_once is {tasks_at_once}, by which the {self._share} tasks of a replica do not divide."
            )
        estimator.check(tasks)
        if start_from is not None:
            saved_rules.assign_saved(rule, start_from)
        self._names = _matching(rule, ("*",) if trained is None else trained)
        self.problems = [problem_of(rule, family) for family in self.families]
        with self.strategy.scope():
            schedule = keras.optimizers.schedules.CosineDecay(learning_rate, meta_steps, alpha=0.01)
            self.optimizer = keras.optimizers.Adam(schedule, beta_2=0.99)
            self.optimizer.build([rule.variables_by_name()[name] for name in self._names])
            # Every replica computes the same values, so it does not matter whose are kept.
            same = {"trainable": False, "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA}
            self._average = {name: tf.Variable(value, **same) for name, value in rule.theta().items()}
            self._step = tf.Variable(0, dtype=tf.int64, **same)
        self._host_state = {}
        if estimator.host_update:
            start = estimator.start(flatten(self._searched()), seed)
            self._host_state = {name: tf.Variable(value, trainable=False) for name, value in start.items()}
        self._compiled, self._programs, self._take_compiled = {}, {}, None
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
        found = {
            "theta": [weight.value for weight in weights.values()],
            "average": list(self._average.values()),
            "optimizer": [variable.value for variable in self.optimizer.variables],
            "step": [self._step],
        }
        if self._host_state:
            found["estimator"] = [self._host_state[name] for name in sorted(self._host_state)]
        return found

    def _searched(self):
        """The meta-parameters that the run may change, a dict of name -> tensor."""
        theta = self.rule.theta()
        return {name: theta[name] for name in self._names}

    def _fixed(self):
        """The other meta-parameters, a dict of name -> tensor."""
        theta = self.rule.theta()
        return {name: value for name, value in theta.items() if name not in self._names}

    def _first_pool(self, index):
        root = stateless.fold(stateless.key(self.seed), "pool", index)
        slots = self.estimator.slots(root, self.tasks)
        first = tf.function(
            lambda slot: self.estimator.initial(self.problems[index], self._searched(), slot),
            autograph=False,
        )
        return distribution.scatter(self.strategy, first(slots))

    def choice(self, step):
        """What a meta-step visits, a list of `(family index, window)`; the same in every replica and step of a call."""
        call = step // self.steps_per_call
        random = np.random.Generator(np.random.Philox(key=[self.seed, call]))
        if self.visits_all:
            visited = range(len(self.families))
        else:
            visited = [int(random.choice(len(self.families), p=self._shares(range(len(self.families)))))]
        return [(index, int(random.choice(self.families[index].windows))) for index in visited]

    def _shares(self, visited):
        """How much each of some families counts, by its weight; 1 in all."""
        weights = np.array([self.families[index].weight for index in visited], float)
        return (weights / weights.sum()).tolist()

    def task_steps(self, index, window):
        """Rule applications of one meta-step on a family and window, over all slots and arms."""
        return self.tasks * self.estimator.arms * self.estimator.length(self.problems[index], window)

    def mean_task_steps(self):
        """Rule applications of a meta-step, on average over families and windows."""
        steps = [
            np.mean([self.task_steps(index, window) for window in family.windows])
            for index, family in enumerate(self.families)
        ]
        return float(np.sum(steps) if self.visits_all else np.dot(self._shares(range(len(steps))), steps))

    def tasks_at_once(self, index):
        """Slots of a family's pool that a replica works on at a time."""
        if self._at_once is not None or distribution.accelerators():
            return self._at_once or self._share
        return suitable_size(self.problems[index], self._share, self.estimator.arms)

    def _estimate_in_replica(self, index, length):
        """What a replica compiles for a family and a length, `(theta, fixed, pool) -> Estimate`."""

        def estimate(theta, fixed, pool):
            problem = PartlyFixed(self.problems[index], fixed) if fixed else self.problems[index]
            return estimate_in_groups(self.estimator, problem, theta, pool, length, self.tasks_at_once(index))

        return estimate

    def _estimate(self, index, length):
        """The same, compiled."""
        if (index, length) not in self._compiled:
            self._compiled[index, length] = tf.function(
                self._estimate_in_replica(index, length), jit_compile=self._jit_compile, autograph=False
            )
        return self._compiled[index, length]

    def _program(self, visited):
        """What the host runs for a meta-step on `visited`, a tuple of `(index, length)`."""
        if visited not in self._programs:
            compiled = [self._estimate(*each) for each in visited]
            if self.estimator.host_update:
                step = self._evaluations
            else:
                shares = self._shares([index for index, _ in visited])
                step = functools.partial(self._call, shares=shares)
            self._programs[visited] = tf.function(functools.partial(step, compiled), autograph=False)
        return self._programs[visited]

    def _evaluations(self, compiled, pools, theta):
        """The estimates of a black-box optimiser's candidates, a list of one a family."""

        def in_replica(theta, pools):
            return [each(theta, self._fixed(), pool) for each, pool in zip(compiled, pools, strict=True)]

        return self.strategy.run(in_replica, (theta, pools))

    def _call(self, compiled, pools, shares):
        """The meta-steps of one call: the pools after them; of each step, metrics a family and the norm."""

        def in_replica(pools):
            return self._replica_step(compiled, pools, shares)

        metrics, norms = [], []
        for _ in range(self.steps_per_call):
            pools, figures, norm = self.strategy.run(in_replica, (pools,))
            metrics.extend(figures)
            norms.append(norm)
        return pools, metrics, norms

    def _replica_step(self, compiled, pools, shares):
        estimates = [
            each(self._searched(), self._fixed(), pool) for each, pool in zip(compiled, pools, strict=True)
        ]
        totals = [({name: found.gradient[name] for name in self._names}, found.weight) for found in estimates]
        if self.strategy.num_replicas_in_sync > 1:
            context = tf.distribute.get_replica_context()
            totals = context.all_reduce(tf.distribute.ReduceOp.SUM, totals)
        gradient = {
            name: sum(
                share * total[name] / tf.maximum(weight, 1.0)
                for share, (total, weight) in zip(shares, totals, strict=True)
            )
            for name in self._names
        }
        norm = self._apply_in_replica(gradient)
        return [found.pool for found in estimates], [found.metrics for found in estimates], norm

    def _apply_in_replica(self, gradient):
        gradient = [gradient[name] for name in self._names]
        norm = tf.sqrt(sum(tf.reduce_sum(tf.square(part)) for part in gradient) + 1e-20)
        # Finite tasks can still sum to more than a float holds; theta must not learn of it.
        sound = tf.math.is_finite(norm)
        gradient = [tf.where(sound, part, tf.zeros_like(part)) for part in gradient]
        norm = tf.where(sound, norm, tf.zeros_like(norm))
        scale = tf.minimum(self.clip_norm / tf.maximum(norm, 1e-10), 1.0)
        replicas = self.strategy.num_replicas_in_sync
        if replicas > 1:
            # Keras sums what the replicas hand in, and each hands in the whole gradient.
            scale = scale / replicas
        weights = self.rule.variables_by_name()
        self.optimizer.apply([part * scale for part in gradient], [weights[name] for name in self._names])
        self._follow()
        return norm

    def _follow(self):
        """Moves the running average towards theta, and counts the step."""
        # Early on the average follows theta closely: it must not remember the initial values.
        weights = self.rule.variables_by_name()
        step = tf.cast(self._step, tf.float32)
        decay = tf.minimum(self.averaging, (1.0 + step) / (10.0 + step))
        for name, average in self._average.items():
            keep = tf.cast(decay, average.dtype)
            average.assign(keep * average + (1.0 - keep) * weights[name])
        self._step.assign_add(1)

    def meta_step(self):
        """The meta-steps of one call.

        Returns:
          A dict of name -> `[tasks]` array (see `Estimate.metrics`; of all families and steps of the call one after the
          other), and a dict of scalars about the last step.
        """
        chosen = self.choice(self.step)
        visited = tuple(
            (index, self.estimator.length(self.problems[index], window)) for index, window in chosen
        )
        rate = float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))
        step = self._host_step if self.estimator.host_update else self._device_step
        metrics, norm = step(visited)
        scalars = {
            "meta/gradient_norm": float(norm),
            "meta/learning_rate": rate,
            "task_steps": self.steps_per_call * sum(self.task_steps(*each) for each in chosen),
        }
        if not self.visits_all:
            scalars["meta/family"] = chosen[0][0]
        return {name: np.concatenate([each[name] for each in metrics]) for name in metrics[0]}, scalars

    def _gathered(self, metrics):
        return {name: value.numpy() for name, value in distribution.gather(self.strategy, metrics).items()}

    def _visited_pools(self, visited):
        return [self.pools[index] for index, _ in visited]

    def _keep_pools(self, visited, pools):
        for (index, _), pool in zip(visited, pools, strict=True):
            self.pools[index] = pool

    def _device_step(self, visited):
        pools, metrics, norms = self._program(visited)(self._visited_pools(visited))
        self._keep_pools(visited, pools)
        norm = self.strategy.experimental_local_results(norms[-1])[0]
        return [self._gathered(figures) for figures in metrics], norm

    def _host_step(self, visited):
        optimiser, like = self.estimator, self._searched()
        state = {name: value.numpy() for name, value in self._host_state.items()}
        theta = flatten(like)
        candidates = optimiser.ask(state, theta, self.tasks // optimiser.tasks_each)
        copies = unflatten(optimiser.candidates_of_slots(candidates), like)
        copies = distribution.scatter(self.strategy, tf.nest.map_structure(tf.constant, copies))
        estimates = self._program(visited)(self._visited_pools(visited), copies)
        self._keep_pools(visited, [found.pool for found in estimates])
        metrics = [self._gathered(found.metrics) for found in estimates]
        shares = self._shares([index for index, _ in visited])
        losses = np.average(
            [optimiser.losses_of_candidates(each) for each in metrics], axis=0, weights=shares
        )
        state, answer = optimiser.tell(state, theta, losses)
        norm = self._take(answer, theta, like)
        for name, value in state.items():
            self._host_state[name].assign(value)
        return metrics, norm

    def _take(self, answer, theta, like):
        """Does what a black-box optimiser answers, `[parameters]`; the norm of the gradient or of the move."""
        if self._take_compiled is None:
            apply = (
                self._apply_in_replica if self.estimator.answer == "gradient" else lambda *_: self._follow()
            )
            self._take_compiled = tf.function(lambda *args: self.strategy.run(apply, args), autograph=False)
        if not np.isfinite(answer).all():
            answer = theta if self.estimator.answer == "theta" else np.zeros_like(theta)
        values = tf.nest.map_structure(tf.constant, unflatten(answer, like))
        if self.estimator.answer == "theta":
            self.rule.assign(self.rule.theta() | values)
        self._take_compiled(values)
        return np.linalg.norm(answer - theta if self.estimator.answer == "theta" else answer)

    def train(self, on_step, patience=PATIENCE):
        """Meta-steps until `meta_steps` are done, or `on_step` asks to stop.

        Args:
          on_step: called after every call of meta-steps with `(step, metrics, scalars)`; a true answer stops the run.
          patience: meta-steps in a row with no finite task after which the run ends.

        Returns:
          Whether the run is complete.

        Raises:
          UserError: no task stayed finite for `patience` meta-steps.
        """
        barren = 0
        while self.step < self.meta_steps:
            metrics, scalars = self.meta_step()
            barren = 0 if metrics["used"].any() else barren + self.steps_per_call
            if barren >= patience:
                raise UserError(
                    f"No task has stayed finite for {patience} meta-steps (now at {self.step}): the run has diverged. "
                    f"Lower MetaTrainer.learning_rate, or resume from an earlier checkpoint."
                )
            if on_step(self.step, metrics, scalars):
                return False
        return True


def _matching(rule, patterns):
    """Names of a rule's meta-parameters that match one of the patterns, in the rule's order.

    Raises:
      UserError: no pattern, or one that no name matches.
    """
    names = list(rule.variables_by_name())
    for pattern in patterns or ("",):
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"MetaTrainer.trained: no meta-parameter is called {pattern!r}; there are {', '.join(names)}."
            )
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
