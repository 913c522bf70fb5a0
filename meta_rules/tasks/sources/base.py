"""What every data source is, the registry of sources, and `load`.

A source is named in gin and on command lines as `kind`, `kind:path`, or either with options:
`glyphs?examples=500&fonts=all`. A name whose kind nobody has registered is taken for a TensorFlow Datasets
name (`mnist`, `imagenet_resized/16x16`).

To add a source: a file in this folder with one subclass of `Source`, decorated with `@register("kind")`,
imported in `__init__.py`. Heavy libraries are imported inside of methods: importing this package starts
nothing.
"""

import os
from typing import NamedTuple
from urllib.parse import parse_qsl

import numpy as np

from meta_rules.errors import UserError
from meta_rules.tasks import cache as disk_cache
from meta_rules.tasks.dataset import Dataset
from meta_rules.tasks.sources import pictures as picture_tools
from meta_rules.tasks.sources.splits import SPLITS, Part, cut

REGISTRY = {}
#: Takes the names that no registered kind takes; `tfds_images` puts itself here.
FALLBACK = []


class Option(NamedTuple):
    """One option of a source: its default, the function that reads it from text, and what it means."""

    default: object
    parse: object
    meaning: str


class SourceInfo(NamedTuple):
    """What a source says about itself without being read.

    Attributes:
      name: as one writes it in gin.
      shape: of one example, `(height, width, channels)` or `(features,)`; None if unknown before reading.
      classes: how many; None if unknown before reading.
      splits: split name -> number of examples, or None if unknown before reading.
      origin: one sentence: where the data came from.
      available: whether `load` would work now without a network.
      reason: if not available, why, and what to do.
    """

    name: str
    shape: tuple | None
    classes: int | None
    splits: dict
    origin: str
    available: bool = True
    reason: str = ""


class Content(NamedTuple):
    """What a source reads: examples, integer labels that index `class_names`, and those."""

    examples: np.ndarray
    labels: np.ndarray
    class_names: tuple


def whole(minimum, maximum=None):
    """Option reader: a whole number not below `minimum` nor above `maximum`."""
    return _numeric(int, minimum, maximum)


def number(minimum, maximum=None):
    """Option reader: a number not below `minimum` nor above `maximum`."""
    return _numeric(float, minimum, maximum)


def _numeric(kind, minimum, maximum):
    def parse(text):
        value = kind(text)
        if not minimum <= value or (maximum is not None and value > maximum):
            raise ValueError(f"at least {minimum}" + ("" if maximum is None else f", at most {maximum}"))
        return value

    return parse


def choice(*values):
    """Option reader: one of the given words."""

    def parse(text):
        if text not in values:
            raise ValueError(f"one of {', '.join(values)}")
        return text

    return parse


class Source:
    """Base class of all data sources.

    Subclasses set the class attributes and give `info`, `read`, and where they differ from the default
    `parts` and `version`.

    Args:
      name: the whole name, as the user wrote it.
      path: what stood behind the colon; empty if nothing did.
      options: dict of option -> value; the defaults of `options` for those not named.

    Raises:
      UserError: a path is missing or not wanted.
    """

    kind = None
    #: The name as help shows it.
    usage = None
    takes_path = False
    #: Whether the content depends on the seed.
    seeded = False
    #: Whether `size` and `colour` change what is read.
    pictures = True
    #: Whether a prepared array is worth keeping on disk.
    cached = True
    options = {}

    def __init__(self, name, path="", options=None):
        self.name = name
        self.path = os.path.expanduser(path)
        self.option = {key: option.default for key, option in self.options.items()} | dict(options or {})
        if self.takes_path and not path:
            raise UserError(f"{name!r} names no file; write {self.usage}.")
        if path and not self.takes_path:
            raise UserError(f"{name!r}: the source {self.kind!r} takes no path; write {self.usage}.")

    def info(self):
        """The `SourceInfo`, without reading the data.

        Raises:
          UserError: the source cannot exist as named (a file that is not there is said in `reason` instead).
        """
        raise NotImplementedError

    def resolved(self):
        """The source that is read under this name now: itself, or what stands in for it, which is logged.

        Raises:
          UserError: its data cannot be had.
        """
        return self

    def parts(self):
        """Dict of split -> `Part`; by default every split is stored as such."""
        return {split: Part(split, split) for split in SPLITS}

    def read(self, stored, size, colour, seed):
        """The `Content` of a stored part: uint8 pictures resized as asked, or float32 vectors.

        Raises:
          UserError: the data are missing or cannot be used.
        """
        raise NotImplementedError

    def version(self):
        """What changes when the content does (a library's version, a file's size and time), JSON-ready."""
        return 1


def register(kind):
    """Class decorator: makes a source known by that name in gin and on command lines."""

    def add(cls):
        if kind in REGISTRY:
            raise ValueError(f"Two sources are registered as {kind!r}.")
        cls.kind = kind
        cls.usage = cls.usage or kind
        REGISTRY[kind] = cls
        return cls

    return add


def find(name):
    """The `Source` of a name.

    Raises:
      UserError: the name is empty, or an option is not known or cannot be read.
    """
    stem, _, query = name.partition("?")
    kind, _, path = stem.partition(":")
    cls = REGISTRY.get(kind)
    if cls is None:
        cls, path = FALLBACK[0], stem
    if not kind:
        raise UserError(f"A data set needs a name; known: {known_names()}.")
    return cls(name, path, _read_options(cls, name, query))


def _read_options(cls, name, query):
    values = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise UserError(f"{name!r}: write options as name?key=value&key=value.") from error
    for key, text in pairs:
        if key not in cls.options:
            known = ", ".join(sorted(cls.options)) or "none"
            raise UserError(f"{name!r}: unknown option {key!r}; known: {known}.")
        try:
            values[key] = cls.options[key].parse(text)
        except ValueError as error:
            raise UserError(f"{name!r}: option {key!r} cannot be {text!r} ({error}).") from error
    return values


def names():
    """Names that `load` takes without a path, sorted. Other image sets of TensorFlow Datasets work too."""
    known = {kind for kind, cls in REGISTRY.items() if not cls.takes_path}
    return sorted(known | {name for cls in FALLBACK for name in cls.examples})


def path_usages():
    """How to write the sources that take a path, sorted: `npz:/path/to/file.npz`, ..."""
    return sorted(cls.usage for cls in REGISTRY.values() if cls.takes_path)


def known_names():
    """All that may be written, as one line for messages."""
    return ", ".join([*names(), *path_usages()]) + ", or an image classification set of TensorFlow Datasets"


def describe(name):
    """The `SourceInfo` of a named source, without reading its data.

    Raises:
      UserError: no such source or option.
    """
    return find(name).info()


def options(name):
    """The options that a named source takes: dict of name -> `Option`."""
    return dict(find(name).options)


def load(name, split, size=None, colour=False, cache=True, seed=0):
    """One split of a data set, ready to be put on a device. The splits of one source share no example.

    Args:
      name: a source's name, with path and options.
      split: "train", "validation" or "test".
      size: height and width to resize pictures to; None keeps their own. Sources that are drawn draw at that
        size.
      colour: three channels instead of one.
      cache: whether to keep and reuse prepared arrays on disk (see `meta_rules.tasks.cache`).
      seed: of sources that are drawn; the others do not look at it.

    Returns:
      A `Dataset`: uint8 `[examples, height, width, channels]` or float32 `[examples, features]`.

    Raises:
      UserError: no such split or size, or whatever is wrong with the data, in one line that says what to do.
    """
    if split not in SPLITS:
        raise UserError(f"Unknown split {split!r}; known: {', '.join(SPLITS)}.")
    if size is not None and size < 1:
        raise UserError(f"Pictures cannot be resized to {size}; the size must be positive.")
    source = find(name).resolved()
    part = source.parts()[split]
    if cache and source.cached:
        content = _from_cache(source, part.stored, size, colour, seed)
    else:
        content = _checked(source, source.read(part.stored, size, colour, seed))
    kept = cut(content.labels, part)
    if not len(kept):
        raise UserError(
            f"{name!r} has no examples for {split}; it needs at least three a class to be divided."
        )
    examples, labels = content.examples, content.labels
    if len(kept) < len(labels):
        examples, labels = examples[kept], labels[kept]
    return Dataset(examples, labels.astype(np.int32), content.class_names, name, source.info().origin)


def _from_cache(source, stored, size, colour, seed):
    key = {
        "source": [source.kind, source.path, sorted(source.option.items())],
        "version": source.version(),
        "part": [stored, *((size, bool(colour)) if source.pictures else ()), seed if source.seeded else None],
    }

    def build():
        content = _checked(source, source.read(stored, size, colour, seed))
        return content._asdict() | {"class_names": np.array(content.class_names, dtype=np.str_)}

    arrays = disk_cache.fetch(key, build)
    names = tuple(str(name) for name in arrays["class_names"])
    return Content(arrays["examples"], arrays["labels"], names)


def _checked(source, content):
    examples, labels, class_names = content
    if len(class_names) < 2:
        raise UserError(f"{source.name!r} has {len(class_names)} class; a task needs at least two.")
    vectors = examples.dtype == np.float32 and examples.ndim == 2
    if not vectors and not (examples.dtype == np.uint8 and examples.ndim == 4):
        raise AssertionError(f"{source.name} gave {examples.dtype} {examples.shape}.")
    return Content(examples, np.asarray(labels, np.int32), tuple(class_names))


def picture_content(pictures, labels, class_names, size, colour):
    """`Content` from uint8 `[examples, height, width, channels]` as they came."""
    return Content(picture_tools.prepared(pictures, size, colour), labels, class_names)
