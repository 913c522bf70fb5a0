"""Made-up signs written by hand: each class is a few random strokes, each example a writing of them.

Where glyphs are many exact characters in a few fonts, these are few strokes with much freedom: the way handwriting varies
(after the programs of strokes of Lake et al., "Human-level concept learning through probabilistic program induction",
Science 2015). No sign is a character of any script on purpose, so a rule meta-trained on them has seen no digit.
"""

import functools

import numpy as np
from PIL import Image, ImageDraw

from meta_rules.tasks.sources.base import Content, Option, SourceInfo, number, register, whole
from meta_rules.tasks.sources.drawn import EXAMPLES, Drawn, generator

#: Control points of a stroke, points of its curve, and pixels drawn for one that is kept.
_CONTROLS, _POINTS, _OVERSAMPLING = 5, 24, 4


@register("strokes")
class Strokes(Drawn):
    """Pictures of made-up signs, light on dark, drawn at the size asked for (28 without one).

    A class is one to three smooth curves. An example moves their control points, then turns, slants, stretches and places the
    whole and chooses the pen; its centre of mass lies in the middle.
    """

    options = {
        "examples": EXAMPLES,
        "classes": Option(100, whole(2), "signs"),
        "wobble": Option(0.09, number(0.0, 1.0), "deviation of the control points, of the sign's size"),
        "rotation": Option(10.0, number(0.0, 180.0), "deviation of the rotation, degrees"),
        "slant": Option(0.2, number(0.0), "deviation of the slant"),
        "pen": Option(0.1, number(0.01, 0.5), "mean width of the pen, of the side"),
    }

    def info(self):
        """See `Source`."""
        classes = self.option["classes"]
        origin = "drawn: made-up signs of one to three strokes, written with a wobbling hand"
        return SourceInfo(self.name, (28, 28, 1), classes, self.sizes(classes), origin)

    def read(self, stored, size, colour, seed):
        """See `Source`."""
        classes = self.option["classes"]
        signs = [_sign(world) for world in generator(seed, self.kind, "classes").spawn(classes)]
        draws = generator(seed, self.kind, stored)
        labels = self.labels(stored, classes)
        side = size or 28
        pictures = np.empty((len(labels), side, side, 1), np.uint8)
        for i, label in enumerate(labels):
            pictures[i, :, :, 0] = self._written(signs[label], side, draws)
        names = tuple(f"sign{index}" for index in range(classes))
        return Content(np.repeat(pictures, 3, axis=-1) if colour else pictures, labels, names)

    def _written(self, sign, side, draws):
        """One example `[side, side]` of a sign `[strokes, controls, 2]`."""
        option = self.option
        moved = sign + option["wobble"] * draws.normal(size=sign.shape)
        # A stroke moves as a whole too.
        moved += 0.5 * option["wobble"] * draws.normal(size=(len(sign), 1, 2))
        curves = np.einsum("pc,scd->spd", _spline(), moved)
        angle = np.deg2rad(option["rotation"]) * draws.normal()
        slant = option["slant"] * draws.normal()
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        stretch = np.exp(0.12 * draws.normal(size=2))
        curves = curves @ turn.T @ np.array([[1.0, 0.0], [slant, 1.0]]) * stretch
        # As tall or wide as 0.7 of the picture, as handwritten digits are cut; then centred.
        extent = max(np.ptp(curves.reshape(-1, 2), axis=0).max(), 0.3)
        wide = side * _OVERSAMPLING
        curves *= 0.68 * wide / extent
        curves += wide / 2 - curves.reshape(-1, 2).mean(axis=0)
        image = Image.new("L", (wide, wide))
        pen = ImageDraw.Draw(image)
        width = max(1, round(wide * option["pen"] * np.exp(0.25 * draws.normal())))
        for curve in curves:
            pen.line([tuple(point) for point in curve], fill=255, width=width, joint="curve")
            for x, y in (curve[0], curve[-1]):
                pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
        return np.asarray(image.reduce(_OVERSAMPLING))


def _sign(world):
    """Control points `[strokes, controls, 2]` of a new sign in a square of side 1: smooth walks with a steady turn."""
    strokes = world.choice([1, 2, 3], p=[0.45, 0.4, 0.15])
    sign = np.empty((strokes, _CONTROLS, 2))
    for stroke in sign:
        heading = world.uniform(0, 2 * np.pi)
        # Straight lines, arcs and near circles, in one sense or the other; sometimes with a change of it.
        turn = world.choice([0.0, 0.5, 1.0, 1.5]) * world.choice([-1, 1])
        flip = world.choice([1, -1], p=[0.7, 0.3])
        length = world.uniform(0.25, 0.5)
        stroke[0] = world.uniform(0.15, 0.85, size=2)
        for index in range(1, _CONTROLS):
            stroke[index] = stroke[index - 1] + length * np.array([np.cos(heading), np.sin(heading)])
            heading += (turn if index < _CONTROLS // 2 else flip * turn) + 0.3 * world.normal()
        stroke += (world.uniform(0.35, 0.65, size=2) - stroke.mean(axis=0)) * 0.8
    return sign


@functools.cache
def _spline():
    """Matrix `[points, controls]` of a Catmull-Rom curve through its control points."""
    matrix = np.zeros((_POINTS, _CONTROLS))
    for row, place in enumerate(np.linspace(0, _CONTROLS - 1 - 1e-9, _POINTS)):
        first, t = int(place), place - int(place)
        weights = 0.5 * np.array(
            [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3]
        )
        for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
            matrix[row, np.clip(first + offset, 0, _CONTROLS - 1)] += weight
    return matrix
