"""Apply a rule many times, with a gradient whose memory does not grow with what a step computes.

`tf.while_loop` under a gradient tape keeps every intermediate of every step. `unroll` keeps only the *carry* between
steps; its backward pass is a second loop, from the last step to the first, that recomputes one step under a tape of its
own and takes that step's vector-Jacobian product. Both loops have a static bound, which XLA needs.
"""

import tensorflow as tf


def _is_float(tensor):
    return tensor.dtype.is_floating


def _refuse_unused(theta, gradients):
    names = sorted(theta) if isinstance(theta, dict) else range(len(gradients))
    unused = [str(name) for name, gradient in zip(names, gradients, strict=True) if gradient is None]
    if unused:
        raise ValueError(f"A step does not depend on {', '.join(unused)}: the meta-gradient would be None.")


def unroll(step, theta, carry, steps, differentiable=True):
    """Applies `carry = step(theta, carry, i)` for i = 0..steps-1; differentiable in theta and the carry.

    Args:
      step: pure function of `(theta, carry, i)`, i an int32 scalar, that returns a carry of the same structure, shapes and
        dtypes and a nest of outputs, which are added up over the steps (`()` for none).
      theta: a nest of tensors.
      carry: a nest of tensors. Integer tensors pass through; they have no gradient.
      steps: a Python integer.
      differentiable: False keeps no history, for callers that take no gradient.

    Returns:
      `(carry, outputs)` after the last step; outputs are sums over the steps.

    Raises:
      ValueError: (while the gradient is traced) a step does not depend on some leaf of theta; the line names it.
    """
    theta_flat = tf.nest.flatten(theta)
    carry_flat = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(carry)]
    outputs_structure = []

    def flat_step(parameters, values, index):
        after, outputs = step(
            tf.nest.pack_sequence_as(theta, parameters), tf.nest.pack_sequence_as(carry, values), index
        )
        tf.nest.assert_same_structure(carry, after)
        outputs_structure[:] = [outputs]
        return tf.nest.flatten(after), tf.nest.flatten(outputs)

    # The step is traced once for the forward loop and for the shapes and dtypes of what it puts out. Not for the backward
    # loop: the gradient of a call is a program thirty times slower than that of the step itself.
    traced = tf.function(flat_step, autograph=False).get_concrete_function(
        [tf.TensorSpec(leaf.shape, leaf.dtype) for leaf in theta_flat],
        [tf.TensorSpec(leaf.shape, leaf.dtype) for leaf in carry_flat],
        tf.TensorSpec([], tf.int32),
    )
    output_specs = traced.structured_outputs[1]
    count = len(carry_flat)

    def run_forward(parameters, values, keep):
        history = tuple(
            tf.TensorArray(leaf.dtype, size=steps, element_shape=leaf.shape)
            for leaf in (values if keep else [])
        )
        sums = [tf.zeros(spec.shape, spec.dtype) for spec in output_specs]

        def body(index, current, sums, history):
            if keep:
                history = tuple(
                    array.write(index, leaf) for array, leaf in zip(history, current, strict=True)
                )
            after, outputs = traced(list(parameters), list(current), index)
            for old, new in zip(current, after, strict=True):
                new.set_shape(old.shape)
            return index + 1, after, [a + b for a, b in zip(sums, outputs, strict=True)], history

        _, after, sums, history = tf.while_loop(
            lambda index, *_: index < steps,
            body,
            (tf.constant(0), list(values), sums, history),
            maximum_iterations=steps,
        )
        return after, sums, history

    @tf.custom_gradient
    def with_gradient(*flat):
        parameters, values = flat[: len(theta_flat)], flat[len(theta_flat) :]
        after, sums, history = run_forward(parameters, values, keep=True)

        def gradient(*upstream):
            carry_gradient = [
                g if g is not None else tf.zeros_like(v)
                for g, v in zip(upstream[:count], values, strict=True)
            ]
            floats = [i for i, leaf in enumerate(values) if _is_float(leaf)]
            start = [carry_gradient[i] for i in floats]
            theta_gradient = [tf.zeros_like(leaf) for leaf in parameters]

            def body(index, back, total):
                position = steps - 1 - index
                current = [array.read(position) for array in history]
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(parameters)
                    tape.watch([current[i] for i in floats])
                    new, outputs = flat_step(parameters, current, position)
                targets = [new[i] for i in floats] + list(outputs)
                seeds = list(back) + list(upstream[count:])
                wanted = list(parameters) + [current[i] for i in floats]
                found = tape.gradient(targets, wanted, output_gradients=seeds)
                _refuse_unused(theta, found[: len(parameters)])
                back = [
                    tf.zeros_like(leaf) if g is None else g
                    for g, leaf in zip(found[len(parameters) :], start, strict=True)
                ]
                total = [t + g for t, g in zip(total, found[: len(parameters)], strict=True)]
                return index + 1, back, total

            _, start, theta_gradient = tf.while_loop(
                lambda index, *_: index < steps,
                body,
                (tf.constant(0), start, theta_gradient),
                maximum_iterations=steps,
            )
            result = [None] * len(values)
            for i, g in zip(floats, start, strict=True):
                result[i] = g
            return tuple(theta_gradient) + tuple(result)

        return tuple(after) + tuple(sums), gradient

    if differentiable:
        results = with_gradient(*theta_flat, *carry_flat)
        after, sums = results[:count], results[count:]
    else:
        after, sums, _ = run_forward(theta_flat, carry_flat, keep=False)
    return tf.nest.pack_sequence_as(carry, list(after)), tf.nest.pack_sequence_as(
        outputs_structure[0], list(sums)
    )
