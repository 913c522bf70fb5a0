"""One method on one data set under the protocol, and the rows of results.json that come of it."""

import time

import numpy as np
from threadpoolctl import threadpool_limits

from meta_rules.errors import UserError
from meta_rules.evaluation.parallel import on_all_cores
from meta_rules.evaluation.probes import PROBES, probe_accuracy

#: What every row of results.json has; `error` is None, or why there are no figures.
COLUMNS = (
    "method", "dataset", "shots", "probe", "features", "inner_steps", "accuracy_mean", "accuracy_sem", "trials", "seconds",
    "unlabelled", "error",
)  # fmt: skip


# On matrices as small as these, threads that wait for one another cost far more than they bring.
@threadpool_limits.wrap(limits=1)
def compare(method, data, probes=tuple(PROBES)):
    """Judges a method.

    Args:
      method: a `Method`.
      data: a `ProtocolData`.
      probes: names of `PROBES`.

    Returns:
      JSON-ready dict: `seconds`, wall time of learning and of features a draw, whatever was compiled included; `unlabelled`,
      examples learned from; `scores`, list of dicts of `shots`, `probe` ("own" for what `predict` says), `inner_steps`,
      `features` and `accuracies`, one a draw.
    """
    protocol = data.protocol
    scores, pending, seconds, unlabelled = {}, [], 0.0, 0
    together = method.together(data.draw(0))
    for start in range(0, protocol.draws, together):
        draws = [data.draw(i) for i in range(start, min(start + together, protocol.draws))]
        unlabelled = method.unlabelled_used(draws[0])
        queries = [data.query(draw) for draw in draws]
        fitted, support = None, {}
        for shots in protocol.shots:
            support[shots] = [data.labelled(draw, shots) for draw in draws]
            if fitted is None or method.needs_labels:
                began = time.perf_counter()
                fitted = method.fit_draws(draws, support[shots] if method.needs_labels else None)
                seconds += time.perf_counter() - began
            for draw, query, labelled, models in zip(draws, queries, support[shots], fitted, strict=True):
                for steps, model in models.items():
                    if hasattr(model, "predict"):
                        features = getattr(model, "features", query.examples.shape[1])
                        entry = scores.setdefault((shots, "own", steps, features), [])
                        entry.append(_accuracy(model, query))
                    else:
                        parts = [
                            (np.asarray(model.transform(part.examples)), part.labels)
                            for part in (labelled, draw.validation, query)
                        ]
                        pending.append(((shots, steps, parts[0][0].shape[1]), parts))
    found = on_all_cores(_probed, ((probes, parts) for _, parts in pending))
    for ((shots, steps, features), _), accuracies in zip(pending, found, strict=True):
        for probe, accuracy in zip(probes, accuracies, strict=True):
            scores.setdefault((shots, probe, steps, features), []).append(accuracy)
    return {
        "seconds": seconds / protocol.draws,
        "unlabelled": unlabelled,
        "scores": [
            dict(zip(("shots", "probe", "inner_steps", "features"), key, strict=True), accuracies=accuracies)
            for key, accuracies in scores.items()
        ],
    }


def _accuracy(model, query):
    # Examples that no label reaches on a graph have no distribution over the classes.
    with np.errstate(invalid="ignore"):
        found = model.predict(query.examples)
    return float(np.mean(found == query.labels))


def _probed(probes, parts):
    """Accuracy of every probe on the same features; see `probe_accuracy`."""
    return [probe_accuracy(probe, *parts) for probe in probes]


def rows(method_name, dataset, content):
    """Rows, dicts of `COLUMNS` and `accuracies`, of what `compare` gives."""
    found = []
    for score in content["scores"]:
        values = np.asarray(score["accuracies"])
        # A single draw says nothing about its error.
        error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
        found.append(
            {
                "method": method_name,
                "dataset": dataset,
                **{name: score[name] for name in ("shots", "probe", "features", "inner_steps")},
                "accuracy_mean": float(values.mean()),
                "accuracy_sem": error,
                "trials": len(values),
                "seconds": content["seconds"],
                "unlabelled": content["unlabelled"],
                "error": None,
                "accuracies": score["accuracies"],
            }
        )
    return found


def error_row(method_name, dataset, error):
    """The row of a method that failed."""
    words = " ".join(str(error).split())[:300]
    message = words if isinstance(error, UserError) else f"{type(error).__name__}: {words}"
    return dict.fromkeys(COLUMNS) | {"method": method_name, "dataset": dataset, "trials": 0, "error": message}
