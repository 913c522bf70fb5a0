"""Sweeps: one setting of the protocol is varied, everything else stays; how general is a rule?"""

import dataclasses

from meta_rules.configuration import configurable
from meta_rules.errors import UserError

#: What may be varied, and the axis label of its plot.
SETTINGS = {
    "width": "units of the hidden layers",
    "depth": "layers of weights",
    "activation": "nonlinearity",
    "batch_size": "examples a batch",
    "image_size": "side of the pictures, pixels",
    "permute": "inputs permuted",
    "unlabelled": "unlabelled examples",
    "features": "features",
    "dataset": "data set",
}


@configurable
class Sweep:
    """Methods judged at every value of one setting.

    Args:
      vary: a key of `SETTINGS`. "width" is that of all hidden layers below the features; "depth" the number of layers of
        weights, all but the last as wide as the protocol's first; the others are settings of the same name.
      values: what it takes.
      methods: as in `Evaluation.methods`.
      datasets: data sets to do it on; None for those of the command line.
      applications: rule applications of rules.
      protocol: dict of other settings of the protocol, as in `Protocol`.

    Raises:
      UserError: an unknown setting, no values, or values that the protocol refuses.
    """

    def __init__(
        self,
        vary: str,
        values: tuple,
        methods: tuple = ("learned", "untrained", "pca"),
        datasets: tuple | None = None,
        applications: int = 200,
        protocol: dict | None = None,
    ):
        if vary not in SETTINGS or not values:
            raise UserError(
                f"Sweep.vary must be one of {', '.join(SETTINGS)} with some values, got {vary!r}."
            )
        self.vary, self.values, self.methods = vary, tuple(values), tuple(methods)
        self.datasets, self.applications, self.protocol = datasets, applications, dict(protocol or {})

    @property
    def axis(self):
        """Label of the axis of values."""
        return SETTINGS[self.vary]

    def points(self, protocol, datasets):
        """Triples of value, data set and `Protocol`.

        Args:
          protocol: the `Protocol` that is varied.
          datasets: those of the command line.
        """
        try:
            base = dataclasses.replace(protocol, **self.protocol)
        except TypeError as error:
            raise UserError(f"Sweep.protocol: {error}") from error
        if self.vary == "dataset":
            return [(value, value, base) for value in self.values]
        return [
            (value, dataset, dataclasses.replace(base, **self._changes(base, value)))
            for dataset in self.datasets or datasets
            for value in self.values
        ]

    def _changes(self, base, value):
        if self.vary == "width":
            return {"hidden": (value,) * max(1, len(base.hidden) - 1) + base.hidden[-1:]}
        if self.vary == "depth":
            return {"hidden": (base.hidden[0],) * (value - 1) + base.hidden[-1:]}
        if self.vary == "features":
            return {"hidden": (*base.hidden[:-1], value)}
        return {self.vary: value}
