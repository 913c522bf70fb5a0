"""What every data set must be: integer labels, finite columns that vary, enough classes and examples."""

import numpy as np

from meta_rules.errors import UserError


def integer_labels(labels, name):
    """Labels `[examples]` of any integers as indices, and the class names: `(int32 [examples], names)`.

    Raises:
      UserError: not one-dimensional, or not integers.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UserError(
            f"{name!r}: labels must be one whole number an example, these have shape {labels.shape}."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{name!r}: labels must be integers, these are {labels.dtype}; number the classes 0, 1, ..."
        )
    values, indices = np.unique(labels, return_inverse=True)
    return indices.astype(np.int32), tuple(str(value) for value in values)


def check_columns(vectors, name, constant=True):
    """Refuses vectors `[examples, features]` that no network can use; constant columns only if `constant`.

    Raises:
      UserError: NaN or infinite values, or columns that never change; the line names the columns.
    """
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=0))
    if len(bad):
        raise UserError(f"{name!r}: NaN or infinite values in {_columns(bad)}; drop or fill these columns.")
    if constant and len(vectors):
        same = np.flatnonzero(vectors.max(axis=0) == vectors.min(axis=0))
        if len(same):
            raise UserError(
                f"{name!r}: the same value in every example of {_columns(same)}; drop these columns."
            )


def _columns(indices):
    shown = ", ".join(str(index) for index in indices[:10])
    more = f" and {len(indices) - 10} more" if len(indices) > 10 else ""
    return f"column{'s' if len(indices) > 1 else ''} {shown}{more}"


def check_few_shot(dataset, ways, examples):
    """Refuses a data set that few-shot tasks cannot be drawn from.

    Args:
      dataset: `Dataset`.
      ways: classes a task.
      examples: examples a class, support and query together.

    Raises:
      UserError: fewer classes than `ways`, or too few that have `examples` examples.
    """
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    present = int((counts > 0).sum())
    if present < ways:
        raise UserError(
            f"{dataset.name!r} has {present} classes, fewer than the {ways} ways asked for; lower the ways."
        )
    enough = int((counts >= examples).sum())
    if enough < ways:
        small = int(np.argmin(np.where(counts > 0, counts, np.iinfo(np.int64).max)))
        raise UserError(
            f"{dataset.name!r}: only {enough} classes have the {examples} examples a class that support and "
            f"query need (class {dataset.class_names[small]!r} has {counts[small]}); "
            f"lower the shots or the ways ({ways})."
        )
