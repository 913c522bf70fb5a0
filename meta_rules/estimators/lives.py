"""How estimators let networks live: through one window, to the horizon, or through a window with fresh starts inside.

`loss` and `read` mean the same in all estimators. With `loss="end"` the meta-loss is read once, when the window or the
life is over. With `loss="sum"` it is read at every rule application, after it or (`read="before"`) before it, and what is
reported is the mean over the applications: the sum's gradient, at a scale that does not depend on the window.
"""

import tensorflow as tf

from meta_rules.inner_loop import unroll
from meta_rules.trajectories import select


def _advance_and_read(problem, copies, trajectory, read):
    if read == "before":
        loss, figures = problem.loss(copies, trajectory)
        return problem.advance(copies, trajectory), loss, figures
    trajectory = problem.advance(copies, trajectory)
    return trajectory, *problem.loss(copies, trajectory)


def through_window(problem, copies, trajectory, window, loss="end", read="after"):
    """Every slot through `window` applications.

    Args:
      problem: as `trajectories.RuleLearning`.
      copies: dict of name -> `[tasks, ...]`, the meta-parameters of every slot.
      trajectory: where the slots are.
      window: rule applications.
      loss, read: see above.

    Returns:
      `(trajectory, loss [tasks], figures)`, figures a dict of name -> `[tasks]`; differentiable in `copies`.
    """

    def step(copies, trajectory, index):
        if loss == "end":
            return problem.advance(copies, trajectory), ()
        trajectory, value, figures = _advance_and_read(problem, copies, trajectory, read)
        return trajectory, (value, figures)

    after, sums = unroll(step, copies, trajectory, window)
    if loss == "end":
        return after, *problem.loss(copies, after)
    value, figures = tf.nest.map_structure(lambda total: total / window, sums)
    return after, value, figures


def to_horizon(problem, copies, trajectory, bound, loss="end", read="after", differentiable=True):
    """Every slot from where it is to its own horizon, after which it stands still.

    Args:
      problem, copies, loss, read: as in `through_window`; the mean of `sum` is over a slot's own applications.
      trajectory: where the slots are, each at most `bound` applications from its horizon.
      bound: applications of the loop.
      differentiable: False keeps no history.

    Returns:
      As `through_window`.
    """

    def step(copies, trajectory, index):
        alive = tf.logical_not(problem.finished(trajectory))
        if loss == "end":
            return select(alive, problem.advance(copies, trajectory), trajectory), ()
        moved, value, figures = _advance_and_read(problem, copies, trajectory, read)
        read_now = tf.nest.map_structure(lambda x: tf.where(alive, x, tf.zeros_like(x)), (value, figures))
        return select(alive, moved, trajectory), read_now

    after, sums = unroll(step, copies, trajectory, bound, differentiable=differentiable)
    if loss == "end":
        return after, *problem.loss(copies, after)
    lived = after.age - trajectory.age
    value, figures = tf.nest.map_structure(lambda total: total / tf.cast(lived, total.dtype), sums)
    return after, value, figures


def ends_within(problem, window):
    """How many lives can end in a slot so that another starts inside the window; no life is shorter than `problem.shortest`."""
    return -(-window // problem.shortest)


def next_lives(problem, slot, count, window):
    """The fresh trajectories that may start in slots `[tasks, 2]` inside a window, after the lives numbered `count [tasks]`."""
    number, tasks = ends_within(problem, window), slot.shape[0]
    counts = count[None] + tf.range(1, number + 1)[:, None]
    # All in one batch: one life's worth of program, however many lives.
    lives = problem.fresh(tf.tile(slot, [number, 1]), tf.reshape(counts, [-1]))
    return [
        tf.nest.map_structure(lambda leaf, n=n: leaf[n * tasks : (n + 1) * tasks], lives)
        for n in range(number)
    ]


def with_fresh_starts(problem, copies, trajectory, fresh, window, loss="end", read="after"):
    """Every slot through `window` applications; a life that has reached its horizon is followed by the next at once.

    The application that takes a life to its horizon is that life's last; the fresh life starts with the application after it.

    Args:
      problem, trajectory, window, loss, read: as in `through_window`.
      copies: the meta-parameters of the slots: a list of one for every life that may be lived in the window, or of
        one for all of them.
      fresh: the fresh trajectories that may follow the present one, see `next_lives`.

    Returns:
      `(trajectory, life, losses, figures)`. `life [tasks]` is how many fresh lives have begun, and `losses [lives, tasks]`
      what was read in each life, over `window`. No gradient can be taken.
    """
    lives = len(fresh) + 1

    def of_life(choices, life):
        chosen = choices[0]
        for number, choice in enumerate(choices[1:], start=1):
            chosen = select(life == number, choice, chosen)
        return chosen

    def split(value, life):
        return tf.one_hot(life, lives, axis=0, dtype=value.dtype) * value

    def step(given, carry, index):
        copies, fresh = given
        trajectory, life = carry
        over = problem.finished(trajectory)
        life = tf.minimum(life + tf.cast(over, tf.int32), lives - 1)
        trajectory = select(over, of_life([trajectory, *fresh], life), trajectory)
        mine = of_life(copies, life)
        if loss == "end":
            return (problem.advance(mine, trajectory), life), ()
        trajectory, value, figures = _advance_and_read(problem, mine, trajectory, read)
        return (trajectory, life), (split(value, life), figures)

    start = (trajectory, tf.zeros_like(trajectory.age))
    (after, life), sums = unroll(step, (copies, fresh), start, window, differentiable=False)
    if loss == "end":
        value, figures = problem.loss(of_life(copies, life), after)
        return after, life, split(value, life), figures
    losses, figures = tf.nest.map_structure(lambda total: total / window, sums)
    return after, life, losses, figures
