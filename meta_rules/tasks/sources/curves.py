"""Curves that are made up, as measured over a day or around an outline."""

import numpy as np

from meta_rules.tasks.sources.base import Content, Option, SourceInfo, number, register, whole
from meta_rules.tasks.sources.drawn import EXAMPLES, Drawn, generator


@register("curves")
class Curves(Drawn):
    """Each class is a sum of waves; its examples run through it early or late, are bent in time, vary in shape, and are noisy.

    Features `[examples, length]` are the values at equal steps; every curve has mean 0 and deviation 1. The seed draws other
    classes.
    """

    options = {
        "examples": EXAMPLES,
        "classes": Option(40, whole(2), "classes"),
        "length": Option(64, whole(4), "values of a curve"),
        "waves": Option(6, whole(1), "waves of a class, of 1 to so many cycles"),
        "variation": Option(
            0.5, number(0.0), "deviation of a wave within a class, where that between classes is 1"
        ),
        "shift": Option(0.02, number(0.0, 0.5), "deviation of the start, of the curve's length"),
        "noise": Option(0.2, number(0.0), "deviation of the noise, where that of the curve is about 1"),
    }

    def info(self):
        """See `Source`."""
        classes = self.option["classes"]
        origin = "drawn: sums of waves, shifted, bent and noisy"
        return SourceInfo(self.name, (self.option["length"],), classes, self.sizes(classes), origin)

    def read(self, stored, size, colour, seed):
        """See `Source`."""
        classes, length, waves = (self.option[key] for key in ("classes", "length", "waves"))
        cycles = np.arange(1, waves + 1)
        world = generator(seed, self.kind, "classes")
        typical = world.normal(size=(classes, 2, waves))

        draws = generator(seed, self.kind, stored)
        labels = self.labels(stored, classes)
        weight = typical[labels] + self.option["variation"] * draws.normal(size=(len(labels), 2, waves))
        weight /= cycles**0.5
        place = np.arange(length) / length
        bend = (
            0.02
            * draws.normal(size=(len(labels), 1))
            * np.sin(2 * np.pi * (place + draws.uniform(size=(len(labels), 1))))
        )
        time = place + bend + self.option["shift"] * draws.normal(size=(len(labels), 1))
        values = np.zeros((len(labels), length))
        for wave, cycle in enumerate(cycles):
            values += weight[:, :1, wave] * np.sin(2 * np.pi * cycle * time)
            values += weight[:, 1:, wave] * np.cos(2 * np.pi * cycle * time)
        values += self.option["noise"] * draws.normal(size=values.shape)
        values -= values.mean(axis=1, keepdims=True)
        values /= np.sqrt(np.mean(np.square(values), axis=1, keepdims=True) + 1e-6)
        return Content(values.astype(np.float32), labels, tuple(f"curve{index}" for index in range(classes)))
