"""Text as bags of words: reviews of films from TensorFlow Datasets, or a csv file of the user's own.

The vocabulary is learned from the training split alone: the words that the most documents hold. Columns that
never change in training cannot occur, because a word must be in at least two training documents and not in
all.
"""

import csv
import pathlib

import numpy as np

from meta_rules.errors import UserError
from meta_rules.tasks.sources import tfds_builder
from meta_rules.tasks.sources.base import Content, Option, Source, SourceInfo, choice, register, whole
from meta_rules.tasks.sources.splits import SPLITS, cut, cut_parts

_OPTIONS = {
    "vocabulary": Option(
        512, whole(2), "words, and features of an example; fewer if the training text has fewer"
    ),
    "counts": Option(
        "log", choice("log", "binary"), "a feature is log(1 + count), or 1 where the word occurs"
    ),
}


def tokenised(texts):
    """The words of texts in order, as numbers into a list of distinct words, and the text of each.

    Case is folded, tags of HTML are dropped, and text is split by tensorflow-text at everything that is no
    letter, mark, digit or apostrophe.

    Args:
      texts: a list of byte strings of UTF-8, or strings.

    Returns:
      `(word, document, words)`: int32 `[tokens]`, int64 `[tokens]`, and the distinct words as a list of
      strings.
    """
    import tensorflow as tf
    import tensorflow_text

    with tf.device("/CPU:0"):
        lines = tf.strings.unicode_transcode(tf.constant(texts, tf.string), "UTF-8", "UTF-8")
        lines = tf.strings.regex_replace(tensorflow_text.case_fold_utf8(lines), "<[^<>]*>", " ")
        ragged = tensorflow_text.regex_split(lines, r"[^\pL\pM\pN']+")
        distinct = tf.unique(ragged.values)
        documents = ragged.value_rowids()
    words = [word.decode() for word in distinct.y.numpy()]
    return distinct.idx.numpy(), documents.numpy(), words


def learned_vocabulary(word, document, words, size):
    """The `size` words that the most documents hold, in at least two and not in all; ties go by the alphabet.

    Args:
      word, document, words: as `tokenised` gives them, of the training texts alone.
      size: the most words to take.

    Returns:
      A list of words.
    """
    pairs = np.unique(np.stack([word, document], axis=1), axis=0)
    frequency = np.bincount(pairs[:, 0], minlength=len(words))
    usable = (frequency >= 2) & (frequency < len(np.unique(document)))
    order = sorted(np.flatnonzero(usable), key=lambda index: (-frequency[index], words[index]))
    return [words[index] for index in order if words[index].strip("'")][:size]


def bags(word, document, words, documents, vocabulary, counts):
    """Bags of words: float32 `[documents, vocabulary]`, `log(1 + count)`; 0 or 1 if `counts` is "binary"."""
    column = {entry: index for index, entry in enumerate(vocabulary)}
    columns = np.array([column.get(entry, -1) for entry in words], np.int64)[word]
    known = columns >= 0
    flat = np.bincount(
        document[known] * len(vocabulary) + columns[known], minlength=documents * len(vocabulary)
    )
    table = flat.reshape(documents, len(vocabulary)).astype(np.float32)
    return np.minimum(table, 1) if counts == "binary" else np.log1p(table)


class Text(Source):
    """Base class of text sources: subclasses give `texts`."""

    options = _OPTIONS
    pictures = False

    def texts(self, stored):
        """A stored part as it came: a list of texts, int32 labels `[examples]`, and the class names."""
        raise NotImplementedError

    def read(self, stored, size, colour, seed):
        """See `Source`."""
        training = self.parts()["train"]
        texts, labels, names = self.texts(training.stored)
        kept = cut(labels, training)
        word, document, words = tokenised([texts[index] for index in kept])
        vocabulary = learned_vocabulary(word, document, words, self.option["vocabulary"])
        if len(vocabulary) < 2:
            raise UserError(
                f"{self.name!r}: fewer than two words occur in several training texts; give more text."
            )
        if stored != training.stored:
            texts, labels, names = self.texts(stored)
        word, document, words = tokenised(texts)
        return Content(
            bags(word, document, words, len(texts), vocabulary, self.option["counts"]), labels, names
        )


@register("imdb_reviews")
class ImdbReviews(Text):
    """50,000 reviews of films, positive or negative: 22,500 for training, 2,500 validation, 25,000 test."""

    options = _OPTIONS | {
        "data_dir": Option(
            None, str, "folder of prepared sets; the default is $TFDS_DATA_DIR or ~/tensorflow_datasets"
        ),
    }
    _TFDS = "imdb_reviews"

    def info(self):
        """See `Source`."""
        builder = tfds_builder.open_builder(self._TFDS, self.option["data_dir"])
        origin = f"TensorFlow Datasets, {builder.info.full_name} (Maas et al., 2011), as a bag of words"
        shape = (self.option["vocabulary"],)
        if not tfds_builder.is_prepared(builder):
            folder = tfds_builder.data_dir(self.option["data_dir"])
            advice = tfds_builder.how_to_prepare(self._TFDS, self.option["data_dir"], copies=False)
            reason = f"not prepared in {folder}; {advice}"
            return SourceInfo(self.name, shape, 2, dict.fromkeys(SPLITS), origin, False, reason)
        splits = {"train": None, "validation": None, "test": builder.info.splits["test"].num_examples}
        return SourceInfo(self.name, shape, 2, splits, origin)

    def resolved(self):
        """See `Source`."""
        tfds_builder.prepared_builder(self._TFDS, self.option["data_dir"], copies=False)
        return self

    def parts(self):
        """See `Source`."""
        return cut_parts(("train", "test"))

    def _builder(self):
        return tfds_builder.prepared_builder(
            self._TFDS, self.option["data_dir"], download=False, copies=False
        )

    def version(self):
        """See `Source`."""
        return tfds_builder.stamp(self._builder())

    def texts(self, stored):
        """See `Text`."""
        import tensorflow_datasets as tfds

        texts, labels = [], []
        for block in tfds.as_numpy(
            self._builder().as_dataset(split=stored, shuffle_files=False, batch_size=1024)
        ):
            texts.extend(block["text"].tolist())
            labels.append(block["label"])
        return texts, np.concatenate(labels).astype(np.int32), ("negative", "positive")


@register("csv")
class Csv(Text):
    """A csv file with a header line, a column of text, and one of labels: whole numbers, or names of classes.

    Of each class the last tenth is the test split, the tenth before it the validation split.
    """

    usage = "csv:/path/to/file.csv"
    takes_path = True
    options = _OPTIONS | {
        "text": Option("text", str, "name of the column of texts"),
        "label": Option("label", str, "name of the column of labels"),
    }

    def info(self):
        """See `Source`."""
        origin = f"the file {self.path}, as a bag of words"
        try:
            _, labels, names = self.texts("all")
        except UserError as error:
            return SourceInfo(self.name, None, None, dict.fromkeys(SPLITS), origin, False, str(error))
        splits = {split: len(cut(labels, part)) for split, part in self.parts().items()}
        # The width is known only once the vocabulary is learned.
        return SourceInfo(self.name, None, len(names), splits, origin)

    def parts(self):
        """See `Source`."""
        return cut_parts(("all",))

    def version(self):
        """See `Source`."""
        try:
            stat = pathlib.Path(self.path).stat()
        except OSError as error:
            raise UserError(f"There is no file {self.path}.") from error
        return [str(pathlib.Path(self.path).resolve()), stat.st_size, stat.st_mtime_ns]

    def texts(self, stored):
        """See `Text`."""
        text_column, label_column = self.option["text"], self.option["label"]
        texts, labels = [], []
        try:
            with open(self.path, newline="", encoding="utf-8-sig") as file:
                rows = csv.DictReader(file)
                columns = rows.fieldnames or []
                for wanted, option in ((text_column, "text"), (label_column, "label")):
                    if wanted not in columns:
                        raise UserError(
                            f"{self.path} has no column {wanted!r}, only "
                            f"{', '.join(map(repr, columns)) or 'nothing'}; "
                            f"name it: csv:{self.path}?{option}=COLUMN."
                        )
                for row in rows:
                    if row[text_column] is None or row[label_column] is None:
                        raise UserError(
                            f"{self.path}, line {rows.line_num}: too few columns; complete or remove it."
                        )
                    texts.append(row[text_column])
                    labels.append(row[label_column].strip())
        except FileNotFoundError as error:
            raise UserError(f"There is no file {self.path}.") from error
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{self.path} is not a readable csv file in UTF-8 ({error}).") from error
        return (texts, *self._numbered(labels))

    def _numbered(self, labels):
        if not labels:
            raise UserError(f"{self.path} holds no rows.")
        for label in labels:
            if not label or (_is_number(label) and not _is_integer(label)):
                raise UserError(
                    f"{self.path}: label {label!r} in column {self.option['label']!r} is neither a whole "
                    "number nor a name."
                )
        numbers = all(_is_integer(label) for label in labels)
        names = sorted(set(labels), key=int if numbers else str)
        index = {name: position for position, name in enumerate(names)}
        return np.array([index[label] for label in labels], np.int32), tuple(names)


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_integer(text):
    return text.lstrip("+-").isdigit()
