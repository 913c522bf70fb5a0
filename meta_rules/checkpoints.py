"""What survives a kill: everything a run needs to go on as if it had never stopped."""

import tensorflow as tf
from absl import logging


class RunCheckpoints:
    """Checkpoints of a run: live variables, and a nest of tensors (the pools) that is stored beside them.

    Args:
      folder: where they are written.
      variables: dict of name -> list of `tf.Variable`.
      keep: how many are kept.
    """

    def __init__(self, folder, variables, keep=3):
        self._variables = {name: list(values) for name, values in variables.items()}
        self._folder, self._keep = folder, keep

    def _manager(self, tensors):
        stored = [tf.Variable(leaf, trainable=False) for leaf in tf.nest.flatten(tensors)]
        checkpoint = tf.train.Checkpoint(tensors=stored, **self._variables)
        manager = tf.train.CheckpointManager(
            checkpoint, self._folder, max_to_keep=self._keep, checkpoint_name="step"
        )
        return checkpoint, manager, stored

    def save(self, step, tensors):
        """Writes the variables and the nest of tensors under the number of meta-steps done."""
        self._manager(tensors)[1].save(checkpoint_number=step)

    def restore(self, tensors):
        """Restores the newest readable checkpoint into the variables.

        Args:
          tensors: a nest like the stored one; only its shapes and dtypes are used.

        Returns:
          The stored nest, or None when there is no checkpoint.
        """
        checkpoint, manager, stored = self._manager(tensors)
        for path in reversed(manager.checkpoints):
            try:
                checkpoint.restore(path).assert_consumed()
            except (tf.errors.OpError, AssertionError, ValueError) as error:
                logging.warning("Skipping unreadable checkpoint %s (%s).", path, type(error).__name__)
                continue
            return tf.nest.pack_sequence_as(tensors, [variable.read_value() for variable in stored])
        return None
