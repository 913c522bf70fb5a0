"""A labelled data set in memory: what every source gives and every task is drawn from."""

from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Examples and labels of one split of one source.

    Attributes:
      examples: `[examples, height, width, channels]` pictures, or `[examples, features]` vectors; uint8 or float32.
        uint8 is read as value / 255.
      labels: int32 `[examples]`, in `0..len(class_names) - 1`.
      class_names: one string a class.
      name: the source's name, as one writes it in gin.
      origin: one sentence: where the data came from.
    """

    examples: np.ndarray
    labels: np.ndarray
    class_names: tuple
    name: str
    origin: str
