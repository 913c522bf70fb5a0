"""The problem of a learned rule that is told some of the labels: its network is itself the classifier."""

import tensorflow as tf

from meta_rules import stateless
from meta_rules.errors import UserError
from meta_rules.rules.base import Side
from meta_rules.trajectories import RuleLearning

#: The top units' currents have unit variance; times this they are the logits of the classifier.
LOGIT_SCALE = 2.0


class SemiSupervisedLearning(RuleLearning):
    """Learning a rule on a family with few labels; see `RuleLearning`, of which everything but these two methods is kept.

    Args:
      rule: an `UpdateRule` that says `needs_labels`.
      family: a family with `labelled_batch` and `everything` (`PointFamily`, `FewLabelFamily`).
    """

    def advance(self, theta, trajectory):
        """One application of the rule in every slot, to a batch in which some labels are known."""
        key = stateless.fold(trajectory.key, "step", trajectory.age)
        batch = self.family.labelled_batch(trajectory.task, stateless.fold(key, "batch"))
        inputs, labels, known = (tf.cast(leaf, self.rule.dtype) for leaf in batch)
        state = self.rule.update(
            theta,
            self.network,
            trajectory.state,
            inputs,
            stateless.fold(key, "rule"),
            side=Side(labels, known),
        )
        return trajectory._replace(state=state, age=trajectory.age + 1)

    def loss(self, theta, trajectory):
        """Cross-entropy `[tasks]` of the network's own output on all points, and the accuracy."""
        key = stateless.fold(trajectory.key, "probe", trajectory.age)
        inputs, labels = self.family.everything(trajectory.task, key)
        inputs, labels = tf.cast(inputs, self.rule.dtype), tf.cast(labels, self.rule.dtype)
        scores = LOGIT_SCALE * self.network.activities(trajectory.state, inputs).pre[-1]
        loss = -tf.reduce_sum(labels * tf.nn.log_softmax(scores), axis=-1)
        right = tf.equal(tf.argmax(scores, axis=-1), tf.argmax(labels, axis=-1))
        accuracy = tf.reduce_mean(tf.cast(right, scores.dtype), axis=1)
        return tf.reduce_mean(loss, axis=1), {"accuracy": accuracy}


def problem_of(rule, family):
    """The problem that a rule and a family make together.

    Raises:
      UserError: the rule wants labels and the family has none to give, or the other way round.
    """
    name = type(family).__name__
    if rule.needs_labels:
        if not hasattr(family, "labelled_batch"):
            raise UserError(
                f"Rule {rule.rule_name!r} needs labels, which {name} does not give; use PointFamily or FewLabelFamily."
            )
        return SemiSupervisedLearning(rule, family)
    if not hasattr(family, "few_shot"):
        raise UserError(
            f"{name} is for rules that need labels (SemiSupervisedRule); {rule.rule_name!r} is not."
        )
    return RuleLearning(rule, family)
