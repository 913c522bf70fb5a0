"""What a rule did to a network, for the eye: receptive fields before and after, and its features in two dimensions."""

import numpy as np
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from meta_rules.evaluation.rule_methods import one

#: Units whose receptive fields are kept, and examples a class in the two-dimensional view.
UNITS, EXAMPLES = 36, 40


@threadpool_limits.wrap(limits=1)
def compute(method, data):
    """The views of draw 0.

    Args:
      method: a `RuleMethod`; its last number of applications is what "after" means.
      data: a `ProtocolData`.

    Returns:
      JSON-ready dict: `applications`; `before` and `after`, first-layer weights `[pixels][units]` in the order of pixels, None
      unless the data are pictures; `shape`; `points`, dict of "inputs", "untrained" and "learned" -> `[examples][2]` (t-SNE);
      `labels`; `class_names`.
    """
    applications = method.applications[-1]
    # As many networks side by side as the comparison trains: nothing is compiled again.
    draw = data.draw(0)
    draws = [draw, *(data.draw(i) for i in range(1, method.together(draw)))]
    query = data.query(draw)
    kept = np.concatenate([np.flatnonzero(query.labels == c)[:EXAMPLES] for c in range(draw.classes)])
    states = dict(method.states(draws, (0, applications)))
    views = {"inputs": query.examples[kept]}
    kernels = {}
    for name, steps in (("untrained", 0), ("learned", applications)):
        state = one(states[steps], 0)
        views[name] = method.features(draw, state).transform(query.examples[kept])
        kernel = state.kernels[0][0].numpy()
        in_order = np.empty_like(kernel)
        in_order[draw.permutation] = kernel
        kernels[name] = in_order[:, :UNITS]
    pictures = len(data.shape) == 3
    return {
        "applications": applications,
        "before": _numbers(kernels["untrained"]) if pictures else None,
        "after": _numbers(kernels["learned"]) if pictures else None,
        "shape": list(data.shape),
        "points": {name: _numbers(_flat(values, draw.seed)) for name, values in views.items()},
        "labels": query.labels[kept].tolist(),
        "class_names": list(data.class_names),
    }


def _flat(values, seed):
    perplexity = min(30, (len(values) - 1) // 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed % 2**31).fit_transform(values)


def _numbers(values):
    return np.round(np.asarray(values, float), 4).tolist()
