"""A rule as a Keras model, for `.keras` files: it learns from the rows it is called on, and gives their features."""

import keras
import tensorflow as tf

from meta_rules import rules
from meta_rules.learning import RowLearning


@keras.saving.register_keras_serializable("meta_rules")
class RuleModel(keras.Model):
    """Calls `learn` and `embed` in one: rows `[rows, columns]` -> features `[rows, units]`.

    The rule is a layer of the model and its weights are the meta-parameters, so that `keras.saving.load_model` gives the
    whole rule back once `meta_rules.rule_model` is imported. (A network that a rule has trained is
    `RuleLearner.to_keras()`: stock layers, which need no import.)

    Args:
      rule: an `UpdateRule`, or its description `{"rule": name, "config": {...}}`.
      hidden, activation, batch_size: see `RowLearning`.
      steps: rule applications of a call.
      seed: of first weights and batches.
    """

    def __init__(
        self, rule, hidden=(128, 32), activation="relu", batch_size=256, steps=500, seed=0, **kwargs
    ):
        super().__init__(**kwargs)
        self.rule = rules.make(rule["rule"], **rule["config"]) if isinstance(rule, dict) else rule
        self.steps, self.seed = steps, seed
        self._sizes = {"hidden": list(hidden), "activation": activation, "batch_size": batch_size}
        self._learning = RowLearning(self.rule, hidden, activation, batch_size)
        self.built = True

    def get_config(self):
        """The constructor's arguments."""
        rule = {"rule": self.rule.rule_name, "config": self.rule.rule_config()}
        return {**super().get_config(), "rule": rule, **self._sizes, "steps": self.steps, "seed": self.seed}

    def call(self, rows):
        """Features of `rows [rows, columns]` after `steps` applications to batches of them."""
        rows = tf.convert_to_tensor(rows, tf.float32)
        learning = self._learning
        key = learning.key(self.seed)
        state = learning.start(key, tf.shape(rows)[1])
        state = learning.advance(self.rule.theta(), state, rows, key, 0, self.steps)
        return learning.features(learning.learned(state, rows), rows)
