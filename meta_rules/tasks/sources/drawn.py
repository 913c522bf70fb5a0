"""What sources that are drawn from random numbers share: sizes, options and the streams of random numbers."""

import zlib

import numpy as np

from meta_rules.tasks.sources.base import Option, Source, whole

EXAMPLES = Option(400, whole(4), "examples a class for training; validation and test get a quarter of it each")


def generator(seed, *purpose):
    """A NumPy generator with its own stream for every seed and purpose (strings and integers)."""
    words = [zlib.crc32(item.encode()) if isinstance(item, str) else item for item in purpose]
    return np.random.default_rng([seed & 0xFFFFFFFFFFFFFFFF, *words])


class Drawn(Source):
    """Base class of sources that need no files. Every split has its own random numbers; the classes are the same in all."""

    seeded = True

    def per_class(self, split):
        """Examples a class in a split."""
        return self.option["examples"] if split == "train" else max(1, self.option["examples"] // 4)

    def sizes(self, classes):
        """Dict of split -> number of examples."""
        return {split: classes * self.per_class(split) for split in self.parts()}

    def labels(self, split, classes):
        """Labels of a split, all classes in turn: int32 `[examples]`."""
        return np.tile(np.arange(classes, dtype=np.int32), self.per_class(split))
