"""Which rule of a run is the one to keep: judged on tasks set apart for it, never by the last step."""

import numpy as np
import tensorflow as tf

from meta_rules.evaluation.judgement import trial_of


class BestRule:
    """The meta-parameters that have done best in meta-validation, kept in variables so that a checkpoint holds them.

    Args:
      trainer: a `MetaTrainer`, whose running average is what is validated.
      family: the `TaskFamily` of the validation.
    """

    DRAWS = 16

    def __init__(self, trainer, family):
        self._trainer, self._family, self._trial = trainer, family, None
        self._theta = {name: tf.Variable(value, trainable=False) for name, value in trainer.theta().items()}
        self._score = tf.Variable(-1.0, trainable=False)
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)

    def variables(self):
        """Dict of name -> list of variables, for a checkpoint."""
        return {"best": [*(self._theta[name] for name in sorted(self._theta)), self._score, self._step]}

    @property
    def known(self):
        """Whether anything has been validated."""
        return self.score >= 0.0

    @property
    def score(self):
        """Mean validation accuracy of the best."""
        return float(self._score.numpy())

    @property
    def step(self):
        """The meta-step that it is from."""
        return int(self._step.numpy())

    def theta(self):
        """Its meta-parameters, dict of name -> array."""
        return {name: value.numpy() for name, value in self._theta.items()}

    def consider(self):
        """Validates the trainer's running average, keeps it if it is the best so far, and returns its accuracy.

        The mean is over two ages of the same networks, the family's shortest and longest life: a rule must learn soon and
        hold what it learned.
        """
        if self._trial is None:
            self._trial = trial_of(self._trainer.rule, self._family, seed=self._trainer.seed)
        theta = self._trainer.theta()
        ages = sorted({int(round(age)) for age in self._family.horizon})
        found = self._trial.accuracies(theta, (0, *ages), self.DRAWS)
        score = float(np.mean([found[age] for age in ages]))
        if score > self.score:
            self._score.assign(score)
            self._step.assign(self._trainer.step)
            for name, variable in self._theta.items():
                variable.assign(theta[name])
        return score
