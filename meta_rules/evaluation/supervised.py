"""The same network trained with labels: on the few alone, and, with "all" shots, on every one."""

import keras
import numpy as np
import tensorflow as tf

from meta_rules.configuration import configurable
from meta_rules.evaluation.gradient_descent import Descent, Snapshot, Standardised, base_layers
from meta_rules.evaluation.methods import Method, register


class _Classifier(Snapshot):
    """A classifier as a model with `predict`; `features` is how many the layer below its scores has."""

    def __init__(self, model, standardised, features):
        super().__init__(model, standardised)
        self.features = features

    def predict(self, examples):
        """Labels `[examples]`."""
        return self(examples).argmax(axis=1)


@register("supervised")
@configurable
class Supervised(Method):
    """The base network with a softmax layer on top, trained by Adam with cross entropy; labels are all that it learns from.

    Unlabelled examples only standardise the inputs. It is stopped where it is right most often on the validation examples.

    Args:
      steps: the most steps.
      checks: how often on the way the validation examples are looked at.
      learning_rate: of Adam.
    """

    needs_labels = True

    def __init__(self, steps: int = 600, checks: int = 6, learning_rate: float = 1e-3):
        self.steps, self.checks, self.learning_rate = steps, checks, learning_rate
        self._built = None

    def description(self):
        """The settings."""
        return {"steps": self.steps, "checks": self.checks, "learning_rate": self.learning_rate}

    def unlabelled_used(self, draw):
        """None to learn from."""
        return 0

    def fit(self, draw, labelled=None):
        """See `Method`."""
        key = (draw.unlabelled.shape[1], draw.classes, draw.protocol)
        if self._built is None or self._built[0] != key:
            layers = base_layers(draw.protocol.hidden, draw.protocol.activation, "layer")
            model = keras.Sequential(
                [keras.Input([key[0]]), *layers, keras.layers.Dense(draw.classes, name="classes")]
            )
            self._built = (key, Descent(model, _loss, self.learning_rate, draw.protocol.batch_size))
        descent, standardised = self._built[1], Standardised(draw.unlabelled)
        descent.restart(draw.seed)
        random, examples = np.random.default_rng(draw.seed), standardised(labelled.examples)
        best, best_score = None, -1.0
        for _ in range(self.checks):
            descent.run(examples, labelled.labels, self.steps // self.checks, random)
            now = _Classifier(descent.model, standardised, draw.protocol.features)
            score = np.mean(now.predict(draw.validation.examples) == draw.validation.labels)
            if score > best_score:
                best, best_score = now, score
        return {self.steps: best}


def _loss(model, examples, labels, seed):
    scores = model(examples, training=True)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores))
