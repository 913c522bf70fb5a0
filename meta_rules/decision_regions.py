"""Pictures of a network that learns to classify points of the plane: its decision regions on the way."""

import io
import os

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from PIL import Image

from meta_rules.saved_rules import write_atomically
from meta_rules.semi_supervised_learning import LOGIT_SCALE
from meta_rules.summaries import pixels

#: Colours of the classes.
COLOURS = np.array([[0.85, 0.37, 0.01], [0.12, 0.47, 0.71], [0.2, 0.63, 0.17], [0.6, 0.31, 0.64]])
#: Ages (in rule applications) that the animation and the strip show.
AGES = (*range(11), *range(15, 65, 5), *range(80, 220, 20))
STRIP = (1, 5, 15, 50, 200)
#: Points a side of the grid that regions are drawn from.
GRID = 80


def film(trial, theta, ages=AGES, draw=0):
    """One draw of a trial, among its first, at increasing ages.

    Args:
      trial: a `SemiSupervisedTrial` on a family of points.
      theta: dict of name -> array, the meta-parameters.
      ages: rule applications, increasing.
      draw: which cloud.

    Returns:
      A list of `(trajectory, accuracy)`, the task axis being one.
    """
    life, done, frames = trial.fresh(0), 0, []
    for age in ages:
        life, accuracy = trial.train(theta, life, age - done)
        done = age
        one = tf.nest.map_structure(lambda leaf: leaf[draw : draw + 1], life)
        frames.append((one, float(accuracy[draw])))
    return frames


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
    age = int(trajectory.age[index])
    times = "application" if age == 1 else "applications"
    axis.set_title(f"{age} {times}\naccuracy {accuracy:.3f}", fontsize=10)


def strip(problem, frames, title="", index=0):
    """Figure of one cloud at several ages, side by side; `frames` as `film` gives them."""
    figure = Figure(figsize=(2.6 * len(frames), 3.4), layout="constrained")
    axes = figure.subplots(1, len(frames), squeeze=False)[0]
    for axis, (life, accuracy) in zip(axes, frames, strict=True):
        draw_region(axis, problem, life, accuracy, index)
    figure.suptitle(title, fontsize=11)
    return figure


def animation(problem, frames, milliseconds=250):
    """An animated GIF of one cloud growing older, in bytes; the last picture stays for three seconds."""
    pictures = []
    for life, accuracy in frames:
        figure = Figure(figsize=(3.4, 3.8), layout="constrained")
        draw_region(figure.subplots(), problem, life, accuracy)
        pictures.append(Image.fromarray(pixels(figure)[..., :3].copy()))
    palette = _palette(pictures)
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    durations = [milliseconds] * (len(pictures) - 1) + [3000]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True
    )
    return buffer.getvalue()


def _palette(pictures):
    """One picture whose colours serve all: a few labelled points would have none of their own among so much background."""
    width, height = pictures[0].size
    chosen = pictures[:: max(1, len(pictures) // 8)]
    sheet = Image.new("RGB", (width * (len(chosen) + 1), height), "white")
    for place, picture in enumerate(chosen, start=1):
        sheet.paste(picture, (place * width, 0))
    stripe = width // (len(COLOURS) + 1)
    for number, colour in enumerate((COLOURS * 255).round().astype(int)):
        sheet.paste(tuple(map(int, colour)), (number * stripe, 0, (number + 1) * stripe, height))
    return sheet.quantize(128, dither=Image.Dither.NONE)


def save(trial, theta, summaries, step, folder):
    """Writes a strip and an animation of draw 0 into TensorBoard and as decision_regions.png and .gif into a folder.

    Args:
      trial, theta: see `film`.
      summaries: `RunSummaries`.
      step: meta-step to file them under.
      folder: where the two files go.
    """
    frames = film(trial, theta)
    chosen = [frame for frame in frames if int(frame[0].age[0]) in STRIP]
    figure = strip(trial.problem, chosen)
    summaries.image(step, "decision_regions/strip", figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=90)
    moving = animation(trial.problem, frames)
    summaries.animation(step, "decision_regions/animation", moving)
    write_atomically(os.path.join(folder, "decision_regions.png"), picture.getvalue())
    write_atomically(os.path.join(folder, "decision_regions.gif"), moving)
