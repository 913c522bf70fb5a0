"""The final judgement of a rule that is told some labels: accuracy of the network's own output on all points of fresh clouds.

The peers see the same clouds and the same labels.
"""

import numpy as np
import tensorflow as tf

from meta_rules import stateless
from meta_rules.evaluation.few_shot import COLUMNS
from meta_rules.evaluation.semi_supervised_peers import PEERS, chosen_settings, peer_accuracy
from meta_rules.inner_loop import unroll
from meta_rules.rules.base import per_task
from meta_rules.semi_supervised_learning import SemiSupervisedLearning

#: Draws that are trained side by side in one compiled program.
CHUNK = 20
#: Validation clouds that the peers' hyperparameters are chosen on.
TUNING = 20


class SemiSupervisedTrial:
    """Draws of one family, and networks trained on them by a rule.

    Args:
      rule: an `UpdateRule` that says `needs_labels`.
      family: a `PointFamily`, of the test split.
      seed: of clouds and networks.
    """

    def __init__(self, rule, family, seed=0):
        self.rule, self.family = rule, family
        self.problem = SemiSupervisedLearning(rule, family)
        self._root = stateless.fold(stateless.key(seed), "semi_supervised_trial")
        self._compiled = {}

    def fresh(self, first, count):
        """Untrained lives of the draws numbered from `first`."""
        if count not in self._compiled:
            self._compiled[count] = tf.function(self.problem.fresh, jit_compile=True, autograph=False)
        slots = stateless.fold(self._root, tf.range(first, first + count))
        return self._compiled[count](slots, tf.zeros([count], tf.int32))

    def train(self, theta, trajectory, steps):
        """The lives `steps` applications later, and their accuracies `[tasks]`."""
        key = ("train", trajectory.age.shape[0], steps)
        if key not in self._compiled:

            def run(theta, trajectory):
                copies = per_task(theta, trajectory.age.shape[0])
                after, _ = unroll(
                    lambda copies, life, _: (self.problem.advance(copies, life), ()),
                    copies,
                    trajectory,
                    steps,
                    differentiable=False,
                )
                return after, self.problem.loss(copies, after)[1]["accuracy"]

            self._compiled[key] = tf.function(run, jit_compile=True, autograph=False)
        theta = {name: tf.convert_to_tensor(value) for name, value in theta.items()}
        return self._compiled[key](theta, trajectory)

    def accuracies(self, theta, steps, draws):
        """Accuracy of every draw after each number of steps.

        Args:
          theta: dict of name -> array, the meta-parameters to use.
          steps: increasing numbers of rule applications; 0 is left out: an untrained network has no classes.
          draws: how many clouds.

        Returns:
          A dict of every number in `steps` above 0 -> `[draws]`.
        """
        steps = [upto for upto in steps if upto > 0]
        found = {upto: [] for upto in steps}
        for start in range(0, draws, CHUNK):
            life, done = self.fresh(start, CHUNK), 0
            for upto in steps:
                life, accuracy = self.train(theta, life, upto - done)
                found[upto].extend(accuracy.numpy())
                done = upto
        return {upto: np.asarray(values[:draws]) for upto, values in found.items()}

    def clouds(self, draws, split=None):
        """The tasks of the draws, or of as many of another split, as plain `Cloud`s for the peers."""
        family = self.family.of_split(split) if split else self.family
        sample = tf.function(family.sample, jit_compile=True, autograph=False)
        clouds = []
        for start in range(0, draws, CHUNK):
            slots = stateless.fold(self._root, tf.range(start, start + CHUNK))
            keys = stateless.fold(stateless.fold(slots, 0), "task")
            task = sample(keys)
            encoded = family.encode(task, task.points).numpy()
            standard = ((task.points - task.mean) / task.scale).numpy()
            labels, known = tf.argmax(task.labels, -1).numpy(), task.known.numpy() > 0
            clouds.extend(zip(standard, encoded, labels, known, strict=True))
        return clouds[:draws]

    def rows(self, theta, steps, draws):
        """Rows of results.json, the rule's and the peers'; columns as in `few_shot.COLUMNS`."""
        rows = [
            self._row("learned", values, self.family.hidden[-1], upto)
            for upto, values in self.accuracies(theta, steps, draws).items()
        ]
        tuning, clouds = self.clouds(TUNING, "validation"), self.clouds(draws)
        for method in PEERS:
            settings = chosen_settings(method, tuning)
            values = np.array([peer_accuracy(method, settings, cloud) for cloud in clouds])
            rows.append(self._row(method, values, self.family.inputs if settings.get("encoded") else 2, 0))
        return rows

    def _row(self, method, values, features, steps):
        low, high = self.family.labels
        error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
        shots = low if low == high else f"{low}-{high}"
        columns = (method, ",".join(self.family.shapes), shots, features, int(steps))
        return dict(zip(COLUMNS, (*columns, float(values.mean()), error, len(values)), strict=True))
