"""The final judgement of a rule that is told some labels: accuracy of the network's own output on all points of fresh clouds.

The peers see the same clouds and the same labels. On pictures the network is scored on query examples, in batches of its
own statistics, and there are no peers here.
"""

import numpy as np
import tensorflow as tf

from meta_rules import stateless
from meta_rules.evaluation.few_shot import COLUMNS
from meta_rules.evaluation.semi_supervised_peers import PEERS, chosen_settings, peer_accuracy
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

    @tf.function(jit_compile=True, autograph=False)
    def _fresh(self, slots):
        return self.problem.fresh(slots, tf.zeros([CHUNK], tf.int32))

    def fresh(self, first):
        """Untrained lives of the `CHUNK` draws numbered from `first`."""
        return self._fresh(stateless.fold(self._root, tf.range(first, first + CHUNK)))

    @tf.function(jit_compile=True, autograph=False)
    def _train(self, theta, trajectory, steps):
        copies = per_task(theta, CHUNK)
        _, after = tf.while_loop(
            lambda index, _: index < steps,
            lambda index, life: (index + 1, self.problem.advance(copies, life)),
            (tf.constant(0), trajectory),
        )
        return after, self.problem.loss(copies, after)[1]["accuracy"]

    def train(self, theta, trajectory, steps):
        """The lives `steps` applications later, and their accuracies `[CHUNK]`; one program whatever the steps."""
        theta = {name: tf.convert_to_tensor(value) for name, value in theta.items()}
        return self._train(theta, trajectory, tf.constant(steps))

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
            life, done = self.fresh(start), 0
            for upto in steps:
                life, accuracy = self.train(theta, life, upto - done)
                found[upto].extend(accuracy.numpy())
                done = upto
        return {upto: np.asarray(values[:draws]) for upto, values in found.items()}

    def clouds(self, draws, split=None):
        """The tasks of the draws, or of as many of another split, as plain `Cloud`s for the peers."""
        family = self.family.of_split(split) if split else self.family
        clouds = []
        for start in range(0, draws, CHUNK):
            if split:
                # Once for all: compiling it would take longer.
                task = family.sample(stateless.fold(self._root, tf.range(start, start + CHUNK)))
            else:
                task = self.fresh(start).task
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
        if not hasattr(self.family, "encode"):
            # Pictures: their peers are in the evaluation report.
            return rows
        tuning, clouds = self.clouds(TUNING, "validation"), self.clouds(draws)
        for method in PEERS:
            settings = chosen_settings(method, tuning)
            values = np.array([peer_accuracy(method, settings, cloud) for cloud in clouds])
            rows.append(self._row(method, values, self.family.inputs if settings.get("encoded") else 2, 0))
        return rows

    def _row(self, method, values, features, steps):
        family = self.family
        low, high = family.labels if hasattr(family, "labels") else (family.support, family.support)
        error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
        shots = low if low == high else f"{low}-{high}"
        columns = (method, ",".join(family.sources), shots, features, int(steps))
        return dict(zip(COLUMNS, (*columns, float(values.mean()), error, len(values)), strict=True))
