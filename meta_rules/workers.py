"""What the processes of one run tell each other outside of the meta-step: who writes, when to stop, what was restored.

Every worker of a multi-worker strategy runs the same program. The chief alone reads and writes the run directory; the others
learn from it what was in there, so they need not see its disk. All methods of `Workers` are calls that every
worker must make, in the same order.
"""

import io
import json

import numpy as np
import tensorflow as tf

from meta_rules.errors import UserError


class Workers:
    """The processes that share a strategy.

    Args:
      strategy: a `tf.distribute` strategy; all but `MultiWorkerMirroredStrategy` have one process.

    Attributes:
      chief: whether this process writes what the run leaves behind.
      several: whether there are others.
    """

    def __init__(self, strategy):
        self._strategy = strategy
        resolver = strategy.cluster_resolver
        multi_worker = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        jobs = resolver.cluster_spec().as_dict() if multi_worker else {}
        self.several = sum(len(addresses) for addresses in jobs.values()) > 1
        self.chief = not self.several or (
            resolver.task_type == "chief" or (resolver.task_id == 0 and "chief" not in jobs)
        )

    def any(self, flag):
        """Whether `flag` is true in any worker."""
        if not self.several:
            return bool(flag)
        return bool(self._sum(np.full([1], bool(flag), np.int32))[0])

    def of_chief(self, work):
        """What `work()` gives the chief, in every worker; the others do not call it.

        Args:
          work: function without arguments that returns a dict of name -> array.

        Raises:
          UserError: the chief's, in every worker.
        """
        if not self.several:
            return work()
        content, failure = b"", None
        if self.chief:
            try:
                content = _packed(work())
            except (UserError, OSError) as error:
                # The others must not wait for a chief that is gone.
                failure = error
                content = _packed({_FAILURE: np.frombuffer(json.dumps(str(error)).encode(), np.uint8)})
        found = _unpacked(self._broadcast(content))
        if failure is not None:
            raise failure
        if _FAILURE in found:
            raise UserError(json.loads(found[_FAILURE].tobytes()))
        return found

    def _broadcast(self, content):
        """The chief's bytes, everywhere: a sum to which only the chief adds anything."""
        (size,) = self._sum(np.array([len(content)], np.int32))
        words = np.zeros(-(-size // 4), np.int32)
        if self.chief:
            words[:] = np.frombuffer(content.ljust(4 * len(words), b"\0"), np.int32)
        return self._sum(words).tobytes()[:size]

    def _sum(self, words):
        """The sum over workers of an int32 vector."""

        def share(context):
            # A worker with several replicas counts once.
            first = context.replica_id_in_sync_group % self._replicas_here == 0
            return tf.constant(words if first else np.zeros_like(words))

        values = self._strategy.experimental_distribute_values_from_function(share)
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None).numpy()

    @property
    def _replicas_here(self):
        return len(self._strategy.extended.worker_devices)


_FAILURE = "failure of the chief"


def _packed(arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _unpacked(content):
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
