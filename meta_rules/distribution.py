"""tf.distribute strategies by name, and pools of slots spread over replicas."""

import json
import os

import tensorflow as tf

from meta_rules.configuration import configurable
from meta_rules.errors import UserError

STRATEGIES = ("auto", "default", "mirrored", "multi_worker", "tpu")


@configurable
class Distribution:
    """What the tasks of a run are spread over: devices of one process, of several processes, or TPUs.

    Args:
      strategy: `default` is one device; `mirrored` all GPUs, or all logical CPU devices; `multi_worker` reads TF_CONFIG; `tpu`
        asks the cluster resolver; `auto` takes TPUs, then several GPUs, then one device.
      tpu: name of the TPU, or `local`.
      cpu_devices: logical devices to divide the processor into, for `mirrored` without GPUs; must come before TensorFlow
        uses a device.

    Raises:
      UserError: no such strategy, or logical devices that are not for it.
    """

    def __init__(self, strategy: str = "auto", tpu: str = "local", cpu_devices: int | None = None):
        if strategy not in STRATEGIES:
            raise UserError(f"Unknown strategy {strategy!r}; known: {', '.join(STRATEGIES)}.")
        if cpu_devices is not None and (strategy != "mirrored" or cpu_devices < 1):
            raise UserError("Logical CPU devices must be at least 1, and are for --strategy=mirrored.")
        self._name, self._tpu, self._cpu_devices = strategy, tpu, cpu_devices

    def make(self):
        """The `tf.distribute` strategy.

        Raises:
          UserError: this machine does not have the hardware for it, or TF_CONFIG does not describe a cluster.
        """
        name = self._name
        if name == "auto":
            kinds = [device.device_type for device in accelerators()]
            name = "tpu" if "TPU" in kinds else "mirrored" if len(kinds) > 1 else "default"
        makers = {
            "default": tf.distribute.get_strategy,
            "mirrored": self._mirrored,
            "multi_worker": self._multi_worker,
            "tpu": self._on_tpu,
        }
        return makers[name]()

    def _mirrored(self):
        if self._cpu_devices is not None:
            cpu, *_ = tf.config.list_physical_devices("CPU")
            logical = [tf.config.LogicalDeviceConfiguration()] * self._cpu_devices
            try:
                tf.config.set_logical_device_configuration(cpu, logical)
            except RuntimeError as error:
                raise UserError(
                    "Logical CPU devices must be set up before TensorFlow uses a device; start a new process."
                ) from error
        gpus = tf.config.list_logical_devices("GPU")
        devices = gpus or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])

    def _multi_worker(self):
        _check_cluster(os.environ.get("TF_CONFIG", ""))
        return tf.distribute.MultiWorkerMirroredStrategy()

    def _on_tpu(self):
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver(self._tpu)
            tf.config.experimental_connect_to_cluster(resolver)
            tf.tpu.experimental.initialize_tpu_system(resolver)
        except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
            raise UserError(
                f"No TPU {self._tpu!r} here ({str(error).splitlines()[0]}); use --strategy=default."
            ) from error
        return tf.distribute.TPUStrategy(resolver)


def accelerators():
    """The GPUs and TPUs of this process."""
    return [device for kind in ("GPU", "TPU") for device in tf.config.list_physical_devices(kind)]


def strategy(name="auto", tpu="local", cpu_devices=None):
    """The strategy of that name; arguments and errors as of `Distribution`."""
    return Distribution(name, tpu, cpu_devices).make()


def _check_cluster(text):
    """Raises a `UserError` unless a TF_CONFIG text describes a cluster and this process's place in it."""
    advice = 'it must read like {"cluster": {"worker": ["host0:port", "host1:port"]}, "task": {"type": "worker", "index": 0}}'
    try:
        described = json.loads(text)
        addresses = described["cluster"][described["task"]["type"]]
        addresses[int(described["task"]["index"])]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        what = "is not set" if not text else "does not describe a cluster and this process's task in it"
        raise UserError(f"--strategy=multi_worker: TF_CONFIG {what}; {advice}.") from error


def gather(strategy, nest):
    """A nest of per-replica tensors `[local tasks, ...]` as one nest of tensors `[tasks, ...]`, of all workers.

    With several workers all of them must call it, with the same nest.
    """
    if strategy.num_replicas_in_sync == 1:
        return nest

    def whole(leaf):
        local = strategy.experimental_local_results(leaf)
        if len(local) < strategy.num_replicas_in_sync:
            return strategy.gather(leaf, axis=0)
        return tf.concat(local, 0)

    return tf.nest.map_structure(whole, nest)


def scatter(strategy, nest):
    """The inverse of `gather`: each replica gets its share of the leading axis, counted over all workers.

    Raises:
      UserError: the tasks do not divide by the replicas.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return nest

    def share(leaf):
        if leaf.shape[0] % replicas:
            raise UserError(
                f"{leaf.shape[0]} tasks do not divide by {replicas} replicas; change MetaTrainer.tasks."
            )
        each = leaf.shape[0] // replicas
        return strategy.experimental_distribute_values_from_function(
            lambda context: leaf[
                context.replica_id_in_sync_group * each : (context.replica_id_in_sync_group + 1) * each
            ]
        )

    return tf.nest.map_structure(share, nest)
