"""Where tasks' data come from: one registry, one `load`, one small file a kind of source."""

from meta_rules.tasks.sources import (  # noqa: F401  (imported for their registration)
    curves,
    docstrings,
    files,
    glyphs,
    mnist_sample,
    procedural,
    sklearn_digits,
    strokes,
    tables,
    text,
    tfds_images,
    topics,
)
from meta_rules.tasks.sources.base import (  # noqa: F401
    SourceInfo,
    describe,
    load,
    names,
    options,
    path_usages,
)
from meta_rules.tasks.sources.checks import check_few_shot  # noqa: F401
from meta_rules.tasks.sources.splits import SPLITS  # noqa: F401
