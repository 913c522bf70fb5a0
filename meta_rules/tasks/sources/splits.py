"""How a source is divided into training, validation and test, without an example in two of them."""

from typing import NamedTuple

import numpy as np

SPLITS = ("train", "validation", "test")


class Part(NamedTuple):
    """Where a split comes from: a stored part of the source, of which the ends of each class may be held out.

    Attributes:
      stored: the name of the stored part, for `Source.read`.
      split: which of the three this is.
      validation, test: shares of each class that are kept apart for these splits, from its end; 0 keeps none.
    """

    stored: str
    split: str
    validation: float = 0.0
    test: float = 0.0


def cut(labels, part):
    """Indices of the examples of a part, ascending: of every class its first, next-to-last or last share.

    The ends of classes are held out, not random examples, because neighbours in a file are often alike (one
    writer, one film); a class keeps its proportion in all splits.
    """
    if not part.validation and not part.test:
        return np.arange(len(labels))
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    kept = []
    for start, count in zip(np.cumsum(counts) - counts, counts, strict=True):
        held = {}
        for split, share in (("validation", part.validation), ("test", part.test)):
            held[split] = max(1, round(count * share)) if share and count > 2 else 0
        first_test = count - held["test"]
        first_validation = first_test - held["validation"]
        ends = {
            "train": (0, first_validation),
            "validation": (first_validation, first_test),
            "test": (first_test, count),
        }
        low, high = ends[part.split]
        kept.append(order[start + low : start + high])
    return np.sort(np.concatenate(kept)) if kept else np.arange(0)


def cut_parts(stored):
    """`Part` of every split: what is not stored on its own is cut off the training part, a tenth.

    Args:
      stored: names of the stored parts: "all", or "train" and perhaps "validation" and "test".
    """
    whole_set = "all" if "all" in stored else "train"
    shares = {split: 0.0 if split in stored else 0.1 for split in ("validation", "test")}
    return {
        split: Part(split, split)
        if split in stored and split != "train"
        else Part(whole_set, split, **shares)
        for split in SPLITS
    }
