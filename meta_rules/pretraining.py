"""Training the Dense layers of a user's own Keras model in place, without labels."""

import warnings

import keras
import numpy as np

from meta_rules.errors import UserError
from meta_rules.keras_models import ACTIVATIONS, input_map
from meta_rules.learner import RuleLearner
from meta_rules.scaling_choice import suitable

#: Layers that are left out of account between Dense layers: at inference they do nothing.
_NOISE = (
    keras.layers.Dropout,
    keras.layers.GaussianNoise,
    keras.layers.GaussianDropout,
    keras.layers.ActivityRegularization,
)
_NAMES = {"silu": "swish"} | {theirs: ours for ours, theirs in ACTIVATIONS.items()}


class _Block:
    """A Dense layer with what belongs to it."""

    def __init__(self, dense):
        self.dense, self.norm = dense, None
        self.activation = _activation(dense)


def pretrain(model, X, layers=None, **settings):
    """Trains the Dense layers of a sequential Keras model in place with a learned rule, on rows without labels.

    The layers trained are the Dense layers from the input up that share one activation; the first with another (a softmax or
    logits head) and all above it stay as they are. A `BatchNormalization` behind a Dense layer gets the statistics of
    `X`; where there is none it is folded into kernel and bias. Layers before the first Dense layer (Flatten, Rescaling,
    Normalization ...) are applied to `X` first. The learned weights start from a fresh network of the rule's. The scaling of
    the inputs is folded into the first layer; that of counts, which is not linear, cannot be.

    Args:
      model: a `keras.Sequential`, built or not.
      X: inputs of the model, `[rows, ...]`.
      layers: how many Dense layers to train; None takes all that share the first one's activation.
      **settings: of `RuleLearner`, such as `rule`, `steps`, `random_state`.

    Returns:
      The model.

    Raises:
      UserError: a model that is not sequential, or whose layers cannot hold what the rule learns, or `scaling="counts"`.
      ValueError: rows that nothing can be learned from; see `RuleLearner.fit`. The model is then as it was.
    """
    if not isinstance(model, keras.Sequential):
        raise UserError(f"pretrain needs a keras.Sequential, got {type(model).__name__}.")
    for name in ("layer_sizes", "activation"):
        if name in settings:
            raise UserError(f"pretrain takes {name} from the model; leave it out.")
    X = np.asarray(X)
    if not model.built:
        model.build((None, *X.shape[1:]))
    before, blocks = _blocks(model, layers)
    if before:
        rows = keras.Sequential([keras.Input(X.shape[1:]), *before]).predict(X, verbose=0)
    else:
        rows = X
    scaling = _foldable(settings.pop("scaling", "auto"), rows)
    learner = RuleLearner(
        tuple(block.dense.units for block in blocks),
        activation=blocks[0].activation,
        scaling=scaling,
        **settings,
    ).fit(rows)
    _, mean, deviation, mixing = input_map(learner)
    for number, block in enumerate(blocks, start=1):
        part = {
            name: learner.learned_[f"{name}_{number}"].astype(np.float64)
            for name in ("kernel", "bias", "mean", "variance")
        }
        _write(block, part, mean, deviation, mixing, learner.network_["epsilon"])
        mean, deviation, mixing = 0.0, 1.0, None
    return model


def _foldable(scaling, rows):
    """The scaling to learn with, "auto" made up: one that the first Dense layer can hold.

    Raises:
      UserError: another is asked for.
    """
    if scaling == "counts":
        raise UserError(
            "No Dense layer can hold scaling='counts'. Squash the counts in layers of the model before them, such as a "
            "Rescaling and an Activation('softsign'), and take another scaling."
        )
    if scaling != "auto":
        return scaling
    suited = suitable(rows)
    if suited != "counts":
        return suited
    warnings.warn(
        "The rows look like counts, which a RuleLearner would squash and no Dense layer can. Squash them in layers of the "
        "model before, such as a Rescaling and an Activation('softsign'), or features may be far worse than could be; "
        "scaling='range' says that the rows are as they should be.",
        stacklevel=3,
    )
    return "range"


def _activation(layer):
    name = keras.activations.serialize(layer.activation)
    return _NAMES.get(name) if isinstance(name, str) else None


def _blocks(model, layers):
    """The layers before the first Dense one, and the `_Block`s to train.

    Raises:
      UserError: see `pretrain`.
    """
    before, blocks = [], []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            blocks.append(_Block(layer))
        elif not blocks:
            before.append(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            blocks[-1].norm = layer
            if blocks[-1].activation != "linear":
                raise UserError(
                    f"Layer {layer.name!r} normalises behind the activation of {blocks[-1].dense.name!r}; put the "
                    "activation into a layer of its own behind the normalisation."
                )
        elif isinstance(layer, keras.layers.Activation | keras.layers.ReLU):
            blocks[-1].activation = (
                _activation(layer) if isinstance(layer, keras.layers.Activation) else "relu"
            )
        elif not isinstance(layer, _NOISE):
            # What is above an unknown layer cannot be trained with what is below.
            break
    wanted = 0
    while wanted < len(blocks) and blocks[wanted].activation == blocks[0].activation:
        wanted += 1
    if not blocks or blocks[0].activation is None:
        raise UserError(
            f"pretrain needs a first Dense layer with one of the activations {', '.join(sorted(ACTIVATIONS))}."
        )
    if layers is not None and not 1 <= layers <= wanted:
        raise UserError(f"layers must be from 1 to {wanted} for this model, got {layers!r}.")
    blocks = blocks[: layers or wanted]
    for block in blocks:
        if block.norm is None and not block.dense.use_bias:
            raise UserError(
                f"Layer {block.dense.name!r} has neither a bias nor a normalisation behind it; give it use_bias=True."
            )
        if block.norm is not None and not block.norm.center:
            raise UserError(f"Layer {block.norm.name!r} has center=False and cannot hold what is learned.")
    return before, blocks


def _write(block, part, mean, deviation, mixing, epsilon):
    """Sets the layers of a block so that they compute `bn(((x - mean) / deviation) mixing W) + b`; None mixes nothing."""
    kernel = part["kernel"] if mixing is None else mixing @ part["kernel"]
    kernel = kernel / np.reshape(deviation, [-1, 1])
    # What the kernel makes of the mean of its inputs comes off the current.
    shift = part["mean"] + np.broadcast_to(mean, len(kernel)) @ kernel
    scale = np.sqrt(part["variance"] + epsilon)
    dense, norm = block.dense, block.norm
    bias = part["bias"] - shift / scale if norm is None else np.zeros(dense.units)
    if norm is None:
        kernel = kernel / scale
    else:
        values = {"beta": part["bias"], "moving_mean": shift, "moving_variance": part["variance"]}
        if norm.scale:
            values["gamma"] = np.sqrt(part["variance"] + norm.epsilon) / scale
        else:
            # The two epsilons differ; the currents are scaled so that the variance makes up for it.
            factor = np.sqrt((part["variance"] + norm.epsilon) / (part["variance"] + epsilon))
            kernel, values["moving_mean"] = kernel * factor, shift * factor
        for name, value in values.items():
            getattr(norm, name).assign(value)
    dense.set_weights([kernel, bias] if dense.use_bias else [kernel])
