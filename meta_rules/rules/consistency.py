"""What a layer's units ought to say: the same of an example seen twice, something certain, and something different of others.

The second view of an example is a damaged copy, see `views.py`. Read the layer's activity as a guess of one of `units`
classes, `p = softmax(sharpness * z)`; then the three wishes are the objective

    mean_batch [ p . log p' ]  -  certainty * mean_batch H(p)  +  balance * H(mean_batch p)          p' of the second view

whose gradient with respect to z and z' are the errors below. Nothing in it needs a label or knows what an input is. A share
of the units may have another objective, the contrast of an example with the others of its batch, see `contrast.py`; the
classes are then those of the other units. In the place of both, as far as a rule wants it, all of them may keep the relations
between examples, see `relations.py`.

Source: information maximisation (Krause, Perona and Gomes, NeurIPS 2010) with self-augmentation (Hu et al., "Learning
discrete representations via information maximizing self-augmented training", ICML 2017), here with views that need no
knowledge of the inputs, and p taken as a constant in the first term.
"""

import math

import tensorflow as tf

from meta_rules.errors import UserError
from meta_rules.rules.base import Parameter
from meta_rules.rules.contrast import contrast_errors, sought_examples
from meta_rules.rules.local import mean_product
from meta_rules.rules.relations import relation_errors

#: Where the weights of the objective start; the meta-parameters are their logarithms.
WEIGHTS = {"sharpness": 2.0, "certainty": 0.1, "balance": 0.4}
#: The same of the contrast: its weight beside the objective, and its temperature.
CONTRAST = {"contrast": 0.5, "temperature": 0.2}


def parameters(directions=0.0):
    """The meta-parameters of the objective, for a rule's own `parameters`; those of the contrast too if it has units."""
    starts = WEIGHTS | CONTRAST if directions else WEIGHTS
    return {f"consistency/{name}": Parameter((), value=math.log(value)) for name, value in starts.items()}


def checked_shares(damage, directions, neighbours):
    """Refuses what there cannot be; see `own_errors` for the shares.

    Args:
      damage: `views.Damage`, by which the second view differs.
      directions, neighbours: shares, in [0, 1).

    Raises:
      UserError: a share out of its range, directions without a second view, or neighbours without directions.
    """
    for name, share in {"directions": directions, "neighbours": neighbours}.items():
        if not 0.0 <= share < 1.0:
            raise UserError(f"{name} must be in [0, 1), got {share}.")
    if directions and not damage:
        raise UserError("directions compare two views; give corruption, for example 0.3.")
    if neighbours and not directions:
        raise UserError("neighbours are sought by directions; give directions, for example 0.5.")


def consistency_errors(pre, view, sharpness, certainty, balance):
    """Gradient of the objective above with respect to a layer's activity, but for the factor `sharpness / batch`.

    Args:
      pre, view: z of the two views, `[tasks, batch, units]`.
      sharpness, certainty, balance: `[tasks]`, positive.

    Returns:
      `[tasks, 2, batch, units]`: the error of the batch as it is, and that of its second view.
    """
    sharpness, certainty, balance = (each[:, None, None] for each in (sharpness, certainty, balance))
    log_p = tf.nn.log_softmax(sharpness * pre, axis=-1)
    p = tf.exp(log_p)
    seen_again = tf.nn.softmax(sharpness * view, axis=-1)
    log_mean = tf.math.log(tf.reduce_mean(p, axis=1, keepdims=True) + 1e-6)
    certain = p * (log_p - tf.reduce_sum(p * log_p, axis=-1, keepdims=True))
    uneven = p * (log_mean - tf.reduce_sum(p * log_mean, axis=-1, keepdims=True))
    return tf.stack([certainty * certain - balance * uneven, p - seen_again], axis=1)


def through_batch_norm(errors, normalised):
    """Errors of a batch-normalised activity as errors of the current behind it, but for the current's deviation.

    Args:
      errors: `[..., batch, units]`.
      normalised: the activity, mean 0 and variance 1 over the batch, of the same shape.
    """
    level = tf.reduce_mean(errors, axis=-2, keepdims=True)
    slope = tf.reduce_mean(errors * normalised, axis=-2, keepdims=True)
    return errors - level - normalised * slope


def own_errors(theta, pre, view, directions=0.0, sought=None, kept=None):
    """What a layer finds wrong by itself: errors of its two views, `[tasks, 2, batch, units]`, as `consistency_errors`.

    Args:
      theta: dict with `parameters`, `[tasks]` each.
      pre, view: z of the two views, `[tasks, batch, units]`.
      directions: share of the units, the last ones, that are for contrast; at least one unit stays with the classes.
      sought: whom they contrast an example with, see `contrast.sought_examples`; needed where there are directions.
      kept: `relations.Kept` of the batch, by directions; None for no relations.
    """
    units = pre.shape[-1]
    classes = max(1, units - round(directions * units))
    names = WEIGHTS | CONTRAST if directions else WEIGHTS
    weights = {name: tf.exp(theta[f"consistency/{name}"]) for name in names}
    found = consistency_errors(pre[..., :classes], view[..., :classes], *(weights[name] for name in WEIGHTS))
    if not directions:
        return found
    # `consistency_errors` leaves out a factor of the sharpness; both objectives are to be in the same measure.
    strength = (weights["contrast"] / weights["sharpness"])[:, None, None, None]
    if kept is None:
        # A share too small for a unit leaves a contrast of no units, which changes nothing and still has a gradient, zero.
        errors = contrast_errors(pre[..., classes:], view[..., classes:], weights["temperature"], sought)
        return tf.concat([found, strength * errors], axis=-1)
    others = (1.0 - kept.share)[:, None, None]
    for_classes = tf.cast(tf.range(units) < classes, pre.dtype)
    errors = _of_directions(pre, view, 1.0 - others * for_classes, weights["temperature"], sought, kept)
    found = tf.pad(others[:, None] * found, [[0, 0], [0, 0], [0, 0], [0, units - classes]])
    return found + strength * errors


def _of_directions(pre, view, part, temperature, sought, kept):
    """Errors of contrast and relations, to the shares of `kept`, where units take `part [tasks, 1, units]` in both."""
    pre, view = part * pre, part * view
    share = kept.share[:, None, None, None]
    errors = (1.0 - share) * contrast_errors(pre, view, temperature, sought)
    related = relation_errors(pre, temperature, kept.wanted)
    # Relations are those of the batch as it is; its second view has no part in them.
    errors += share * tf.stack([related, tf.zeros_like(related)], axis=1)
    return part[:, None] * errors


def sweep_down(theta, scheme, state, activities, view, directions=0.0, neighbours=0.0, kept=None):
    """Errors of every layer's two views, layer 0 first, each `[tasks, 2, batch, units]`.

    The top layer finds its own; they come down as the feedback scheme carries them, through the activation's rise (taken as
    that of a soft rectifier, whatever it is) and through batch normalisation. Where nothing comes down, every layer finds
    its own.

    Args:
      theta: dict with `parameters`, `[tasks]` each.
      scheme: the feedback scheme.
      state: `NetworkState`.
      activities, view: `Activities` of the batch and of its second view.
      directions: see `own_errors`.
      neighbours: see `contrast.sought_examples`.
      kept: see `own_errors`.
    """
    sought = sought_examples(activities.pre[0], neighbours) if directions else None

    def of_currents(layer, errors):
        normalised = tf.stack([activities.pre[layer], view.pre[layer]], axis=1)
        return through_batch_norm(errors, normalised - state.biases[layer - 1][:, None, None, :])

    def own(layer):
        return own_errors(theta, activities.pre[layer], view.pre[layer], directions, sought, kept)

    top = len(activities.pre) - 1
    errors = [of_currents(top, own(top))]
    for layer in range(top - 1, -1, -1):
        if scheme.silent:
            found = own(layer)
        else:
            found = scheme.down(state, layer + 1, errors[-1], errors[0])
            found *= tf.sigmoid(2.0 * tf.stack([activities.pre[layer], view.pre[layer]], axis=1))
        errors.append(of_currents(layer, found) if layer else found)
    return errors[::-1]


def consistency_plane(errors, activities, view, layer):
    """The plane of one kernel, `[tasks, in, out]`: both views' inputs with the errors `[tasks, 2, batch, out]` they end in."""
    senders = [each.post[layer - 1] if layer > 1 else each.pre[0] for each in (activities, view)]
    return sum(mean_product(*pair) for pair in zip(senders, tf.unstack(errors, axis=1), strict=True))
