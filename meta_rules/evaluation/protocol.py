"""The protocol that every method is judged by: which examples it may see, which labels, and what it is scored on.

A *draw* is one repetition: its own permutation of the inputs, its own networks, its own choice of labelled and of query
examples. Draw number i of a data set is the same for every method, so that methods can be compared draw by draw.

Unlabelled and labelled examples come from a *pool*, by default the training split; hyperparameters are chosen on examples of
the validation split, and accuracy is that on query examples of the test split.
"""

import dataclasses
import zlib
from typing import NamedTuple

import numpy as np

from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.tasks import sources


@configurable
@dataclasses.dataclass(frozen=True)
class Protocol:
    """Settings shared by all methods of a comparison.

    Attributes:
      image_size: side that pictures are shrunk to, in pixels; they are never enlarged; None keeps them.
      colour: keep three channels.
      hidden: sizes of the network's layers above the input; the last is the number of features.
      activation: of the network.
      batch_size: unlabelled examples a step of a rule or of gradient descent.
      permute: whether every draw has a permutation of the inputs of its own.
      pool_split: "train"; or "test": the pool is then the first half of every class of the test split and query examples come
        from the other, so that nothing of the training split is touched.
      pool: the most examples in the pool, which "all" labels are the labels of; None for no bound.
      unlabelled: how many examples of the pool are seen without labels; None for the whole pool.
      shots: labelled examples a class, of the pool; "all" for every label of the pool.
      draws: repetitions.
      query, validation: the most examples a class to score on, and to choose hyperparameters on.
      seed: of everything drawn.
    """

    image_size: int | None = 14
    colour: bool = False
    hidden: tuple = (128, 32)
    activation: str = "relu"
    batch_size: int = 128
    permute: bool = True
    pool_split: str = "train"
    pool: int | None = 5000
    unlabelled: int | None = None
    shots: tuple = (1, 5, 10, "all")
    draws: int = 20
    query: int = 40
    validation: int = 40
    seed: int = 0

    def __post_init__(self):
        for name in ("hidden", "shots"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.pool_split not in ("train", "test"):
            raise UserError(f"Protocol.pool_split must be 'train' or 'test', got {self.pool_split!r}.")
        for shots in self.shots:
            if shots != "all" and (not isinstance(shots, int) or shots < 1):
                raise UserError(f"Protocol.shots must hold positive whole numbers or 'all', got {shots!r}.")
        for name in ("batch_size", "pool", "unlabelled", "draws", "query", "validation", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"Protocol.{name} must be at least 1, got {value}.")

    @property
    def features(self):
        """The number of features."""
        return self.hidden[-1]


class Labelled(NamedTuple):
    """Examples with labels.

    Attributes:
      examples: float32 `[examples, inputs]`.
      labels: int32 `[examples]`.
      rows: `[examples]` their places in the pool; None if they are not of the pool.
    """

    examples: np.ndarray
    labels: np.ndarray
    rows: np.ndarray | None = None


class Draw(NamedTuple):
    """What a method may look at in one draw.

    Attributes:
      protocol: the `Protocol`.
      index: number of the draw.
      seed: integer, for the method's own random numbers.
      permutation: `[inputs]`; input j is pixel `permutation[j]`.
      unlabelled: float32 `[examples, inputs]`.
      rows: `[examples]` their places in the pool.
      validation: `Labelled`, to choose hyperparameters on and for nothing else.
      classes: how many.
    """

    protocol: Protocol
    index: int
    seed: int
    permutation: np.ndarray
    unlabelled: np.ndarray
    rows: np.ndarray
    validation: Labelled
    classes: int


class ProtocolData:
    """One data set, dealt out as a protocol says.

    Args:
      protocol: a `Protocol`.
      dataset: name of a source.

    Raises:
      UserError: the data cannot be had, or are too few.
    """

    def __init__(self, protocol, dataset):
        self.protocol, self.dataset = protocol, dataset
        size = _size(dataset, protocol.image_size)
        loaded = {
            split: sources.load(dataset, split, size=size, colour=protocol.colour)
            for split in dict.fromkeys((protocol.pool_split, "validation", "test"))
        }
        test, pool = loaded["test"], loaded[protocol.pool_split]
        self.origin, self.class_names, self.shape = test.origin, test.class_names, test.examples.shape[1:]
        query_rows, pool_rows = np.arange(len(test.labels)), np.arange(len(pool.labels))
        if protocol.pool_split == "test":
            pool_rows, query_rows = _halves(test.labels)
        if protocol.pool is not None and len(pool_rows) > protocol.pool:
            random = np.random.default_rng([protocol.seed, zlib.crc32(b"pool")])
            pool_rows = np.sort(random.choice(pool_rows, protocol.pool, replace=False))
        self._pool = _flat(pool, pool_rows)
        self._query = _flat(test, query_rows)
        validation = loaded["validation"]
        self._validation = _flat(validation, np.arange(len(validation.labels)))

    @property
    def inputs(self):
        """Inputs of an example."""
        return int(np.prod(self.shape))

    def draw(self, index):
        """The `Draw` numbered `index`."""
        random = self._random(index, "draw")
        inputs = self._pool.examples.shape[1]
        permutation = random.permutation(inputs) if self.protocol.permute else np.arange(inputs)
        # Shuffled: sources may be in the order of their classes, and methods may look at the first examples only.
        rows = random.permutation(len(self._pool.labels))[: self.protocol.unlabelled]
        validation = _some(self._validation, self.protocol.validation, random)
        return Draw(
            protocol=self.protocol,
            index=index,
            seed=int(random.integers(2**31)),
            permutation=permutation,
            unlabelled=self._pool.examples[rows][:, permutation],
            rows=rows,
            validation=validation._replace(examples=validation.examples[:, permutation]),
            classes=len(self.class_names),
        )

    def labelled(self, draw, shots, salt=0):
        """Labelled examples for a draw.

        Args:
          draw: a `Draw`.
          shots: examples a class, or "all".
          salt: integer; another gives another choice.

        Returns:
          `Labelled`, in the order of the classes.

        Raises:
          UserError: a class has fewer.
        """
        if shots != "all":
            fewest = np.bincount(self._pool.labels, minlength=draw.classes).min()
            if fewest < shots:
                raise UserError(
                    f"{self.dataset!r} has a class with only {fewest} examples in the pool, asked for {shots} a class."
                )
        chosen = _some(self._pool, shots, self._random(draw.index, "labelled", salt))
        return chosen._replace(examples=chosen.examples[:, draw.permutation])

    def query(self, draw, salt=0):
        """The `Labelled` examples that a draw is scored on."""
        chosen = _some(self._query, self.protocol.query, self._random(draw.index, "query", salt))
        return chosen._replace(examples=chosen.examples[:, draw.permutation], rows=None)

    def _random(self, index, purpose, salt=0):
        return np.random.default_rng([self.protocol.seed, index, zlib.crc32(purpose.encode()), salt])


def _size(dataset, wanted):
    shape = sources.describe(dataset).shape
    if wanted is None or shape is None or len(shape) != 3:
        return wanted
    return min(wanted, shape[0], shape[1])


def _halves(labels):
    """Rows of the first and of the second half of every class."""
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(labels))[:-1])
    first = [group[: len(group) // 2] for group in groups]
    second = [group[len(group) // 2 :] for group in groups]
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


def _flat(data, rows):
    examples = data.examples[rows].reshape(len(rows), -1).astype(np.float32)
    if data.examples.dtype == np.uint8:
        examples /= 255.0
    return Labelled(examples, data.labels[rows], rows=np.arange(len(rows)))


def _some(labelled, number, random):
    """At most `number` random examples a class ("all" for every one), in the order of the classes."""
    chosen = []
    for label in np.unique(labelled.labels):
        rows = np.flatnonzero(labelled.labels == label)
        chosen.append(rows if number == "all" else random.permutation(rows)[:number])
    rows = np.concatenate(chosen)
    return Labelled(labelled.examples[rows], labelled.labels[rows], rows)
