"""Task families of pictures of which a few per class carry a label and the rest none."""

from typing import NamedTuple

import tensorflow as tf

from meta_rules import stateless
from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.tasks import receptive_fields
from meta_rules.tasks.family import TaskFamily


class FewLabelTask(NamedTuple):
    """As `family.Task`, and what says which examples are labelled.

    Attributes:
      classes: `[tasks, ways]`.
      permutation: `[tasks, inputs]`.
      key: `[tasks, 2]`, from which the labelled examples are drawn: the same for the whole life.
      centres: `[tasks, units, inputs]` of the receptive fields, unlabelled examples.
    """

    classes: tf.Tensor
    permutation: tf.Tensor
    key: tf.Tensor
    centres: tf.Tensor


@configurable
class FewLabelFamily(TaskFamily):
    """Classification with few labels: a network's top units are the classes.

    Args:
      labelled_size: labelled examples in a batch, of the `support` a class of the task: all of them equally often if there
        is room. `batch_size` others come without labels.
      units: receptive fields that a network sees an example through (see `receptive_fields`); 0 gives it the pixels.
      width: of the receptive fields, as a share of the spread of their centres.
      hidden: see `TaskFamily`; the last is the number of ways.
      sources, split, image_size, colour, activation, batch_size, ways, support, query, permute, separate_query, split_classes,
        horizon, windows, weight: see `TaskFamily`. The network is scored on `query` examples a class.

    Raises:
      UserError: see `TaskFamily`; also a top layer that is not the classes.
    """

    def __init__(
        self,
        sources: tuple = ("mnist",),
        split: str = "train",
        image_size: int | None = 14,
        colour: bool = False,
        hidden: tuple = (64, 10),
        activation: str = "relu",
        batch_size: int = 96,
        labelled_size: int = 32,
        units: int = 0,
        width: float = 0.2,
        ways: int = 10,
        support: int = 10,
        query: int = 10,
        permute: bool = True,
        separate_query: bool = False,
        split_classes: bool = False,
        horizon: tuple = (50, 300),
        windows: tuple = (20,),
        weight: float = 1.0,
    ):
        if not hidden or hidden[-1] != ways or labelled_size < 1:
            raise UserError(
                f"FewLabelFamily.hidden must end with the number of ways, {ways}, and labelled_size must be at least 1; "
                f"got {tuple(hidden)} and {labelled_size}."
            )
        if units < 0 or width <= 0:
            raise UserError(
                f"FewLabelFamily.width must be positive and units at least 0, got {width} and {units}."
            )
        self.labelled_size, self.units, self.width = labelled_size, units, width
        super().__init__(
            sources=sources,
            split=split,
            image_size=image_size,
            colour=colour,
            hidden=hidden,
            activation=activation,
            batch_size=batch_size,
            ways=ways,
            support=support,
            query=query,
            permute=permute,
            separate_query=separate_query,
            split_classes=split_classes,
            horizon=horizon,
            windows=windows,
            weight=weight,
        )

    def _load(self, colour):
        super()._load(colour)
        if self.units:
            # What a network sees is no picture.
            self.shape = (self.units,)

    @property
    def seen(self):
        """The number of inputs of a network."""
        return self.units or self.inputs

    def arrangement(self):
        """How examples are shown to a network, JSON-ready: what a rule wants to find again after meta-training."""
        return {
            "units": self.units,
            "width": self.width,
            "hidden": list(self.hidden[:-1]),
            "labelled_size": self.labelled_size,
            "batch_size": self.batch_size,
        }

    def sample(self, keys):
        """A task for every key `[tasks, 2]`."""
        task = super().sample(keys)
        centres = tf.zeros([tf.shape(keys)[0], 0, self.inputs])
        if self.units:
            centres = self._unlabelled(task, stateless.fold(keys, "centres"), self.units)
        return FewLabelTask(*task, stateless.fold(keys, "labelled"), centres)

    def _encode(self, task, examples):
        if not self.units:
            return examples
        width = self.width * receptive_fields.spread(task.centres)
        return receptive_fields.answers(examples, task.centres, width)

    def labelled_batch(self, task, keys):
        """Inputs `[tasks, batch, inputs]`, one-hot labels `[tasks, batch, ways]`, and which are known `[tasks, batch]`."""
        shots = self.few_shot(task, task.key)
        count = self.ways * self.support
        # A stretch of the labelled examples, the classes in turn, from a random place on and around the end.
        start = stateless.integers(stateless.fold(keys, "labelled"), 1, count)
        turn = (start + tf.range(self.labelled_size)) % count
        chosen = (turn % self.ways) * self.support + turn // self.ways
        labels = tf.gather(shots.support_labels, chosen, batch_dims=1)
        inputs = tf.concat([tf.gather(shots.support, chosen, batch_dims=1), self.batch(task, keys)], axis=1)
        labels = tf.concat([labels, tf.zeros([tf.shape(inputs)[0], self.batch_size, self.ways])], axis=1)
        known = tf.cast(tf.range(inputs.shape[1]) < self.labelled_size, tf.float32)
        return self._encode(task, inputs), labels, tf.broadcast_to(known, tf.shape(inputs)[:2])

    def everything(self, task, keys):
        """The examples that the network's output is scored on, new ones for every key: inputs and one-hot labels."""
        shots = self.few_shot(task, keys)
        return self._encode(task, shots.query), shots.query_labels
