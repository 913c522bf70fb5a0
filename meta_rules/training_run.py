"""A meta-training run in a directory: what is shown, what is kept, how it resumes and what it leaves behind."""

import json
import os
import signal
import threading
import time

import numpy as np
import tensorflow as tf
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from meta_rules import configuration, distribution, saved_rules, stateless, summaries
from meta_rules.checkpoints import RunCheckpoints
from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.evaluation.few_shot import FewShotTrial, result_rows
from meta_rules.meta_trainer import MetaTrainer
from meta_rules.meta_validation import BestRule
from meta_rules.saved_model import export_saved_model
from meta_rules.version import __version__


class StopRequest:
    """Context in which Ctrl-C and SIGTERM ask for a stop after the current meta-step, instead of breaking it off."""

    def __init__(self):
        self.signal = None

    def __enter__(self):
        self._old = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _ask(self, number, _):
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


@configurable
class TrainingRun:
    """Runs a `MetaTrainer` in a directory and judges the rule at the end.

    The directory then holds config.gin, checkpoints/, TensorBoard events, rule/ (the learned rule), saved_model/ and
    results.json.

    Args:
      run_dir: the directory; an unfinished run of the same configuration in it is resumed.
      trainer: the `MetaTrainer`; gin's if None.
      validation: the `TaskFamily` of the meta-validation, of the validation split. The rule that is saved and judged is then
        the one that did best on it; None saves the running average at the end.
      validate_every: meta-steps between meta-validations.
      judge: the `TaskFamily` of the final judgement, of the test split; None skips it.
      judge_steps: rule applications after which the learned features are judged, increasing.
      draws: tasks in the judgement, each with its own permutation, network and labels.
      checkpoint_every, picture_every, summary_every: meta-steps between checkpoints, pictures and scalars.
      strategy: a `tf.distribute` strategy.

    Raises:
      UserError: the directory belongs to a run of another configuration, or another process runs in it.
    """

    def __init__(
        self,
        run_dir: str,
        trainer=None,
        validation=None,
        validate_every: int = 100,
        judge=None,
        judge_steps: tuple = (50, 300),
        draws: int = 20,
        checkpoint_every: int = 100,
        picture_every: int = 200,
        summary_every: int = 5,
        strategy=None,
    ):
        if trainer is None:
            # Gin makes the rule too, and a strategy's variables must be made in its scope.
            with (strategy or tf.distribute.get_strategy()).scope():
                trainer = configuration.build(MetaTrainer, strategy=strategy)
        self.trainer = trainer
        self.run_dir, self.judge = run_dir, judge
        self.judge_steps, self.draws = (0, *judge_steps), draws
        self.checkpoint_every, self.picture_every = checkpoint_every, picture_every
        self.summary_every, self.validate_every = summary_every, validate_every
        self.best = BestRule(trainer, validation) if validation is not None else None
        self.console = Console()

    def path(self, *parts):
        """A path in the run directory."""
        return os.path.join(self.run_dir, *parts)

    def run(self):
        """Trains, or goes on training, to the end or until asked to stop.

        Returns:
          The rows of results.json, or None when the run was stopped before its end.
        """
        os.makedirs(self.run_dir, exist_ok=True)
        try:
            with FileLock(self.path(".lock"), timeout=0):
                return self._run()
        except Timeout as error:
            raise UserError(
                f"Another process is at work in {self.run_dir}; wait for it, or give another --run_dir."
            ) from error

    def _run(self):
        self._claim_directory()
        trainer = self.trainer
        live = trainer.variables() | (self.best.variables() if self.best else {})
        checkpoints = RunCheckpoints(self.path("checkpoints"), live)
        pools = [distribution.gather(trainer.strategy, pool) for pool in trainer.pools]
        restored = checkpoints.restore(pools)
        if restored is not None:
            trainer.pools = [distribution.scatter(trainer.strategy, pool) for pool in restored]
            self.console.print(f"Resuming at meta-step {trainer.step}.")
        for origin in dict.fromkeys(origin for family in trainer.families for origin in family.origins):
            self.console.print(f"Meta-training on {origin}", highlight=False, soft_wrap=True)
        self.summaries = summaries.RunSummaries(self.run_dir, configuration.operative())
        with StopRequest() as stop, self._progress() as progress:
            bar = progress.add_task(
                "", total=trainer.meta_steps, completed=trainer.step, loss="-", accuracy="-", speed="-"
            )
            watch = _Speed()

            def on_step(step, metrics, scalars):
                self._show(progress, bar, step, metrics, watch.rate(scalars["task_steps"]))
                self._record(step, metrics, scalars, watch.last)
                if self.best and self._due(step, self.validate_every):
                    progress.update(bar, description="validating")
                    self.summaries.scalars(step, {"validation/accuracy": self.best.consider()})
                if self._due(step, self.checkpoint_every) or stop.signal:
                    checkpoints.save(step, [distribution.gather(trainer.strategy, p) for p in trainer.pools])
                    # So that a run that is killed leaves a rule to use.
                    self._save_rule()
                return bool(stop.signal)

            try:
                done = trainer.train(on_step)
            finally:
                # A run that ends in an error leaves what it learned too.
                self.summaries.flush()
                self._save_rule()
        if not done:
            self.console.print(
                f"Stopped at meta-step {trainer.step}, saved in {self.run_dir}; the same command goes on from there."
            )
            return None
        return self._finish()

    def _due(self, step, every):
        """Whether something that is done every so many meta-steps is due after the call that ended with `step`."""
        call = self.trainer.steps_per_call
        return step // every > (step - call) // every or step == self.trainer.meta_steps

    def _claim_directory(self):
        text = configuration.operative()
        file = self.path("config.gin")
        if os.path.exists(file):
            with open(file) as old:
                if old.read() != text and os.path.isdir(self.path("checkpoints")):
                    raise UserError(
                        f"{self.run_dir} holds a run of another configuration (see its config.gin); give another --run_dir."
                    )
        saved_rules.write_atomically(file, text.encode())

    def _progress(self):
        return Progress(
            TextColumn("meta-step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn(
                "loss {task.fields[loss]}  accuracy {task.fields[accuracy]}  {task.fields[speed]} task-steps/s"
            ),
            TimeRemainingColumn(),
            console=self.console,
            refresh_per_second=2,
        )

    def _show(self, progress, bar, step, metrics, rate):
        self._recent = getattr(self, "_recent", [])[-19:] + [summaries.meta_step_scalars(metrics)]
        means = {}
        for name in ("loss", "accuracy"):
            values = [row[f"meta/{name}"] for row in self._recent if f"meta/{name}" in row]
            means[name] = f"{np.mean(values):.3f}" if values else "-"
        progress.update(bar, completed=step, speed=f"{rate:.0f}", **means)
        first = step <= self.trainer.steps_per_call
        if not self.console.is_terminal and (first or self._due(step, 50)):
            # Without a terminal the bar is drawn only at the end; a log wants lines.
            progress.console.print(
                f"meta-step {step}/{self.trainer.meta_steps}  loss {means['loss']}  accuracy {means['accuracy']}  "
                f"{rate:.0f} task-steps/s",
                highlight=False,
            )

    def _record(self, step, metrics, scalars, rate):
        if self._due(step, self.summary_every) or step <= self.trainer.steps_per_call:
            values = summaries.meta_step_scalars(metrics)
            values |= {name: value for name, value in scalars.items() if name != "task_steps"}
            self.summaries.scalars(step, values | {"speed/task_steps_per_second": rate})
        if self._due(step, self.picture_every):
            self._pictures(step)

    def _pictures(self, step):
        """Receptive fields and features of the oldest network of the first pool."""
        shown = self.trainer.estimator.trajectory(self.trainer.pools[0])
        trajectory = distribution.gather(self.trainer.strategy, shown)
        family, problem = self.trainer.families[0], self.trainer.problems[0]
        ages = np.where(trajectory.horizon.numpy() > 0, trajectory.age.numpy(), -1)
        oldest = int(ages.argmax())
        age = int(ages[oldest])
        if len(family.shape) == 3:
            fields = summaries.receptive_fields(
                trajectory.state.kernels[0][oldest].numpy(),
                trajectory.task.permutation[oldest].numpy(),
                family.shape,
                title=f"Receptive fields, first layer, after {age} applications",
            )
            self.summaries.image(step, "receptive_fields", fields)
        one = tf.nest.map_structure(lambda leaf: leaf[oldest : oldest + 1], trajectory)
        shots = family.few_shot(one.task, stateless.fold(one.slot, "picture"))
        features = problem.network(one.state, tf.cast(shots.query, self.trainer.rule.dtype))[0].numpy()
        labels = np.argmax(shots.query_labels[0], axis=-1)
        names = [str(int(number)) for number in one.task.classes[0]]
        title = f"Mean features of the classes after {age} applications"
        self.summaries.image(step, "class_features", summaries.class_features(features, labels, names, title))

    def _save_rule(self):
        card = {
            "meta_steps": self.trainer.step,
            "version": __version__,
            "trained_on": sorted({origin for family in self.trainer.families for origin in family.origins}),
        }
        theta = self.trainer.theta()
        if self.best and self.best.known:
            theta = self.best.theta()
            card |= {"meta_step_of_best": self.best.step, "validation_accuracy": self.best.score}
        saved_rules.save_rule(self.path("rule"), self.trainer.rule, card, theta)

    def _finish(self):
        rule = saved_rules.load_rule(self.path("rule"))
        rows = []
        if self.judge is not None:
            family = self.judge
            self.console.print("Judging the rule on pictures and permutations it has never seen ...")
            export_saved_model(
                self.path("saved_model"), rule, family.hidden, family.activation, family.batch_size
            )
            trial = FewShotTrial(rule, family, seed=self.trainer.seed)
            rows = result_rows(trial.accuracies(rule.theta(), self.judge_steps, self.draws), family)
            for row in rows:
                self.summaries.scalars(
                    self.trainer.step, {f"test/{row['method']}_{row['inner_steps']}": row["accuracy_mean"]}
                )
        else:
            family = self.trainer.families[0]
            export_saved_model(
                self.path("saved_model"), rule, family.hidden, family.activation, family.batch_size
            )
        text = json.dumps(rows, indent=2) + "\n"
        saved_rules.write_atomically(self.path("results.json"), text.encode())
        self.summaries.close()
        self._print_rows(rows)
        return rows

    def _print_rows(self, rows):
        for row in rows:
            after = f" after {row['inner_steps']} applications" if row["method"] == "learned" else ""
            self.console.print(
                f"{row['method']:>10}  {row['accuracy_mean']:.3f} +- {row['accuracy_sem']:.3f}  ({row['features']} features, "
                f"{row['shots']} labels a class{after})",
                highlight=False,
            )
        self.console.print(
            f"Results, rule, SavedModel and TensorBoard events are in {self.run_dir}", highlight=False
        )


class _Speed:
    """Task-steps a second, smoothed; the first meta-step, which compiles, does not count."""

    def __init__(self):
        self._at, self.last = None, 0.0

    def rate(self, task_steps):
        now = time.monotonic()
        if self._at is not None:
            rate = task_steps / max(now - self._at, 1e-9)
            self.last = rate if not self.last else 0.9 * self.last + 0.1 * rate
        self._at = now
        return self.last
