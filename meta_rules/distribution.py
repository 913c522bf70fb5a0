"""tf.distribute strategies by name, and pools of slots spread over replicas."""

import tensorflow as tf

from meta_rules.errors import UserError

STRATEGIES = ("auto", "default", "mirrored", "multi_worker", "tpu")


def strategy(name="auto", tpu="local", cpu_devices=None):
    """The strategy of that name.

    Args:
      name: `default` is one device; `mirrored` all GPUs, or all logical CPU devices; `multi_worker` reads TF_CONFIG; `tpu` asks
        the cluster resolver; `auto` takes TPUs, then several GPUs, then one device.
      tpu: name of the TPU, or `local`.
      cpu_devices: logical devices to divide the processor into, for `mirrored` without GPUs; must come before TensorFlow
        uses a device.

    Raises:
      UserError: no such strategy, or not the hardware for it.
    """
    if name not in STRATEGIES:
        raise UserError(f"Unknown strategy {name!r}; known: {', '.join(STRATEGIES)}.")
    if cpu_devices is not None:
        if name != "mirrored" or cpu_devices < 1:
            raise UserError("Logical CPU devices must be at least 1, and are for --strategy=mirrored.")
        cpu, *_ = tf.config.list_physical_devices("CPU")
        logical = [tf.config.LogicalDeviceConfiguration()] * cpu_devices
        tf.config.set_logical_device_configuration(cpu, logical)
    if name == "auto":
        gpus = tf.config.list_physical_devices("GPU")
        tpus = tf.config.list_physical_devices("TPU")
        name = "tpu" if tpus else "mirrored" if len(gpus) > 1 else "default"
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        gpus = tf.config.list_logical_devices("GPU")
        devices = gpus or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise UserError(
            f"No TPU {tpu!r} here ({str(error).splitlines()[0]}); use --strategy=default."
        ) from error
    return tf.distribute.TPUStrategy(resolver)


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
