"""Features from unlabelled rows, by a network that a learned rule trains: a scikit-learn transformer."""

import json
import numbers
import os
import warnings

import numpy as np
import tensorflow as tf
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import DataDimensionalityWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from meta_rules import learning, saved_rules
from meta_rules.column_scaling import SCALERS
from meta_rules.networks import ACTIVATIONS, BaseNetwork
from meta_rules.progress import LateProgress
from meta_rules.rules.base import UpdateRule
from meta_rules.scaling_choice import suitable

FLOATS = (np.float64, np.float32)
#: Rows that the scaling and the statistics of the batch normalisation are taken from, and that the settling is measured on.
REMEMBERED, WATCHED = 8192, 512
#: Checks in a row without a new low of the features' change after which they have settled, and what is new: below that share.
CALM, NEW_LOW = 3, 0.95
#: Rows that `transform` takes at once.
CHUNK = 4096
#: Units of a layer above which a mistake is likelier than a wish.
MOST_UNITS = 100_000


class RuleLearner(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Learns features of unlabelled rows with a network that an update rule trains.

    There is no loss and no label: the rule is applied to batch after batch, and the top layer's activities are the
    features; of the pretrained rule, and others with `length_kept` below 1, rows keep their length in part only.
    Batch normalisation is frozen to the statistics of the training rows, so that every row is transformed by itself.

    Args:
      layer_sizes: units of the layers above the input; the last is the number of features.
      rule: `"pretrained"` or another shipped rule, the path of a saved one, a registered name (which is not
        meta-trained), or an `UpdateRule`; see `meta_rules.saved_rules.resolve`.
      activation: of every layer, but for rules that leave the top one linear, as the pretrained one does; a name in
        `meta_rules.networks.ACTIVATIONS`.
      steps: rule applications of `fit` at most.
      batch_size: rows an application, drawn with replacement.
      scaling: how columns are brought to a common scale first. `"auto"`: one of the next three, by the looks of the first
        rows (`meta_rules.scaling_choice.suitable`). `"range"`: by the range of each, outliers aside; columns that seem to
        share a unit, such as pixels, share one range (`RangeScaler`). `"counts"`: squashed, so that what is there at all
        counts most (`CountScaler`). `"part-white"`: to variance 1, and then principal components half way to one variance
        (`PartWhiteScaler`); for tables whose columns mostly go together, where it may help much, or cost much. `"standard"`:
        each to mean 0 and variance 1; not for pixels and counts, of which some hardly vary. None: columns stay as they are;
        pictures with values from 0 to 1 and tables of variance 1 suit the pretrained rule. docs/evaluation.md has figures.
      tol: `fit` stops early when the features have settled: when between two checks they change by less than this, or when
        for `CALM` checks the change has not fallen any further (a rule's steps need not vanish: features then keep
        wandering about). Change is 1 - linear centred kernel alignment of the features of the same rows (Kornblith et
        al., ICML 2019, section 3), 0 if they are the same up to rotation and scale. None never stops early.
      check_every: applications between checks.
      random_state: of first weights and batches: None, an integer or a `numpy.random.RandomState`.
      verbose: True shows progress, False does not, None only when it takes long.

    Attributes:
      learned_: the network, a dict of arrays: `kernel_l [in, units]`, `bias_l [units]` of layer l from 1, `mean_l` and
        `variance_l [units]` of its batch normalisation; of the inputs for l = 0.
      scaling_: what `scaling` is, or "auto" came to.
      scaler_: the fitted scaler of `meta_rules.column_scaling.SCALERS`, None without `scaling`.
      n_iter_: applications so far.
      settled_: whether `fit` stopped because the features had settled.
      n_features_in_, feature_names_in_: as in all of scikit-learn.
    """

    def __init__(
        self,
        layer_sizes=(128, 32),
        *,
        rule="pretrained",
        activation="relu",
        steps=1000,
        batch_size=256,
        scaling="auto",
        tol=1e-4,
        check_every=50,
        random_state=None,
        verbose=None,
    ):
        self.layer_sizes = layer_sizes
        self.rule = rule
        self.activation = activation
        self.steps = steps
        self.batch_size = batch_size
        self.scaling = scaling
        self.tol = tol
        self.check_every = check_every
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None):
        """Trains a fresh network.

        Args:
          X: `[rows, columns]`, at least two rows.
          y: ignored.

        Returns:
          The learner.

        Raises:
          ValueError: `X` or a parameter is unfit; a `UserError`, which is one, for an unfit rule.
        """
        self._check_parameters()
        X = validate_data(self, X, dtype=FLOATS, ensure_min_samples=2)
        if np.all(X == X[:1]):
            raise ValueError("All rows of X are the same: there is nothing to learn from them.")
        if self._hidden[-1] > len(X):
            warnings.warn(
                f"The number of features asked for is higher than the number of samples: layer_sizes ends in "
                f"{self._hidden[-1]}, X has {len(X)} samples.",
                DataDimensionalityWarning,
                stacklevel=2,
            )
        self._begin(X)
        self._see(X)
        self._train(X, self.steps, watch=self.tol is not None)
        return self

    def partial_fit(self, X, y=None):
        """Goes on training with the next rows of a stream: one application for every `batch_size` of them, at least one.

        Scaling and normalisation follow a random sample of all rows so far; which scaling `"auto"` takes, the first call's rows
        decide.

        Args:
          X: `[rows, columns]`, at least two rows.
          y: ignored.

        Returns:
          The learner.

        Raises:
          ValueError: see `fit`.
        """
        self._check_parameters()
        first = not hasattr(self, "learned_")
        X = validate_data(self, X, dtype=FLOATS, ensure_min_samples=2, reset=first)
        if first:
            self._begin(X)
        self._see(X)
        self._train(X, -(-len(X) // self.batch_size), watch=False)
        return self

    def transform(self, X):
        """Features `[rows, layer_sizes[-1]]` of `X [rows, columns]`, in its precision; one row may be given.

        Raises:
          ValueError: `X` is not like the rows of `fit`.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=FLOATS, reset=False)
        # In double precision, so that a row's features do not depend on what it is transformed together with.
        learned = {name: value.astype(np.float64) for name, value in self.learned_.items()}
        network = BaseNetwork((1, *self._fitted["hidden"]), **self._fitted["network"])
        parts = [
            learning.features(network, learned, self._scaled(X[i : i + CHUNK])).numpy()
            for i in range(0, len(X), CHUNK)
        ]
        return np.concatenate(parts).astype(X.dtype, copy=False)

    def to_keras(self):
        """The trained network as a `keras.Model` of stock layers: `[batch, columns] -> [batch, layer_sizes[-1]]`.

        Raises:
          ValueError: the activation is not one of Keras's.
        """
        from meta_rules.keras_models import stock_model

        check_is_fitted(self)
        return stock_model(self)

    @property
    def network_(self):
        """How the network computes, a dict: the arguments of `BaseNetwork` but its sizes."""
        check_is_fitted(self)
        return dict(self._fitted["network"])

    @property
    def _n_features_out(self):
        return self._fitted["hidden"][-1]

    @property
    def _hidden(self):
        sizes = self.layer_sizes
        return tuple(sizes) if isinstance(sizes, tuple | list | np.ndarray) else (sizes,)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _check_parameters(self):
        def whole(value, least):
            return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least

        sizes = self._hidden
        if not sizes or not all(whole(size, 1) and size <= MOST_UNITS for size in sizes):
            raise ValueError(
                f"layer_sizes must hold at least one whole number from 1 to {MOST_UNITS}, got {self.layer_sizes!r}."
            )
        for name, least in (("steps", 1), ("batch_size", 2), ("check_every", 1)):
            if not whole(getattr(self, name), least):
                raise ValueError(
                    f"{name} must be a whole number of at least {least}, got {getattr(self, name)!r}."
                )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(sorted(ACTIVATIONS))}, got {self.activation!r}."
            )
        if self.scaling not in ("auto", *SCALERS):
            known = ", ".join(repr(name) for name in SCALERS)
            raise ValueError(f"scaling must be one of 'auto', {known}, got {self.scaling!r}.")
        if self.tol is not None and not (isinstance(self.tol, numbers.Real) and self.tol >= 0):
            raise ValueError(f"tol must be a number not below 0, or None, got {self.tol!r}.")
        if not isinstance(self.rule, str | os.PathLike | UpdateRule):
            raise ValueError(f"rule must be a name, a path or an UpdateRule, got {self.rule!r}.")

    def _begin(self, X):
        """A fresh network, nothing seen, and the scaling that suits the first rows: the network grows up with it."""
        rule = self.rule if isinstance(self.rule, UpdateRule) else saved_rules.resolve(self.rule)
        network = rule.network((1, *self._hidden), self.activation)
        self._fitted = {
            "rule": rule.rule_name,
            "config": json.dumps(rule.rule_config(), sort_keys=True),
            "theta": {name: value.numpy() for name, value in rule.theta().items()},
            "hidden": tuple(int(size) for size in self._hidden),
            "batch_size": int(self.batch_size),
            "seed": int(check_random_state(self.random_state).randint(2**31 - 1)),
            "network": {
                "activation": self.activation,
                "epsilon": network.epsilon,
                "standardise_inputs": network.standardise_inputs,
                "linear_top": network.linear_top,
                "length_kept": network.length_kept,
            },
        }
        self.n_iter_, self.settled_, self._seen = 0, False, 0
        self.scaling_ = suitable(X) if self.scaling == "auto" else self.scaling
        scaler = SCALERS[self.scaling_]
        self.scaler_ = None if scaler is None else scaler()
        self._remembered = np.zeros((0, X.shape[1]), np.float32)
        self._state = _numpy(self._program().start(self._key(), tf.constant(X.shape[1])))

    def _program(self):
        fitted = self._fitted
        activation = fitted["network"]["activation"]
        return learning.compiled(
            fitted["rule"], fitted["config"], fitted["hidden"], activation, fitted["batch_size"]
        )

    def _key(self):
        return self._program().learning.key(self._fitted["seed"])

    def _see(self, X):
        """Takes some of the rows (all alike) into the sample that the scaling and the statistics are taken from."""
        random = np.random.default_rng([self._fitted["seed"], self._seen])
        room = REMEMBERED - len(self._remembered)
        # Algorithm R (Vitter 1985): row n takes the place of one of those kept with probability REMEMBERED / n.
        rest = X[room:]
        places = random.integers(0, self._seen + min(room, len(X)) + np.arange(1, len(rest) + 1))
        self._remembered = np.concatenate([self._remembered, X[:room]])
        for row in np.flatnonzero(places < REMEMBERED):
            self._remembered[places[row]] = rest[row]
        self._seen += len(X)
        if self.scaler_ is not None:
            self.scaler_.fit(self._remembered)

    def _scaled(self, X):
        X = np.asarray(X, np.float64)
        return X if self.scaler_ is None else self.scaler_.transform(X)

    def _train(self, X, steps, watch):
        program, key = self._program(), self._key()
        rows = tf.constant(self._scaled(X), tf.float32)
        theta = {name: tf.constant(value) for name, value in self._fitted["theta"].items()}
        state = tf.nest.map_structure(tf.constant, self._state)
        watched = rows[:: max(1, len(X) // WATCHED)][:WATCHED] if watch else None
        settling, done, text = Settling(self.tol), 0, ""
        with LateProgress(steps, "rule applications", self.verbose) as progress:
            while done < steps and not settling.settled:
                part = min(self.check_every, steps - done)
                state = program.advance(theta, state, rows, key, tf.constant(self.n_iter_), tf.constant(part))
                done += part
                self.n_iter_ += part
                if watch and settling.look(program.now(state, watched).numpy()):
                    text = f"features change by {settling.change:.4f}"
                progress.update(done, text)
        self.settled_ = settling.settled
        remembered = tf.constant(self._scaled(self._remembered), tf.float32)
        learned = _numpy(program.learned(state, remembered))
        if not all(np.isfinite(value).all() for value in learned.values()):
            raise ValueError(
                f"The rule {self.rule!r} has driven the network to numbers that are not finite after {self.n_iter_} steps; "
                "take fewer steps or another rule."
            )
        self._state, self.learned_ = _numpy(state), learned


class Settling:
    """Whether features that are looked at again and again have settled; see `tol` of `RuleLearner`."""

    def __init__(self, tol):
        self._tol, self._before, self._calm, self._low = tol, None, 0, np.inf
        self.change, self.settled = None, False

    def look(self, features):
        """Takes in the features `[rows, units]` of the same rows as last time; whether there was a last time."""
        before, self._before = self._before, features
        if before is None:
            return False
        self.change = 1.0 - alignment(before, features)
        self._calm = 0 if self.change < NEW_LOW * self._low else self._calm + 1
        self._low = min(self._low, self.change)
        self.settled = self.change < self._tol or self._calm >= CALM
        return True


def alignment(first, second):
    """Linear centred kernel alignment of two sets of features `[rows, units]` of the same rows, from 0 to 1.

    Two sets that do not vary at all are the same: 1. Source: Kornblith et al., ICML 2019, section 3.
    """
    first, second = (
        np.asarray(x, np.float64) - np.mean(x, axis=0, dtype=np.float64) for x in (first, second)
    )
    size = np.linalg.norm(first.T @ first) * np.linalg.norm(second.T @ second)
    if size == 0.0:
        return float(not first.any() and not second.any())
    return float(np.square(np.linalg.norm(first.T @ second)) / size)


def _numpy(nest):
    return tf.nest.map_structure(lambda leaf: leaf.numpy(), nest)
