"""A meta-gradient over many slots, a few of them at a time.

An estimate is a sum over slots that have nothing to do with each other, so it can be taken group by group, in a loop inside the
same program. What a step computes in between is then as large as one group, whatever the number of slots; on a processor
whose caches hold that and not the whole, it is also faster.
"""

import tensorflow as tf

from meta_rules.estimators.base import Estimate

#: Bytes of the widest array of a group, beyond which a processor gets slower (measured with a megabyte of cache a core).
CACHED = 3e6


def map_groups(function, nest, size):
    """`function` of every group of `size` slots, one after the other.

    Args:
      function: of a nest of `[size, ...]`; returns a nest of tensors.
      nest: tensors `[slots, ...]`; the slots divide by `size`.
      size: slots a group.

    Returns:
      What the function returned, each leaf with a leading axis of groups.
    """
    split = tf.nest.map_structure(
        lambda leaf: tf.reshape(leaf, [leaf.shape[0] // size, size, *leaf.shape[1:]]), nest
    )
    first = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape[1:], leaf.dtype), split)
    # Traced once, for what comes out and for the loop alike.
    traced = tf.function(function, autograph=False).get_concrete_function(first)
    signature = tf.nest.map_structure(
        lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), traced.structured_outputs
    )
    return tf.map_fn(traced, split, fn_output_signature=signature)


def ungroup(nest):
    """Leaves `[groups, size, ...]` as `[slots, ...]`."""
    return tf.nest.map_structure(
        lambda leaf: tf.reshape(leaf, [leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]]), nest
    )


def estimate_in_groups(estimator, problem, theta, pool, window, size):
    """`estimator.estimate` of the whole pool, `size` slots at a time.

    Args:
      estimator, problem, theta, pool, window: as `Estimator.estimate` has them.
      size: slots a group, by which those of the pool divide.

    Returns:
      An `Estimate`.
    """
    if size == tf.nest.flatten(pool)[0].shape[0]:
        return estimator.estimate(problem, theta, pool, window)
    # A black-box optimiser has a copy of theta a slot, which goes with its slot.
    if estimator.host_update:
        found = map_groups(lambda group: estimator.estimate(problem, *group, window), (theta, pool), size)
    else:
        found = map_groups(lambda group: estimator.estimate(problem, theta, group, window), pool, size)
    gradient, weight = tf.nest.map_structure(
        lambda leaf: tf.reduce_sum(leaf, axis=0), (found.gradient, found.weight)
    )
    return Estimate(gradient, weight, ungroup(found.pool), ungroup(found.metrics))


def suitable_size(problem, slots, arms):
    """Slots that a processor should work on at a time: as many as its caches hold, one at least, and a divisor of `slots`.

    Args:
      problem: of which the slots are.
      slots: of one replica.
      arms: networks a slot.
    """
    each = 4 * arms * problem.largest_array
    fitting = [size for size in range(1, slots + 1) if slots % size == 0 and size * each <= CACHED]
    return max(fitting, default=1)
