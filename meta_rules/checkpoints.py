"""What survives a kill: everything a run needs to go on as if it had never stopped.

A checkpoint is a folder `step-N`. It is written under another name and renamed when it is whole and on the disk, so a folder
of that name is always complete, whenever the process was killed.
"""

import os
import re
import shutil

import tensorflow as tf
from absl import logging

from meta_rules.errors import UserError

_NAME = re.compile(r"step-(\d+)")
_FILE = "state"


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

    def steps(self):
        """The meta-steps of which there is a checkpoint, increasing."""
        names = os.listdir(self._folder) if os.path.isdir(self._folder) else []
        return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)

    def _path(self, step):
        return os.path.join(self._folder, f"step-{step}")

    def _checkpoint(self, tensors):
        stored = [tf.Variable(leaf, trainable=False) for leaf in tf.nest.flatten(tensors)]
        return tf.train.Checkpoint(tensors=stored, **self._variables), stored

    def save(self, step, tensors):
        """Writes the variables and the nest of tensors under the number of meta-steps done, and drops the oldest.

        Raises:
          UserError: it cannot be written, for want of space say; the older checkpoints are as they were.
        """
        partial = os.path.join(self._folder, "partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            os.makedirs(partial)
            self._checkpoint(tensors)[0].write(os.path.join(partial, _FILE))
            for name in os.listdir(partial):
                _flush(os.path.join(partial, name))
            shutil.rmtree(self._path(step), ignore_errors=True)
            os.rename(partial, self._path(step))
            _flush(self._folder)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            kept = (
                f"that of meta-step {self.steps()[-1]} is kept" if self.steps() else "there is no older one"
            )
            raise UserError(
                f"Cannot write the checkpoint of meta-step {step} in {self._folder} ({_reason(error)}); {kept}. "
                f"Free some space, then give the same command again."
            ) from error
        for old in self.steps()[: -self._keep]:
            shutil.rmtree(self._path(old), ignore_errors=True)

    def restore(self, tensors):
        """Restores the newest readable checkpoint into the variables.

        Args:
          tensors: a nest like the stored one; only its shapes and dtypes are used.

        Returns:
          The stored nest, or None when there is no checkpoint.

        Raises:
          UserError: there are checkpoints, and none can be read; or the newest is of tensors of other shapes.
        """
        steps = self.steps()
        for step in reversed(steps):
            checkpoint, stored = self._checkpoint(tensors)
            path = os.path.join(self._path(step), _FILE)
            try:
                # The checksums of all that is in it, before the first variable changes.
                reader = tf.train.load_checkpoint(path)
                for name in reader.get_variable_to_shape_map():
                    reader.get_tensor(name)
                self._check_shapes(reader, stored, step)
                checkpoint.read(path).assert_consumed()
            except UserError:
                raise
            except (
                tf.errors.OpError,
                AssertionError,
                IndexError,
                OSError,
                ValueError,
                RuntimeError,
            ) as error:
                logging.warning(
                    "Skipping the checkpoint of meta-step %d, which is damaged (%s).", step, _reason(error)
                )
                continue
            return tf.nest.pack_sequence_as(tensors, [variable.read_value() for variable in stored])
        if steps:
            raise UserError(
                f"No checkpoint in {self._folder} can be read; remove that folder to start the run afresh."
            )
        return None

    def _check_shapes(self, reader, stored, step):
        """Raises a `UserError` unless the nest of a whole checkpoint is like the one of this run."""
        shapes = reader.get_variable_to_shape_map()
        for i, leaf in enumerate(stored):
            found = shapes.get(f"tensors/{i}/.ATTRIBUTES/VARIABLE_VALUE")
            if found is not None and list(found) != leaf.shape.as_list():
                raise UserError(
                    f"The checkpoint of meta-step {step} in {self._folder} is for another number of tasks, or of replicas with "
                    f"tasks_per_replica: shape {found} where this run has {leaf.shape.as_list()}. Give what it was, or "
                    f"another --run_dir."
                )


def _flush(path):
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error):
    text = str(getattr(error, "message", None) or error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
