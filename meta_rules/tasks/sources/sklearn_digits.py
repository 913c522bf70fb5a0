"""The 8x8 handwritten digits that scikit-learn carries."""

import numpy as np

from meta_rules.tasks.sources.base import Source, SourceInfo, picture_content, register
from meta_rules.tasks.sources.splits import SPLITS, Part

ORIGIN = "1,797 handwritten digits of 8x8 pixels (Alpaydin and Kaynak, UCI), as carried by scikit-learn"


@register("digits")
class Digits(Source):
    """About 180 images a class, in the order of their writers: 65% for training, then 10%, then 25%."""

    cached = False

    def info(self):
        """See `Source`."""
        return SourceInfo(self.name, (8, 8, 1), 10, {"train": 1168, "validation": 179, "test": 450}, ORIGIN)

    def parts(self):
        """See `Source`."""
        return {split: Part("all", split, validation=0.1, test=0.25) for split in SPLITS}

    def read(self, stored, size, colour, seed):
        """See `Source`."""
        from sklearn.datasets import load_digits

        data = load_digits()
        pictures = np.rint(data.images * (255 / 16)).astype(np.uint8)[..., None]
        return picture_content(pictures, data.target.astype(np.int32), tuple("0123456789"), size, colour)
