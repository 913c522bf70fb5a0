"""Task families: what a base network is asked to learn from, drawn inside the compiled function.

A *task* is a source, a subset of its classes and a permutation of its pixels. A *family* holds all that is static for the
compiler (sizes, counts) and the data, on the device; so one program serves every task of a family.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from meta_rules import stateless
from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.tasks import sources


class Task(NamedTuple):
    """Tasks drawn from a family, one a row.

    Attributes:
      classes: `[tasks, ways]` numbers of the classes in the family's table.
      permutation: `[tasks, inputs]`; input j of the network is pixel `permutation[j]`.
    """

    classes: tf.Tensor
    permutation: tf.Tensor


class FewShot(NamedTuple):
    """A few labelled examples to fit a probe on, and others to score it; labels are one-hot in the order of `Task.classes`."""

    support: tf.Tensor
    support_labels: tf.Tensor
    query: tf.Tensor
    query_labels: tf.Tensor


@configurable
class TaskFamily:
    """Few-shot classification tasks over one or more sources of the same input size.

    Args:
      sources: names that `meta_rules.tasks.sources` knows; each task takes one of them.
      split: `train` for meta-training, `validation` for meta-validation, `test` for the final judgement.
      image_size: side that pictures are resized to, in pixels; None keeps them.
      colour: keep three channels.
      hidden: sizes of the base network's layers above the input; the last is the number of features.
      activation: of the base network.
      batch_size: unlabelled examples a rule application.
      ways: classes a task.
      support, query: labelled examples a class that the probe is fitted on, and scored on.
      permute: draw a pixel permutation for every task.
      separate_query: draw query examples only from the second half of every class, and everything else from the first: the
        network has then never seen the pictures that it is scored on.
      split_classes: use only this split's own share of every source's classes (seven tenths for `train`, the rest in halves for
        `validation` and `test`), so that no class of the judgement was ever meta-trained on.
      horizon: bounds of a network's life, in rule applications; each life draws its own, log-uniformly
        (Metz et al. 2019 sample the number of steps too: it limits what truncation hides).
      windows: lengths of the truncated unrolls, in rule applications; each meta-step draws one.
      weight: share of the meta-steps that this family gets, among several.

    Raises:
      UserError: sources of different sizes, too few classes or examples, bounds out of order.
    """

    def __init__(
        self,
        sources: tuple = ("mnist",),
        split: str = "train",
        image_size: int | None = 14,
        colour: bool = False,
        hidden: tuple = (128, 32),
        activation: str = "relu",
        batch_size: int = 128,
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
        self.sources, self.split, self.image_size = tuple(sources), split, image_size
        self.hidden, self.activation, self.batch_size = tuple(hidden), activation, batch_size
        self.ways, self.support, self.query = ways, support, query
        self.permute, self.separate_query = permute, separate_query
        self.split_classes = split_classes
        self.horizon, self.windows, self.weight = tuple(horizon), tuple(windows), weight
        if len(self.horizon) != 2 or not 1 <= self.horizon[0] <= self.horizon[1]:
            raise UserError(
                f"TaskFamily.horizon must be two numbers 1 <= shortest <= longest, got {horizon}."
            )
        if not self.windows or min(self.windows) < 1 or weight <= 0:
            raise UserError(
                f"TaskFamily needs windows of at least 1 and a positive weight, got {windows}, {weight}."
            )
        self.origins = []
        self._load(colour)
        self.layer_sizes = (self.seen, *self.hidden)

    def _load(self, colour):
        examples, first, count, of_source, at = [], [], [], [], 0
        shapes = set()
        for name in self.sources:
            data = sources.load(name, self.split, size=self.image_size, colour=colour)
            self.origins.append(f"{name}: {data.origin}")
            shapes.add((data.examples.shape[1:], data.examples.dtype))
            order = np.argsort(data.labels, kind="stable")
            counts = np.bincount(data.labels, minlength=len(data.class_names))
            needed = (2 if self.separate_query else 1) * max(self.query, self.support)
            needed = max(needed, self.support + self.query)
            starts = at + np.concatenate([[0], np.cumsum(counts)[:-1]])
            usable = counts >= needed
            if self.split_classes:
                usable &= class_share(len(counts), self.split)
            if usable.sum() < self.ways:
                raise UserError(
                    f"Source {name!r} ({self.split}) has {usable.sum()} usable classes with at least {needed} examples; the "
                    f"task asks for {self.ways} ways of {self.support} + {self.query}. Lower ways, support or query."
                )
            of_source.append((len(first), int(usable.sum())))
            first.extend(starts[usable])
            count.extend(counts[usable])
            examples.append(data.examples[order].reshape(len(order), -1))
            at += len(order)
        if len(shapes) != 1:
            raise UserError(
                f"The sources of one family must agree in shape and type, got "
                f"{', '.join(str(shape) for shape, _ in shapes)}; set image_size, or use a family for each."
            )
        (self.shape, _), *_ = shapes
        self.inputs = int(np.prod(self.shape))
        # Eager tensors: a compiled function takes them as inputs; as constants they would be folded into its program.
        self._examples = tf.constant(np.concatenate(examples))
        self._first, self._count = tf.constant(first, tf.int32), tf.constant(count, tf.int32)
        self._of_source = np.asarray(of_source, np.int32)

    @property
    def seen(self):
        """The number of inputs of a network."""
        return self.inputs

    def sample(self, keys):
        """A task for every key `[tasks, 2]`."""
        which = stateless.integers(stateless.fold(keys, "source"), 1, len(self.sources))[:, 0]
        table = tf.constant(self._of_source)
        start, classes = tf.gather(table[:, 0], which), tf.gather(table[:, 1], which)
        largest = int(self._of_source[:, 1].max())
        # Sorting random numbers, with those past the source's last class pushed to the end, draws classes without repeats.
        drawn = stateless.uniform(stateless.fold(keys, "classes"), largest)
        drawn += tf.cast(tf.range(largest)[None] >= classes[:, None], tf.float32)
        chosen = start[:, None] + tf.argsort(drawn, axis=-1)[:, : self.ways]
        if self.permute:
            order = stateless.permutation(stateless.fold(keys, "permutation", self.split), self.inputs)
        else:
            order = tf.broadcast_to(tf.range(self.inputs), [tf.shape(keys)[0], self.inputs])
        return Task(chosen, order)

    def batch(self, task, keys):
        """An unlabelled batch for every task, classes in equal shares on average: `[tasks, batch, inputs]`."""
        return self._unlabelled(task, keys, self.batch_size)

    def _unlabelled(self, task, keys, number):
        way = stateless.integers(stateless.fold(keys, "way"), number, self.ways)
        chosen = tf.gather(task.classes, way, batch_dims=1)
        count = tf.gather(self._count, chosen)
        if self.separate_query:
            count = count // 2
        offset = stateless.integers(stateless.fold(keys, "example"), number, count)
        return self._look_up(tf.gather(self._first, chosen) + offset, task.permutation)

    def few_shot(self, task, keys):
        """Support and query examples of every task, no example twice; see `FewShot`. Both are ordered by class."""
        first = tf.gather(self._first, task.classes)
        count = tf.gather(self._count, task.classes)
        keys = stateless.split(keys, self.ways)
        if self.separate_query:
            half = count // 2
            support = first[..., None] + _distinct(stateless.fold(keys, "support"), self.support, half)
            query = (first + half)[..., None] + _distinct(
                stateless.fold(keys, "query"), self.query, count - half
            )
        else:
            both = first[..., None] + _distinct(keys, self.support + self.query, count)
            support, query = both[..., : self.support], both[..., self.support :]

        def examples(index):
            tasks, ways, shots = index.shape
            flat = tf.reshape(index, [-1 if tasks is None else tasks, ways * shots])
            labels = tf.repeat(tf.eye(ways), shots, axis=0)
            return self._look_up(flat, task.permutation), tf.broadcast_to(
                labels[None], [tf.shape(flat)[0], ways * shots, ways]
            )

        return FewShot(*examples(support), *examples(query))

    def _look_up(self, index, permutation):
        found = tf.gather(self._examples, index)
        found = tf.gather(found, permutation, batch_dims=1, axis=2)
        if found.dtype == tf.uint8:
            return tf.cast(found, tf.float32) / 255.0
        return tf.cast(found, tf.float32)


def class_share(classes, split):
    """Which of a source's classes belong to a split: booleans `[classes]`; the three splits divide them all."""
    order = np.random.Generator(np.random.Philox(key=classes)).permutation(classes)
    cuts = [int(round(share * classes)) for share in (0, 0.7, 0.85, 1)]
    place = ("train", "validation", "test").index(split)
    mine = np.zeros(classes, bool)
    mine[order[cuts[place] : cuts[place + 1]]] = True
    return mine


def _distinct(keys, number, count):
    """`number` different integers below `count`, in random order: keys `[..., 2]`, count `[...]` -> `[..., number]`.

    One from each of `number` stretches that divide the range, all moved on by one random offset (around the end), in shuffled
    order: every integer is equally likely to be in any place, and no sort over the whole range is needed.
    """
    bounds = (tf.range(number + 1) * count[..., None]) // number
    low, high = bounds[..., :-1], bounds[..., 1:]
    drawn = low + stateless.integers(stateless.fold(keys, "place"), number, high - low)
    offset = stateless.integers(stateless.fold(keys, "offset"), 1, count[..., None])
    drawn = (drawn + offset) % count[..., None]
    order = stateless.permutation(stateless.fold(keys, "order"), number)
    return tf.gather(drawn, order, batch_dims=len(order.shape) - 1)
