"""What a method is to the evaluation, and the registry of methods.

A method learns from the unlabelled examples of a draw (and, if it says so, from its labelled ones) and gives models in the
manner of scikit-learn: one with `transform(examples [n, inputs]) -> features [n, features]` is scored by the probes, one with
`predict(examples) -> labels [n]` is scored as it is (its attribute `features`, if it has one, is what results say it uses; the
inputs otherwise).

To add a method: a subclass of `Method` with `fit`, decorated with `@register("name")` and `@configurable`, in a module that
`evaluation_run.py` imports (see `baselines.py`). A name with a colon, `name:argument`, is built with the argument.
"""

from meta_rules import configuration
from meta_rules.errors import UserError
from meta_rules.evaluation.parallel import on_all_cores

REGISTRY = {}


def register(name):
    """Class decorator: makes a method known by that name in `Evaluation.methods`."""

    def add(cls):
        if name in REGISTRY:
            raise ValueError(f"Two methods are registered as {name!r}.")
        cls.method_name = name
        REGISTRY[name] = cls
        return cls

    return add


class Method:
    """Base class of methods.

    Attributes:
      method_name: what it is called in results, with its argument if it has one.
      needs_labels: whether `fit` gets labelled examples; it is then called for every number of shots.
      apart: whether every draw may be fitted in a process of its own; for methods of one thread whose models are picklable.
    """

    method_name = None
    needs_labels = False
    apart = False

    def together(self, draw):
        """How many draws like this one `fit_draws` likes to have at once."""
        return 20 if self.apart else 1

    def fit(self, draw, labelled=None):
        """Learns from one draw.

        Args:
          draw: a `Draw`; `draw.validation` is for hyperparameters only.
          labelled: `Labelled` if `needs_labels`.

        Returns:
          Dict of number of learning steps (0 for methods without) -> model; a model for every stage that is to be scored.
        """
        raise NotImplementedError

    def fit_draws(self, draws, labelled=None):
        """`fit` of several draws: lists in, a list out."""
        calls = zip(draws, labelled or [None] * len(draws), strict=True)
        return on_all_cores(self.fit, calls) if self.apart else [self.fit(*call) for call in calls]

    def unlabelled_used(self, draw):
        """How many unlabelled examples it learns from in a draw: all by default."""
        return len(draw.unlabelled)

    def description(self):
        """JSON-ready settings that change its results."""
        return {}


def make(name):
    """The method of a name `kind` or `kind:argument`, with gin's bindings.

    Raises:
      UserError: no such method, or a wrong argument.
    """
    kind, _, argument = name.partition(":")
    if kind not in REGISTRY:
        raise UserError(f"Unknown method {name!r}; known: {', '.join(sorted(REGISTRY))}.")
    try:
        method = configuration.build(REGISTRY[kind], *([argument] if argument else []))
    except TypeError as error:
        raise UserError(f"Method {name!r}: {error}") from error
    method.method_name = name
    return method
