"""Where tasks' data come from: one registry, one `load`, one small file a kind of source."""

from meta_rules.tasks.sources import (  # noqa: F401  (imported for their registration)
    files,
    glyphs,
    mnist_sample,
    procedural,
    sklearn_digits,
    tfds_images,
)
from meta_rules.tasks.sources.base import (  # noqa: F401
    SPLITS,
    SourceInfo,
    check_few_shot,
    describe,
    load,
    names,
    path_usages,
)
