"""An evaluation in a directory: the cells it is made of, how they resume, and what it leaves behind."""

import dataclasses
import os
import time
from typing import NamedTuple

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from meta_rules import configuration, saved_rules
from meta_rules.configuration import configurable
from meta_rules.errors import UserError

# Those that nothing here names are imported so that the registry knows their methods.
from meta_rules.evaluation import (  # noqa: F401
    autoencoders,
    baselines,
    comparison,
    labelled_rules,
    methods,
    report,
    supervised,
    views,
)
from meta_rules.evaluation.cells import Cells
from meta_rules.evaluation.curves import Curves
from meta_rules.evaluation.labelled_rules import SemiSupervised
from meta_rules.evaluation.protocol import Protocol, ProtocolData
from meta_rules.evaluation.rule_methods import RuleMethod, hand_designed

METHODS = (
    "learned", "untrained", "raw", "pca", "kmeans", "random", "autoencoder", "vae", "hand_designed", "label_propagation",
    "label_spreading", "supervised",
)  # fmt: skip


class Job(NamedTuple):
    """A cell to be computed.

    Attributes:
      kind: "comparison", "curve", "view" or "sweep".
      title: for people.
      dataset: name of the source.
      protocol: `Protocol`.
      method: name of the method, as in `Evaluation.methods`.
      settings: JSON-ready, what the content depends on besides data, protocol and method.
      make: function without arguments -> `Method`.
      compute: function of the method and `ProtocolData` -> JSON-ready content.
      sweep: for sweeps, its number and the value of its setting.
    """

    kind: str
    title: str
    dataset: str
    protocol: Protocol
    method: str
    settings: object
    make: object
    compute: object
    sweep: tuple | None = None


class Outcome(NamedTuple):
    """A job and what came of it: content, or an error."""

    job: Job
    content: dict | None
    error: Exception | None = None


@configurable
class Evaluation:
    """Judges a rule against what one would use instead, on one or more data sets.

    The directory then holds results.json (rows with the columns of `comparison.COLUMNS`), report.html, report.md, plots/,
    config.gin, TensorBoard events, and cells/: what is finished, so that an interrupted evaluation goes on where it stopped.

    Args:
      rule: name or path of a rule (see `saved_rules.resolve`).
      datasets: names of sources.
      output: the directory.
      protocol: a `Protocol`; gin's if None.
      methods: what is compared: names of the registry of methods (with `:argument` where they take one), besides "learned"
        (the rule), "untrained" (its network) and "hand_designed" (every hand-designed rule); empty for no comparison.
      probes: names of `meta_rules.evaluation.probes.PROBES`.
      curves: a `Curves`; True for one with gin's bindings, False for none.
      view: whether to show receptive fields and a map of the features.
      sweeps: list of `Sweep`.
      shown_shots: the number of labels a class that the plot of the order of methods is for.
      others: names or paths of further rules to compare: each is the method `rule:NAME`, or `semi_supervised:NAME` if it is
        told labels.

    A rule under judgement that is told labels is compared only: it has no untrained features, curve or views.

    Raises:
      UserError: no such rule, method or probe.
    """

    def __init__(
        self,
        rule: str,
        datasets: tuple,
        output: str,
        protocol=None,
        methods: tuple = METHODS,
        probes: tuple = ("ridge", "logistic", "knn"),
        curves=True,
        view: bool = True,
        sweeps: tuple = (),
        shown_shots: int = 10,
        others: tuple = (),
    ):
        self.rule_name, self.rule = rule, saved_rules.resolve(rule)
        self.datasets, self.output, self.sweeps = tuple(datasets), output, tuple(sweeps)
        self.protocol = protocol or configuration.build(Protocol)
        self.probes, self.view, self.shown_shots = tuple(probes), view, shown_shots
        unknown = set(self.probes) - set(comparison.PROBES)
        if unknown:
            raise UserError(f"Unknown probe {min(unknown)!r}; known: {', '.join(comparison.PROBES)}.")
        self.methods = self._expanded([*methods, *map(_method_of, others)])
        self.curves = configuration.build(Curves) if curves is True else curves or None
        if self.curves:
            self.curves = self.curves.settled(rule)
        if self.rule.needs_labels:
            self.curves, self.view = None, False
        self.console = Console()
        self._data, self._made = {}, {}

    def run(self):
        """Computes what is not there yet, and writes the report.

        Returns:
          The rows of results.json, or None when interrupted.

        Raises:
          UserError: another process works in the directory; a method, probe or setting is not known.
        """
        os.makedirs(self.output, exist_ok=True)
        try:
            with FileLock(os.path.join(self.output, ".lock"), timeout=0):
                return self._run()
        except Timeout as error:
            raise UserError(
                f"Another process is at work in {self.output}; wait, or give another --output."
            ) from error

    def _run(self):
        jobs, began = self._jobs(), time.monotonic()
        cells, outcomes = Cells(os.path.join(self.output, "cells")), []
        try:
            with self._progress() as progress:
                bar = progress.add_task("", total=len(jobs), now="")
                for number, job in enumerate(jobs, start=1):
                    progress.update(bar, now=job.title)
                    outcomes.append(self._outcome(cells, job))
                    progress.advance(bar)
                    self._log(progress.console, number, len(jobs), outcomes[-1])
        except KeyboardInterrupt:
            self.console.print(
                f"Stopped; {len(outcomes)} of {len(jobs)} cells are kept in {self.output}; the same command goes on."
            )
            return None
        rows = report.write(self, outcomes, time.monotonic() - began)
        self.console.print(
            f"Wrote {os.path.join(self.output, 'report.html')}", highlight=False, soft_wrap=True
        )
        return rows

    def _progress(self):
        return Progress(
            TextColumn("cell"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[now]}"),
            console=self.console,
        )  # fmt: skip

    def _log(self, console, number, total, outcome):
        if outcome.error is not None:
            error = comparison.error_row("", "", outcome.error)["error"]
            console.print(
                f"{outcome.job.title} failed: {error}", highlight=False, markup=False, soft_wrap=True
            )
        elif not console.is_terminal:
            # Without a terminal the bar is drawn only at the end; a log wants lines.
            console.print(f"{number}/{total} {outcome.job.title}", highlight=False, soft_wrap=True)

    def _outcome(self, cells, job):
        # Whatever is wrong with one method or one data set, the others go on.
        try:
            data = self._load(job.protocol, job.dataset)
            method = job.make()
            key = {
                "kind": job.kind, "dataset": job.dataset, "origin": data.origin, "method": job.method,
                "protocol": dataclasses.asdict(job.protocol), "description": method.description(), "settings": job.settings,
            }  # fmt: skip
            content = cells.read(job.title, key)
            if content is None:
                content = job.compute(method, data)
                cells.write(job.title, key, content)
            return Outcome(job, content)
        except Exception as error:
            return Outcome(job, None, error)

    def _load(self, protocol, dataset):
        if (protocol, dataset) not in self._data:
            # The last one only: sweeps go through many.
            self._data = {(protocol, dataset): ProtocolData(protocol, dataset)}
        return self._data[protocol, dataset]

    def _expanded(self, names):
        found = []
        for name in names:
            found += [f"rule:{rule}" for rule in hand_designed()] if name == "hand_designed" else [name]
        for name in found:
            # All are looked up before the first one runs: a misspelt name must not cost an hour.
            if name not in ("learned", "untrained") and name.partition(":")[0] not in methods.REGISTRY:
                known = ", ".join(sorted({"learned", "untrained", "hand_designed", *methods.REGISTRY}))
                raise UserError(f"Unknown method {name!r}; known: {known}.")
        return tuple(name for name in found if name != "untrained" or not self.rule.needs_labels)

    def _method(self, name, applications=None):
        """The method of a name, made once for every number of applications: compiled programs are kept."""
        if (name, applications) not in self._made:
            arguments = {"applications": (applications,)} if applications else {}
            if name == "untrained":
                arguments = {"applications": (0,)}
            kind, _, rule_name = name.partition(":")
            if name == "learned" and self.rule.needs_labels:
                made = configuration.build(SemiSupervised, self.rule_name, **arguments)
            elif name in ("learned", "untrained"):
                made = configuration.build(RuleMethod, self.rule, **arguments)
            elif kind == "rule":
                made = configuration.build(RuleMethod, rule_name, **arguments)
            else:
                made = methods.make(name)
            self._made[name, applications] = made
        return self._made[name, applications]

    def _jobs(self):
        jobs = []
        probes = list(self.probes)
        for dataset in self.datasets:
            for name in self.methods:
                jobs.append(
                    self._comparison("comparison", f"{dataset}: {name}", dataset, self.protocol, name, probes)
                )
            for name in self._expanded(self.curves.methods) if self.curves else ():
                jobs.append(
                    Job(
                        "curve", f"{dataset}: curve of {name}", dataset, self.protocol, name, self.curves.description(),
                        lambda name=name: self._method(name), self.curves.compute,
                    )
                )  # fmt: skip
            if self.view:
                make = lambda: self._method("learned")  # noqa: E731
                jobs.append(
                    Job(
                        "view",
                        f"{dataset}: views",
                        dataset,
                        self.protocol,
                        "learned",
                        None,
                        make,
                        views.compute,
                    )
                )
        for number, sweep in enumerate(self.sweeps):
            for value, dataset, protocol in sweep.points(self.protocol, self.datasets):
                for name in self._expanded(sweep.methods):
                    title = f"{dataset}: {sweep.vary} {value}, {name}"
                    job = self._comparison(
                        "sweep", title, dataset, protocol, name, ["ridge"], sweep.applications
                    )
                    jobs.append(job._replace(sweep=(number, value)))
        return jobs

    def _comparison(self, kind, title, dataset, protocol, name, probes, applications=None):
        return Job(
            kind, title, dataset, protocol, name, {"probes": probes}, lambda: self._method(name, applications),
            lambda method, data: comparison.compare(method, data, probes),
        )  # fmt: skip


def _method_of(rule):
    """The method of a further rule; one that cannot be had is a method too, which fails and says why."""
    try:
        told = saved_rules.resolve(rule).needs_labels
    except UserError:
        told = False
    return f"{'semi_supervised' if told else 'rule'}:{rule}"
