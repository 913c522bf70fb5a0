"""Task families of pictures of which a few per class carry a label and the rest none."""

from typing import NamedTuple

import tensorflow as tf

from meta_rules import stateless
from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.tasks.family import TaskFamily


class FewLabelTask(NamedTuple):
    """As `family.Task`, and what says which examples are labelled.

    Attributes:
      classes: `[tasks, ways]`.
      permutation: `[tasks, inputs]`.
      key: `[tasks, 2]`, from which the labelled examples are drawn: the same for the whole life.
    """

    classes: tf.Tensor
    permutation: tf.Tensor
    key: tf.Tensor


@configurable
class FewLabelFamily(TaskFamily):
    """Classification with few labels: a network's top units are the classes.

    Args:
      labelled_size: labelled examples in a batch, drawn from the `support` a class of the task; `batch_size` others come
        without labels.
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
        self.labelled_size = labelled_size
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

    def sample(self, keys):
        """A task for every key `[tasks, 2]`."""
        return FewLabelTask(*super().sample(keys), stateless.fold(keys, "labelled"))

    def labelled_batch(self, task, keys):
        """Inputs `[tasks, batch, inputs]`, one-hot labels `[tasks, batch, ways]`, and which are known `[tasks, batch]`."""
        shots = self.few_shot(task, task.key)
        chosen = stateless.integers(
            stateless.fold(keys, "labelled"), self.labelled_size, shots.support.shape[1]
        )
        labels = tf.gather(shots.support_labels, chosen, batch_dims=1)
        inputs = tf.concat([tf.gather(shots.support, chosen, batch_dims=1), self.batch(task, keys)], axis=1)
        labels = tf.concat([labels, tf.zeros_like(inputs[:, self.labelled_size :, : self.ways])], axis=1)
        known = tf.cast(tf.range(inputs.shape[1]) < self.labelled_size, tf.float32)
        return inputs, labels, tf.broadcast_to(known, tf.shape(inputs)[:2])

    def everything(self, task, keys):
        """The examples that the network's output is scored on, new ones for every key: inputs and one-hot labels."""
        shots = self.few_shot(task, keys)
        return shots.query, shots.query_labels
