"""What sources that are drawn from random numbers share: sizes, options and the streams of random numbers."""

import importlib
import pathlib
import zlib

import numpy as np
import PIL

from meta_rules.tasks.sources.base import Option, Source, whole

EXAMPLES = Option(
    400, whole(4), "examples a class for training; validation and test get a quarter of it each"
)


def generator(seed, *purpose):
    """A NumPy generator with its own stream for every seed and purpose (strings and integers)."""
    words = [zlib.crc32(item.encode()) if isinstance(item, str) else item for item in purpose]
    return np.random.default_rng([seed & 0xFFFFFFFFFFFFFFFF, *words])


class Drawn(Source):
    """Base class of sources that need no files. All splits have the same classes, each its own draws."""

    seeded = True

    def version(self):
        """Anything that draws differently: the file of the class, and the libraries that draw."""
        code = pathlib.Path(importlib.import_module(type(self).__module__).__file__).read_bytes()
        return [zlib.crc32(code), np.__version__, PIL.__version__]

    def per_class(self, split):
        """Examples a class in a split."""
        return self.option["examples"] if split == "train" else max(1, self.option["examples"] // 4)

    def sizes(self, classes):
        """Dict of split -> number of examples."""
        return {split: classes * self.per_class(split) for split in self.parts()}

    def labels(self, split, classes):
        """Labels of a split, all classes in turn: int32 `[examples]`."""
        return np.tile(np.arange(classes, dtype=np.int32), self.per_class(split))
