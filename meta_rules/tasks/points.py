"""Families of point clouds in the plane, of which a few points carry a label; drawn inside the compiled function.

A task is one cloud: its shape, rotation, scale, noise, balance of classes and labelled points are drawn from the task's
key. A network sees a point through a population of units with overlapping receptive fields, whose centres are points of
the cloud itself (see `receptive_fields`). Or it sees the two coordinates.
"""

import copy
import math
from typing import NamedTuple

import tensorflow as tf

from meta_rules import stateless
from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.tasks import receptive_fields


class PointTask(NamedTuple):
    """Clouds of points, one a row.

    Attributes:
      points: `[tasks, points, 2]`, ordered by class.
      labels: one-hot `[tasks, points, classes]`, the truth about every point.
      known: `[tasks, points]`, 1 for the points whose label a learner is given.
      first: `[tasks, classes]` index of the first point of each class; the labelled ones of a class come first.
      centres: `[tasks, units, 2]` of the receptive fields, in standardised coordinates.
      mean, scale: `[tasks, 1, 2]`, what standardises the points.
    """

    points: tf.Tensor
    labels: tf.Tensor
    known: tf.Tensor
    first: tf.Tensor
    centres: tf.Tensor
    mean: tf.Tensor
    scale: tf.Tensor


def moons(place, label, classes, keys):
    """Two interleaved half circles of radius 1, those of scikit-learn's `make_moons`."""
    angle = math.pi * place
    upper = tf.stack([tf.cos(angle), tf.sin(angle)], axis=-1)
    return tf.where(label[..., None] == 0, upper, tf.constant([1.0, 0.5]) - upper)


def gaussians(place, label, classes, keys):
    """Two points, 2 apart: with noise, two round Gaussians."""
    side = 2.0 * tf.cast(label, tf.float32) - 1.0
    return tf.stack([side, tf.zeros_like(side)], axis=-1)


def circles(place, label, classes, keys):
    """Rings about one centre, the outermost of radius 1."""
    radius = tf.cast(label + 1, tf.float32) / classes
    return _polar(radius, 2.0 * math.pi * place)


def spirals(place, label, classes, keys):
    """Arms of three quarters of a turn, out to radius 1; points are as dense near the middle as at the end."""
    radius = 0.15 + 0.85 * place
    start = 2.0 * math.pi * tf.cast(label, tf.float32) / classes
    return _polar(radius, start + 1.5 * math.pi * radius)


def blobs(place, label, classes, keys):
    """One point a class, at random places about 1 from the middle: with noise, round Gaussians."""
    spread = stateless.uniform(stateless.fold(keys, "blobs"), 2 * classes)
    angle = (
        2.0 * math.pi * (tf.range(classes, dtype=tf.float32) + 0.6 * (spread[:, :classes] - 0.5)) / classes
    )
    centres = _polar(0.75 + 0.5 * spread[:, classes:], angle)
    return tf.gather(centres, label, batch_dims=1)


SHAPES = {"moons": moons, "gaussians": gaussians, "circles": circles, "spirals": spirals, "blobs": blobs}
TWO_CLASSES = ("moons", "gaussians")


@configurable
class PointFamily:
    """Clouds of points in the plane with a few labels.

    Args:
      shapes: names in `SHAPES`; each task takes one of them.
      split: `train`, `validation` or `test`: each has clouds of its own.
      classes: of a cloud; two for moons and gaussians.
      points: in a cloud.
      labels: bounds of the number of labelled points a class; each task draws its own.
      noise: bounds of the standard deviation about the shape, whose radius is about 1.
      rotate: turn every cloud by a random angle.
      scale: bounds of a factor for the whole cloud, log-uniform.
      balance: bounds of the first class's share; the others share the rest alike.
      units: receptive fields that a network sees a point through; 0 gives it the standardised coordinates.
      width: of the receptive fields, in standard deviations of the cloud.
      hidden: sizes of the base network's layers above its input; the last is the number of classes.
      activation: of the base network.
      batch_size: points a rule application: all labelled ones and a draw of the others; `points` gives all.
      horizon, windows, weight: see `TaskFamily`.

    Raises:
      UserError: an unknown shape, bounds out of order, sizes that do not fit together.
    """

    def __init__(
        self,
        shapes: tuple = ("moons",),
        split: str = "train",
        classes: int = 2,
        points: int = 256,
        labels: tuple = (2, 2),
        noise: tuple = (0.1, 0.1),
        rotate: bool = True,
        scale: tuple = (0.5, 2.0),
        balance: tuple = (0.5, 0.5),
        units: int = 64,
        width: float = 0.2,
        hidden: tuple = (2,),
        activation: str = "tanh",
        batch_size: int = 128,
        horizon: tuple = (20, 150),
        windows: tuple = (20,),
        weight: float = 1.0,
    ):
        self.shapes, self.split, self.classes, self.points = tuple(shapes), split, classes, points
        self.labels, self.noise, self.rotate = tuple(labels), tuple(noise), rotate
        self.scale, self.balance = tuple(scale), tuple(balance)
        self.units, self.width = units, width
        self.hidden, self.activation, self.batch_size = tuple(hidden), activation, batch_size
        self.horizon, self.windows, self.weight = tuple(horizon), tuple(windows), weight
        self._check()
        self.inputs = units or 2
        self.shape = (self.inputs,)
        self.layer_sizes = (self.inputs, *self.hidden)
        self.sources = self.shapes
        self.origins = [f"{shape}: {points} points drawn by this program" for shape in self.shapes]

    def _check(self):
        unknown = set(self.shapes) - set(SHAPES)
        if unknown or not self.shapes:
            raise UserError(
                f"PointFamily.shapes must be some of {', '.join(SHAPES)}, got {', '.join(unknown) or 'none'}."
            )
        if self.split not in ("train", "validation", "test"):
            raise UserError(f"PointFamily.split must be train, validation or test, got {self.split!r}.")
        if self.classes < 2 or (self.classes > 2 and set(self.shapes) & set(TWO_CLASSES)):
            raise UserError(
                f"PointFamily.classes must be at least 2, and 2 for {' and '.join(TWO_CLASSES)}; got {self.classes}."
            )
        bounds = {"labels": 1, "noise": 0, "scale": 1e-6, "balance": 1e-6, "horizon": 1}
        for name, least in bounds.items():
            pair = getattr(self, name)
            if len(pair) != 2 or not least <= pair[0] <= pair[1]:
                raise UserError(
                    f"PointFamily.{name} must be two numbers {least:g} <= low <= high, got {pair}."
                )
        if not self.hidden or self.hidden[-1] != self.classes:
            raise UserError(
                f"PointFamily.hidden must end with the number of classes, {self.classes}; got {self.hidden}."
            )
        largest = self.balance[1]
        rarest = min(self.balance[0], (1.0 - largest) / (self.classes - 1))
        if rarest * self.points < self.labels[1] + 1:
            raise UserError(
                f"PointFamily: {self.points} points at balance {self.balance} leave fewer than {self.labels[1] + 1} to a class."
            )
        if not self.classes * self.labels[1] <= self.batch_size <= self.points or self.units > self.points:
            raise UserError(
                "PointFamily.batch_size must lie between the number of labelled points and PointFamily.points, and "
                f"PointFamily.units must not exceed the points; got {self.batch_size} and {self.units}."
            )
        if self.units < 0 or self.width <= 0 or not self.windows or min(self.windows) < 1 or self.weight <= 0:
            raise UserError(
                "PointFamily: units, width, windows and weight must be positive (units may be 0)."
            )

    def of_split(self, split):
        """The same family of another split."""
        other = copy.copy(self)
        other.split = split
        other._check()
        return other

    def sample(self, keys):
        """A cloud for every key `[tasks, 2]`."""
        keys = stateless.fold(keys, self.split)

        def between(bounds, purpose):
            return bounds[0] + (bounds[1] - bounds[0]) * stateless.uniform(stateless.fold(keys, purpose), 1)

        first, label = self._classes(between(self.balance, "balance"))
        points = self._shape(keys, label)
        noise = stateless.normal(stateless.fold(keys, "noise"), 2 * self.points)
        size = between(self.noise, "noise size")[..., None]
        points += size * tf.reshape(noise, tf.shape(points))
        if self.rotate:
            angle = 2.0 * math.pi * stateless.uniform(stateless.fold(keys, "angle"), 1)[:, 0]
            turn = tf.stack([tf.cos(angle), tf.sin(angle), -tf.sin(angle), tf.cos(angle)], axis=-1)
            points = tf.matmul(points, tf.reshape(turn, [-1, 2, 2]))
        low, high = (math.log(bound) for bound in self.scale)
        points *= tf.exp(between((low, high), "scale"))[..., None]
        drawn = stateless.integers(stateless.fold(keys, "labels"), 1, self.labels[1] - self.labels[0] + 1)
        rank = tf.range(self.points) - tf.gather(first, label, batch_dims=1)
        known = tf.cast(rank < self.labels[0] + drawn, tf.float32)
        mean = tf.reduce_mean(points, axis=1, keepdims=True)
        # One scale for both axes: a cloud's shape is not distorted by how it happens to lie.
        spread = tf.sqrt(tf.reduce_mean(tf.square(points - mean), axis=[1, 2], keepdims=True) + 1e-12)
        chosen = stateless.permutation(stateless.fold(keys, "centres"), self.points)[:, : self.units]
        centres = tf.gather((points - mean) / spread, chosen, batch_dims=1)
        scale = tf.tile(spread, [1, 1, 2])
        return PointTask(points, tf.one_hot(label, self.classes), known, first, centres, mean, scale)

    def _classes(self, share):
        """Index of the first point of every class `[tasks, classes]` and the class of every point `[tasks, points]`."""
        order = tf.range(self.classes - 1, dtype=tf.float32)
        cuts = share + (1.0 - share) * order / (self.classes - 1)
        cuts = tf.cast(tf.round(self.points * cuts), tf.int32)
        label = tf.reduce_sum(
            tf.cast(tf.range(self.points)[None, :, None] >= cuts[:, None], tf.int32), axis=-1
        )
        return tf.concat([tf.zeros_like(cuts[:, :1]), cuts], axis=1), label

    def _shape(self, keys, label):
        """The points before noise: of the one shape that each task draws."""
        place = stateless.uniform(stateless.fold(keys, "place"), self.points)
        which = stateless.integers(stateless.fold(keys, "shape"), 1, len(self.shapes))[..., None]
        found = 0.0
        for number, name in enumerate(self.shapes):
            drawn = SHAPES[name](place, label, self.classes, keys)
            found += tf.where(which == number, drawn, tf.zeros_like(drawn))
        return found

    def encode(self, task, points):
        """What a network sees of points `[tasks, any, 2]` of the plane: `[tasks, any, inputs]`, all at least 0, mean 1."""
        standard = (points - task.mean) / task.scale
        if not self.units:
            return standard
        return receptive_fields.answers(standard, task.centres, self.width)

    def labelled_batch(self, task, keys):
        """A batch for every task: inputs `[tasks, batch, inputs]`, one-hot labels `[tasks, batch, classes]`, and which of
        them are known `[tasks, batch]`.

        It holds every labelled point, and others drawn with replacement; or the whole cloud.
        """
        if self.batch_size == self.points:
            return self.encode(task, task.points), task.labels, task.known
        most = self.labels[1]
        labelled = tf.reshape(task.first[..., None] + tf.range(most), [-1, self.classes * most])
        others = stateless.integers(keys, self.batch_size - self.classes * most, self.points)
        index = tf.concat([labelled, others], axis=1)
        points, labels, known = (
            tf.gather(leaf, index, batch_dims=1) for leaf in (task.points, task.labels, task.known)
        )
        return self.encode(task, points), labels, known

    def everything(self, task, keys):
        """All points of every task, which the network's output is scored on: inputs and one-hot labels."""
        return self.encode(task, task.points), task.labels


def _polar(radius, angle):
    return radius[..., None] * tf.stack([tf.cos(angle), tf.sin(angle)], axis=-1)
