"""What TensorBoard shows of a run: scalars, the configuration, and pictures of what a base network has learned."""

import io

import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.plugins.image import metadata as image_metadata

#: Upper ends of the ages (in rule applications) that accuracy is reported for separately.
AGE_BINS = (30, 100, 300, 1000, 3000)


class RunSummaries:
    """Writes the events of one run.

    Args:
      folder: where TensorBoard looks; None writes nothing.
      configuration: the gin text in force.
    """

    def __init__(self, folder, configuration):
        self._writer = tf.summary.create_file_writer(folder) if folder else tf.summary.create_noop_writer()
        with self._writer.as_default(step=0):
            indented = "\n".join(f"    {line}" for line in configuration.splitlines())
            tf.summary.text("configuration", indented)

    def scalars(self, step, values):
        """Writes a dict of name -> number at a meta-step."""
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def image(self, step, name, figure):
        """Writes a matplotlib figure at a meta-step."""
        with self._writer.as_default(step=step):
            tf.summary.image(name, pixels(figure)[None])

    def animation(self, step, name, gif):
        """Writes an animated GIF, given in bytes, at a meta-step; TensorBoard's image page plays it."""
        # `tf.summary.image` would make a PNG of it; its own format is the size and the encoded picture.
        width, height = (str(side).encode() for side in Image.open(io.BytesIO(gif)).size)
        metadata = image_metadata.create_summary_metadata(
            display_name=None, description=None, converted_to_tensor=True
        )
        with self._writer.as_default(step=step):
            tf.summary.write(name, tf.constant([width, height, gif]), metadata=metadata)

    def flush(self):
        """Makes what was written visible."""
        self._writer.flush()

    def close(self):
        """Ends the event file."""
        self._writer.close()


def meta_step_scalars(metrics):
    """Means over the tasks of a meta-step, as a dict of scalar name -> number.

    Args:
      metrics: dict of name -> `[tasks]`, as an estimator gives it.
    """
    used = metrics["used"] > 0
    values = {"meta/fraction_reset": float(np.mean(~used))}
    for name in metrics.keys() - {"age", "used"}:
        if used.any():
            values[f"meta/{name}"] = float(metrics[name][used].mean())
    low = 0
    for high in (*AGE_BINS, np.inf):
        there = used & (metrics["age"] > low) & (metrics["age"] <= high)
        label = f"{low + 1}-{high}" if np.isfinite(high) else f"{low + 1}+"
        for name in ("loss", "accuracy"):
            if there.any() and name in metrics:
                values[f"by_age/{name}_{label}"] = float(metrics[name][there].mean())
        low = high
    return values


def receptive_fields(kernel, permutation, shape, count=36, title=""):
    """Figure of the first layer's receptive fields, put back into pixel order.

    Args:
      kernel: `[inputs, units]`.
      permutation: `[inputs]`; row j belongs to pixel `permutation[j]`.
      shape: `(height, width, channels)` of a picture.
      count: how many units are drawn.
    """
    fields = np.zeros_like(kernel)
    fields[permutation] = kernel
    columns = int(np.ceil(min(count, kernel.shape[1]) ** 0.5))
    figure = Figure(figsize=(6, 6.3), layout="constrained")
    axes = figure.subplots(columns, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for unit in range(min(count, kernel.shape[1])):
        field = fields[:, unit].reshape(shape).mean(axis=-1)
        limit = np.abs(field).max() + 1e-12
        axes[unit].imshow(field, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    figure.suptitle(title)
    return figure


def class_features(features, labels, class_names, title=""):
    """Figure of the mean feature of every class, a row each, centred and scaled a feature.

    Args:
      features: `[examples, features]`.
      labels: `[examples]`, integers.
      class_names: one a class.
    """
    classes = np.unique(labels)
    means = np.stack([features[labels == c].mean(axis=0) for c in classes])
    means = (means - means.mean(axis=0)) / (means.std(axis=0) + 1e-6)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(means, cmap="RdBu_r", vmin=-2.5, vmax=2.5, aspect="auto", interpolation="nearest")
    axis.set_yticks(range(len(classes)), [class_names[c] for c in classes])
    axis.set_xlabel("feature")
    axis.set_ylabel("class")
    figure.colorbar(image, label="mean activity, standardised")
    figure.suptitle(title)
    return figure


def pixels(figure):
    """A matplotlib figure as uint8 `[height, width, 4]`."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.dpi": 100}):
        figure.savefig(buffer, format="rgba")
    width, height = (int(round(side * 100)) for side in figure.get_size_inches())
    return np.frombuffer(buffer.getvalue(), np.uint8).reshape(height, width, 4)
