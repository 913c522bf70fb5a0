"""Black-box optimisation of the flattened meta-parameters: ask for candidates, tell how good they are.

A black-box optimiser knows nothing of networks. It keeps a state of plain arrays on the host; `ask` and `tell` are pure
functions of that state, so that a checkpoint that holds the arrays resumes exactly. The population lives on the task
axis: with S slots and m tasks a candidate there are S / m candidates, slot i works for candidate i // m, and all
candidates see the same m tasks (data, permutations, labels, first networks). One compiled program evaluates them all,
and the slots are split over replicas as for every other estimator.
"""

import numpy as np
import tensorflow as tf

from meta_rules import stateless
from meta_rules.errors import UserError
from meta_rules.estimators.base import Estimate, Estimator, check_reading
from meta_rules.estimators.lives import to_horizon
from meta_rules.estimators.perturbations import retire
from meta_rules.trajectories import finite


class BlackBox(Estimator):
    """Base class of the black-box optimisers; every meta-step is one generation of whole lives.

    A step is: `candidates = ask(state, theta, population)` on the host, `estimate` with a candidate a slot on the device,
    `state, answer = tell(state, theta, losses)` on the host with the losses of the whole population.

    Args:
      tasks_each: tasks that every candidate is tried on; the slots over all replicas must divide by it.
      loss: `end`, the meta-loss at the horizon; or `sum`, the mean of the meta-losses over the life.
      read: with `sum`, whether a loss is read `after` or `before` its application.
      criterion: what candidates are compared by: the meta-`loss`, or the `error_rate` of the probe, which needs no
        derivative here and is what a rule is judged by in the end.

    Raises:
      UserError: an unknown loss, read or criterion, or no task.
    """

    host_update = True
    #: What `tell` answers with: the next `theta`, or a `gradient` for the trainer's optimizer.
    answer = "theta"
    #: Fewest candidates that it works with, and what their number must divide by.
    smallest_population, multiple = 2, 1

    def __init__(self, tasks_each: int = 1, loss: str = "end", read: str = "after", criterion: str = "loss"):
        self.tasks_each, self.loss, self.read, self.criterion = tasks_each, loss, read, criterion
        check_reading(self, loss, read)
        if criterion not in ("loss", "error_rate"):
            raise UserError(
                f"{type(self).__name__}.criterion must be 'loss' or 'error_rate', got {criterion!r}."
            )
        if tasks_each < 1:
            raise UserError(f"{type(self).__name__}.tasks_each must be at least 1, got {tasks_each}.")

    def check(self, tasks):
        """See `Estimator.check`."""
        population = tasks // self.tasks_each
        if tasks % self.tasks_each or population < self.smallest_population or population % self.multiple:
            wanted = f"{self.smallest_population} or more" + (
                ", an even number" if self.multiple == 2 else ""
            )
            raise UserError(
                f"{type(self).__name__} needs a population of {wanted}: MetaTrainer.tasks must be that times "
                f"tasks_each = {self.tasks_each}, got {tasks}."
            )

    def slots(self, root, tasks):
        """See `Estimator.slots`: the same keys for every candidate."""
        return tf.tile(stateless.split(root, self.tasks_each), [tasks // self.tasks_each, 1])

    def length(self, problem, window):
        """The longest life, whatever the window."""
        return problem.longest

    def initial(self, problem, theta, slot):
        """The first pool; see `Estimator.initial`."""
        return problem.fresh(slot, tf.zeros([slot.shape[0]], tf.int32))

    def estimate(self, problem, theta, pool, window):
        """Evaluates one generation: theta is a dict of name -> `[tasks, ...]`, each slot's candidate.

        Returns:
          An `Estimate` without a gradient; the losses are in its metrics.
        """
        start = problem.fresh(pool.slot, pool.count + 1)
        after, loss, figures = to_horizon(
            problem, theta, start, window, self.loss, self.read, differentiable=False
        )
        used = finite((loss, after))
        shares = tf.cast(used, loss.dtype)
        metrics = {"loss": loss, "age": tf.cast(after.age, loss.dtype), "used": shares, **figures}
        return Estimate({}, tf.reduce_sum(shares), retire(after, used), metrics)

    def candidates_of_slots(self, candidates):
        """Candidates `[population, parameters]` as one for every slot, `[tasks, parameters]`."""
        return np.repeat(candidates, self.tasks_each, axis=0)

    def losses_of_candidates(self, metrics):
        """Mean of the criterion for every candidate `[population]`, infinite where a task is not used.

        Args:
          metrics: dict of name -> `[tasks]`, those of `estimate`.
        """
        losses = metrics["loss"] if self.criterion == "loss" else 1.0 - metrics["accuracy"]
        losses = np.where(np.asarray(metrics["used"]) > 0, np.asarray(losses, np.float64), np.inf)
        return losses.reshape(-1, self.tasks_each).mean(axis=1)

    def start(self, theta, seed):
        """The first state: a dict of name -> array.

        Args:
          theta: `[parameters]` to start from.
          seed: of the optimiser's random numbers.
        """
        raise NotImplementedError

    def ask(self, state, theta, population):
        """The candidates of the next generation, `[population, parameters]`."""
        raise NotImplementedError

    def tell(self, state, theta, losses):
        """What is made of the losses `[population]` of those candidates, lower is better, infinite for a failure.

        Returns:
          `(state, answer)`: the next state and `[parameters]`, see `answer`.
        """
        raise NotImplementedError


def flatten(theta):
    """A dict of name -> array as one vector `[parameters]`, in the order of the names."""
    return np.concatenate([np.asarray(theta[name], np.float64).ravel() for name in sorted(theta)])


def unflatten(vectors, like):
    """The inverse of `flatten` for vectors `[..., parameters]`: dict of name -> `[..., *shape]`, dtypes as in `like`."""
    found, at = {}, 0
    for name in sorted(like):
        shape = tuple(like[name].shape)
        size = int(np.prod(shape))
        part = np.reshape(vectors[..., at : at + size], (*vectors.shape[:-1], *shape))
        found[name] = np.asarray(part, tf.as_dtype(like[name].dtype).as_numpy_dtype)
        at += size
    return found


def generator(state):
    """NumPy's generator of the generation that a state is at."""
    words = [int(state["seed"]), int(state["generation"])]
    return np.random.Generator(np.random.Philox(key=words))


def ranks(losses):
    """Centred ranks of losses `[population]`: from -0.5 for the best to 0.5 for the worst; ties share the mean of theirs."""
    order = np.sort(losses)
    low = np.searchsorted(order, losses, side="left")
    high = np.searchsorted(order, losses, side="right") - 1
    return (low + high) / 2.0 / (len(losses) - 1) - 0.5
