"""Tables of measurements that are made up: few columns, each with a scale and a shape of its own."""

import numpy as np

from meta_rules.tasks.sources.base import Content, Option, SourceInfo, number, register, whole
from meta_rules.tasks.sources.drawn import EXAMPLES, Drawn, generator

#: What a column does to the number behind it: nothing, skews it, saturates, counts levels, is zero unless it is large.
WARPS = (
    lambda value: value,
    np.exp,
    np.tanh,
    np.rint,
    lambda value: np.maximum(value - 1, 0),
)


@register("tables")
class Tables(Drawn):
    """Rows of a table: a class is a few clouds in a hidden space, a column a bent and noisy view of one direction of it.

    Features `[examples, features]` have mean 0 and deviation 1 over all classes. The seed draws other columns and classes.
    """

    options = {
        "examples": EXAMPLES,
        "classes": Option(40, whole(2), "classes"),
        "features": Option(20, whole(2), "columns"),
        "clouds": Option(2, whole(1), "clouds a class"),
        "hidden": Option(6, whole(1), "dimensions of the hidden space"),
        "spread": Option(
            3.0, number(0.0), "deviation of the clouds' centres, where a cloud's own is about 1"
        ),
    }

    def info(self):
        """See `Source`."""
        classes = self.option["classes"]
        origin = "drawn: clouds in a hidden space, seen through bent columns"
        return SourceInfo(self.name, (self.option["features"],), classes, self.sizes(classes), origin)

    def read(self, stored, size, colour, seed):
        """See `Source`."""
        classes, clouds, hidden, columns = (
            self.option[key] for key in ("classes", "clouds", "hidden", "features")
        )
        world = generator(seed, self.kind, "classes")
        shapes = (
            world.normal(size=(classes * clouds, hidden)) * self.option["spread"],
            # Random scales along random directions: clouds are long in some and flat in others.
            world.normal(size=(classes * clouds, hidden, hidden))
            * np.exp(0.7 * world.normal(size=(classes * clouds, 1, hidden))),
            world.normal(size=(hidden, columns)) / np.sqrt(hidden * (1 + self.option["spread"] ** 2)),
            np.exp(0.7 * world.normal(size=columns) - 1.2),
            world.integers(len(WARPS), size=columns),
        )
        # What standardises the columns is the same for all splits.
        usual = self._rows(generator(seed, self.kind, "columns"), np.arange(classes).repeat(64), shapes)
        labels = self.labels(stored, classes)
        drawn = self._rows(generator(seed, self.kind, stored), labels, shapes)
        drawn = (drawn - usual.mean(axis=0)) / (usual.std(axis=0) + 1e-3)
        return Content(drawn.astype(np.float32), labels, tuple(f"kind{index}" for index in range(classes)))

    def _rows(self, draws, labels, shapes):
        centres, turns, mixing, noise, warps = shapes
        clouds, hidden = self.option["clouds"], self.option["hidden"]
        cloud = labels * clouds + draws.integers(clouds, size=len(labels))
        own = draws.normal(size=(len(labels), hidden)) / np.sqrt(hidden)
        points = centres[cloud]
        for which in range(len(centres)):
            rows = np.flatnonzero(cloud == which)
            points[rows] += own[rows] @ turns[which]
        values = points @ mixing + noise * draws.normal(size=(len(labels), mixing.shape[1]))
        for column, warp in enumerate(warps):
            values[:, column] = WARPS[warp](np.clip(2 * values[:, column], -6, 6))
        return values
