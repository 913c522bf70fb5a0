"""The final judgement of a rule: few-shot accuracy on pictures and permutations that meta-training never used.

Every method sees the same tasks: the same permutation, the same unlabelled examples, the same draw of labels. A draw is one
task with a network of its own; the probe is scikit-learn's ridge classifier, its penalty chosen by leave-one-out on the
few labelled examples alone, in the same way for every method.
"""

import numpy as np
import tensorflow as tf
from sklearn.linear_model import RidgeClassifierCV

from meta_rules import stateless
from meta_rules.evaluation.training import NetworkTraining

PENALTIES = np.logspace(-2, 4, 13)
#: Draws that are trained side by side in one compiled program.
CHUNK = 4
COLUMNS = ("method", "dataset", "shots", "features", "inner_steps", "accuracy_mean", "accuracy_sem", "trials")


class FewShotTrial:
    """Draws of one family, and networks trained on them by a rule.

    Args:
      rule: an `UpdateRule`.
      family: a `TaskFamily`, of the test split.
      seed: of permutations, networks and draws.
    """

    def __init__(self, rule, family, seed=0):
        self.rule, self.family = rule, family
        self.training = NetworkTraining(rule, family.layer_sizes, family.activation, family.batch)
        self.network = self.training.network
        self._root = stateless.fold(stateless.key(seed), "few_shot_trial")

    def keys(self, first, count):
        """Keys `[count, 2]` of the draws numbered from `first`."""
        return stateless.fold(self._root, tf.range(first, first + count))

    @tf.function(jit_compile=True, autograph=False)
    def _tasks(self, keys):
        return self.family.sample(stateless.fold(keys, "task"))

    @tf.function(jit_compile=True, autograph=False)
    def _features(self, keys, task, state):
        """Raw inputs and features of support and query; batch statistics are those of unlabelled examples."""
        shots = self.family.few_shot(task, stateless.fold(keys, "few_shot"))
        unlabelled = [self.family.batch(task, stateless.fold(keys, "statistics", i)) for i in range(CHUNK)]
        statistics = self.network.statistics(state, tf.cast(tf.concat(unlabelled, axis=1), self.rule.dtype))
        found = []
        for inputs in (shots.support, shots.query):
            found += [inputs, self.network(state, tf.cast(inputs, self.rule.dtype), statistics)]
        return found, tf.argmax(shots.support_labels, -1), tf.argmax(shots.query_labels, -1)

    def first_kernels(self, theta, steps):
        """First-layer kernels `[inputs, units]` of draw 0 before and after training, and its permutation `[inputs]`."""
        keys = self.keys(0, CHUNK)
        task, state = self._tasks(keys), self.training.start(keys)
        after = self.training.train(theta, keys, task, state, 0, steps)
        return state.kernels[0][0].numpy(), after.kernels[0][0].numpy(), task.permutation[0].numpy()

    def accuracies(self, theta, steps, draws):
        """Accuracy of every draw with raw inputs and with features after each number of steps.

        Args:
          theta: dict of name -> array, the meta-parameters to use.
          steps: increasing numbers of rule applications; 0 is the untrained network.
          draws: how many tasks; rounded up to a multiple of `CHUNK`.

        Returns:
          A dict of `"raw"` and every number in `steps` -> `[draws]`.
        """
        found = {name: [] for name in ("raw", *steps)}
        for start in range(0, draws, CHUNK):
            keys = self.keys(start, CHUNK)
            task, state = self._tasks(keys), self.training.start(keys)
            done = 0
            for upto in steps:
                if upto > done:
                    state = self.training.train(theta, keys, task, state, done, upto - done)
                    done = upto
                values, support_labels, query_labels = self._features(keys, task, state)
                raw_support, support, raw_query, query = (value.numpy() for value in values)
                for i in range(CHUNK):
                    labels = (support_labels[i].numpy(), query_labels[i].numpy())
                    found[upto].append(probe_accuracy(support[i], labels[0], query[i], labels[1]))
                    if upto == steps[0]:
                        found["raw"].append(
                            probe_accuracy(raw_support[i], labels[0], raw_query[i], labels[1])
                        )
        return {name: np.asarray(values[:draws]) for name, values in found.items()}


def probe_accuracy(support, support_labels, query, query_labels):
    """Accuracy of a ridge classifier fitted on the support examples; chance (0 features right) if they are not finite."""
    if not (np.isfinite(support).all() and np.isfinite(query).all()):
        return 1.0 / len(np.unique(support_labels))
    scale = support.std() + 1e-12
    probe = RidgeClassifierCV(alphas=PENALTIES).fit(support / scale, support_labels)
    return float(probe.score(query / scale, query_labels))


def result_rows(found, family):
    """Rows of results.json for the accuracies of `FewShotTrial.accuracies`; columns as in `COLUMNS`."""
    rows = []
    for name, values in found.items():
        method = "raw" if name == "raw" else "untrained" if name == 0 else "learned"
        features = family.inputs if method == "raw" else family.hidden[-1]
        rows.append(
            {
                "method": method,
                "dataset": ",".join(family.sources),
                "shots": family.support,
                "features": features,
                "inner_steps": 0 if name == "raw" else int(name),
                "accuracy_mean": float(values.mean()),
                "accuracy_sem": float(values.std(ddof=1) / len(values) ** 0.5),
                "trials": len(values),
            }
        )
    return rows
