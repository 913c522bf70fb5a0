"""Pictures of a network that learns to classify points of the plane: its decision regions on the way."""

import io

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from PIL import Image

from meta_rules.semi_supervised_learning import LOGIT_SCALE
from meta_rules.summaries import pixels

#: Colours of the classes.
COLOURS = np.array([[0.85, 0.37, 0.01], [0.12, 0.47, 0.71], [0.2, 0.63, 0.17], [0.6, 0.31, 0.64]])
#: Points a side of the grid that regions are drawn from.
GRID = 80


def region(problem, trajectory, index=0):
    """What the network in one slot answers over the plane.

    Returns:
      `(probabilities [GRID, GRID, classes], extent)`, rows from the bottom up; batch statistics are those of the cloud.
    """
    life = tf.nest.map_structure(lambda leaf: leaf[index : index + 1], trajectory)
    family, task = problem.family, life.task
    points = task.points[0].numpy()
    centre, reach = points.mean(axis=0), 1.15 * np.abs(points - points.mean(axis=0)).max()
    x, y = (np.linspace(c - reach, c + reach, GRID, dtype=np.float32) for c in centre)
    plane = np.stack(np.meshgrid(x, y), axis=-1).reshape(1, -1, 2)
    statistics = problem.network.statistics(life.state, family.encode(task, task.points))
    inputs = family.encode(task, tf.constant(plane))
    top = problem.network.activities(life.state, inputs, statistics).pre[-1]
    probabilities = tf.nn.softmax(LOGIT_SCALE * top)[0].numpy()
    return probabilities.reshape(GRID, GRID, -1), (x[0], x[-1], y[0], y[-1])


def draw_region(axis, problem, trajectory, accuracy, index=0):
    """Draws one cloud on an axis: regions in pale colours, points, labelled points large and ringed."""
    probabilities, extent = region(problem, trajectory, index)
    colours = COLOURS[: probabilities.shape[-1]]
    pale = 1.0 - 0.55 * (1.0 - probabilities @ colours)
    axis.imshow(np.clip(pale, 0.0, 1.0), origin="lower", extent=extent, interpolation="bilinear")
    points, known = trajectory.task.points[index].numpy(), trajectory.task.known[index].numpy() > 0
    labels = trajectory.task.labels[index].numpy().argmax(-1)
    axis.scatter(*points[~known].T, s=7, color="0.25", linewidths=0)
    axis.scatter(
        *points[known].T, s=90, c=colours[labels[known]], edgecolors="black", linewidths=1.6, zorder=3
    )
    axis.set(xticks=[], yticks=[], xlim=extent[:2], ylim=extent[2:])
    axis.set_title(f"{int(trajectory.age[index])} applications\naccuracy {accuracy:.3f}", fontsize=10)


def strip(problem, trajectories, accuracies, title="", index=0):
    """Figure of the same cloud at several ages, side by side."""
    figure = Figure(figsize=(2.6 * len(trajectories), 3.4), layout="constrained")
    axes = figure.subplots(1, len(trajectories), squeeze=False)[0]
    for axis, life, accuracy in zip(axes, trajectories, accuracies, strict=True):
        draw_region(axis, problem, life, accuracy, index)
    figure.suptitle(title, fontsize=11)
    return figure


def animation(problem, trajectories, accuracies, index=0, milliseconds=160):
    """The same as an animated GIF, in bytes; the last picture stays for two seconds."""
    pictures = []
    for life, accuracy in zip(trajectories, accuracies, strict=True):
        figure = Figure(figsize=(3.4, 3.8), layout="constrained")
        draw_region(figure.subplots(), problem, life, accuracy, index)
        picture = Image.fromarray(pixels(figure)[..., :3])
        pictures.append(picture.quantize(64, dither=Image.Dither.NONE))
    durations = [milliseconds] * (len(pictures) - 1) + [2000]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True
    )
    return buffer.getvalue()
