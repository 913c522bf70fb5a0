"""The change of one weight matrix under the published 2019 rule: twelve terms and how they are merged.

All matrices are `[tasks, in, out]`: rows are the units of the lower layer, columns those of the upper one. Source: Metz et
al., ICLR 2019, and the code published with it (sections 4 and 5 of the project's reference, metz2019.md).
"""

import tensorflow as tf

from meta_rules.rules.metz2019_parts import size, standardise

#: In the order in which the merge's coefficients are stored.
TERMS = (
    "0_order",
    "1_order",
    "decorr_x",
    "hebb",
    "large_decay",
    "lin_lower_symm",
    "lin_upper_psd",
    "lin_upper_symm",
    "rbf",
    "sqr_lower_symm",
    "sqr_upper_symm",
    "w_base",
)
#: Low-rank readouts between the layers: the lower layer is read as `bottom`, the upper one as `top`.
BETWEEN = ("0_order", "1_order", "rbf")
#: Readouts within the lower and within the upper layer, read as both.
WITHIN_LOWER = ("lin_lower_symm", "sqr_lower_symm")
WITHIN_UPPER = ("lin_upper_symm", "sqr_upper_symm")
#: Read as `top` only, which stands on both sides.
POSITIVE = ("lin_upper_psd",)
#: Which readouts `(term, side)` a layer needs in its role below a weight matrix, and above one.
BELOW = tuple((name, "bottom") for name in BETWEEN) + tuple(
    (name, side) for name in WITHIN_LOWER for side in ("top", "bottom")
)
ABOVE = (
    tuple((name, "top") for name in BETWEEN)
    + tuple((name, side) for name in WITHIN_UPPER for side in ("top", "bottom"))
    + tuple((name, "top") for name in POSITIVE)
)


def unit_column_rms(matrix):
    """`M / sqrt(mean over rows of M^2 + 1e-6)`, per column."""
    return matrix * tf.math.rsqrt(tf.reduce_mean(tf.square(matrix), axis=1, keepdims=True) + 1e-6)


def squash_columns(matrix, epsilon):
    """`a / sqrt(epsilon + mean over rows of a^2)`, per column: small columns stay small (`nz` in section 5)."""
    return matrix * tf.math.rsqrt(tf.reduce_mean(tf.square(matrix), axis=1, keepdims=True) + epsilon)


def outer(bottom, top):
    """Mean over channels and batch of the outer products: `[tasks, channels, batch, in]`, `[.., out]` -> `[tasks, in, out]`."""
    tasks, examples = size(bottom, 0), bottom.shape[1] * size(bottom, 2)
    rows = tf.reshape(bottom, [tasks, examples, size(bottom, 3)])
    columns = tf.reshape(top, [tasks, examples, size(top, 3)])
    return tf.matmul(rows, columns, transpose_a=True) / tf.cast(examples, bottom.dtype)


def symmetric(first, second):
    """Symmetric plane within a layer, zero diagonal, over the root of its size: `[tasks, units, units]`."""
    plane = outer(second, first)
    units = size(plane, 1)
    plane = (plane + tf.linalg.matrix_transpose(plane)) * 2.0**-0.5
    plane *= 1.0 - tf.eye(units, dtype=plane.dtype)
    return plane * tf.math.rsqrt(tf.cast(units, plane.dtype))


def change_terms(matrix, upper, lower, upper_readouts, lower_readouts):
    """The twelve terms of section 4.

    Args:
      matrix: W (or V) `[tasks, in, out]`.
      upper: activity x of the upper layer, `[tasks, batch, out]`.
      lower: activity x of the lower layer, `[tasks, batch, in]`.
      upper_readouts: dict of `(term, side)` in `ABOVE` -> `[tasks, channels, batch, out]`.
      lower_readouts: dict of `(term, side)` in `BELOW` -> `[tasks, channels, batch, in]`.

    Returns:
      Dict of name in `TERMS` -> `[tasks, in, out]`.
    """
    examples = tf.cast(size(upper, 1), matrix.dtype)
    units = tf.cast(size(upper, 2), matrix.dtype)
    w = unit_column_rms(matrix)
    sign = tf.sign(w)
    bent = tf.sqrt(1.0 + tf.square(w)) - 1.0
    upper, lower = standardise(upper), standardise(lower)
    plane = {name: outer(lower_readouts[name, "bottom"], upper_readouts[name, "top"]) for name in BETWEEN}
    for names, readouts in ((WITHIN_LOWER, lower_readouts), (WITHIN_UPPER, upper_readouts)):
        for name in names:
            plane[name] = symmetric(readouts[name, "top"], readouts[name, "bottom"])
    for name in POSITIVE:
        read = upper_readouts[name, "top"]
        plane[name] = outer(read, read) * tf.math.rsqrt(units)
    correlation = tf.matmul(upper, upper, transpose_a=True) / (examples * tf.sqrt(units))
    decorrelation = tf.matmul(w, correlation)
    spread = tf.reduce_mean(tf.square(decorrelation) + 1e-8, axis=[1, 2], keepdims=True)
    return {
        "0_order": plane["0_order"],
        "1_order": w * plane["1_order"],
        "decorr_x": decorrelation * tf.math.rsqrt(spread),
        "hebb": -tf.matmul(lower, upper, transpose_a=True) / examples,
        "large_decay": tf.square(w) * sign,
        "lin_lower_symm": tf.matmul(plane["lin_lower_symm"], w),
        "lin_upper_psd": tf.matmul(w, plane["lin_upper_psd"]),
        "lin_upper_symm": tf.matmul(w, plane["lin_upper_symm"]),
        "rbf": tf.exp(-tf.square(w)) * plane["rbf"],
        "sqr_lower_symm": tf.matmul(plane["sqr_lower_symm"], bent) * sign,
        "sqr_upper_symm": tf.matmul(bent, plane["sqr_upper_symm"]) * sign,
        "w_base": w,
    }


def merge(terms, coefficients, bias, epsilon):
    """The terms weighed and normalised, without what would make the weights shrink as a whole (section 5).

    Args:
      terms: as `change_terms` gives them.
      coefficients: `[tasks, 12]`.
      bias: `[tasks]`.
      epsilon: of `squash_columns`; 1 as published.

    Returns:
      `(core, change)`, each `[tasks, in, out]`; the change is what is subtracted from the weights after the step size.
    """
    w, count = terms["w_base"], len(TERMS)
    weighed = [
        coefficients[:, i, None, None] * squash_columns(terms[name], epsilon) for i, name in enumerate(TERMS)
    ]
    total = (tf.add_n(weighed) + bias[:, None, None]) / count
    along = tf.reduce_mean(total * w, axis=[1, 2], keepdims=True)
    total -= w * tf.nn.relu(along)
    core = squash_columns(total * count**-0.5, epsilon)
    return core, core - w / 7.0
