"""A meta-training run in a directory: what is shown, what is kept, how it resumes and what it leaves behind."""

import contextlib
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

from meta_rules import configuration, decision_regions, distribution, saved_rules, stateless, summaries
from meta_rules.checkpoints import RunCheckpoints
from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.evaluation.judgement import judge, trial_of
from meta_rules.evaluation.semi_supervised import SemiSupervisedTrial
from meta_rules.meta_trainer import MetaTrainer
from meta_rules.meta_validation import BestRule
from meta_rules.saved_model import export_saved_model
from meta_rules.semi_supervised_learning import SemiSupervisedLearning
from meta_rules.tasks import few_label, points  # noqa: F401  (every family that a gin file of a run may name)
from meta_rules.version import __version__
from meta_rules.workers import Workers

#: What a collective operation raises in the workers that are left when one is gone.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnknownError,
)


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
    results.json. With several workers only the chief reads and writes it; all of them stop when one of them is asked to.

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
      change_configuration: go on with the run in the directory even if its configuration was another.
      strategy: a `tf.distribute` strategy.
      on_save: called after every checkpoint.

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
        change_configuration: bool = False,
        strategy=None,
        on_save=lambda: None,
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
        self.change_configuration, self._on_save = change_configuration, on_save
        self.workers = Workers(trainer.strategy)
        self.console = Console(quiet=not self.workers.chief)
        live = trainer.variables() | (self.best.variables() if self.best else {})
        self._live = [variable for values in live.values() for variable in values]
        self._checkpoints = RunCheckpoints(self.path("checkpoints"), live)

    def path(self, *parts):
        """A path in the run directory."""
        return os.path.join(self.run_dir, *parts)

    def run(self):
        """Trains, or goes on training, to the end or until asked to stop.

        Returns:
          The rows of results.json, or None when the run was stopped before its end.
        """
        with contextlib.ExitStack() as held:
            try:
                self._take_up(held)
                return self._run()
            except LOST as error:
                if not self.workers.several:
                    raise
                raise UserError(
                    "Another worker is gone, or the network to it. Start all workers again with the same command: the run goes "
                    f"on from its newest checkpoint. ({str(error).splitlines()[-1].strip()[:120]})"
                ) from error

    def _take_up(self, held):
        """Takes the directory, and takes up the run in it where it stopped: every worker at the same state."""
        trainer, configured = self.trainer, self._configuration_and_data()
        pools = self._gathered_pools()
        found = self.workers.of_chief(lambda: self._claim(held, configured, pools))
        if self.workers.any(found.pop("configuration").tobytes() != configured):
            raise UserError("The workers differ in configuration or data; start all with the same command.")
        if found:
            values = [found[str(i)] for i in range(len(found))]
            for variable, value in zip(self._live, values, strict=False):
                variable.assign(value)
            restored = [tf.constant(value) for value in values[len(self._live) :]]
            restored = tf.nest.pack_sequence_as(pools, restored)
            trainer.pools = [distribution.scatter(trainer.strategy, pool) for pool in restored]
            self.console.print(f"Resuming at meta-step {trainer.step}.")

    def _claim(self, held, configured, pools):
        """Locks the directory; a dict with the configuration and, under numbers, the restored variables and pools."""
        os.makedirs(self.run_dir, exist_ok=True)
        try:
            held.enter_context(FileLock(self.path(".lock"), timeout=0))
        except Timeout as error:
            raise UserError(
                f"Another process is at work in {self.run_dir}; wait for it, or give another --run_dir."
            ) from error
        self._claim_directory()
        found = {"configuration": np.frombuffer(configured, np.uint8)}
        restored = self._checkpoints.restore(pools)
        if restored is not None:
            leaves = [*self._live, *tf.nest.flatten(restored)]
            found |= {str(i): leaf.numpy() for i, leaf in enumerate(leaves)}
        return found

    def _configuration_and_data(self):
        """What must be the same in all workers, as bytes."""
        origins = [origin for family in self.trainer.families for origin in family.origins]
        return "\n".join([configuration.operative(), *origins]).encode()

    def _gathered_pools(self):
        return [distribution.gather(self.trainer.strategy, pool) for pool in self.trainer.pools]

    def _run(self):
        trainer = self.trainer
        for origin in dict.fromkeys(origin for family in trainer.families for origin in family.origins):
            self.console.print(f"Meta-training on {origin}", highlight=False, soft_wrap=True)
        events = self.run_dir if self.workers.chief else None
        self.summaries = summaries.RunSummaries(events, configuration.operative())
        with StopRequest() as stop, self._progress() as progress:
            bar = progress.add_task(
                "", total=trainer.meta_steps, completed=trainer.step, loss="-", accuracy="-", speed="-"
            )
            watch = _Speed()

            def on_step(step, metrics, scalars):
                self._show(progress, bar, step, metrics, watch.rate(scalars["task_steps"]))
                self._record(step, metrics, scalars, watch.last)
                if self.best and self._due(step, self.validate_every) and self.workers.chief:
                    progress.update(bar, description="validating")
                    self.summaries.scalars(step, {"validation/accuracy": self.best.consider()})
                stopping = self.workers.any(stop.signal)
                if self._due(step, self.checkpoint_every) or stopping:
                    pools = self._gathered_pools()
                    self.workers.of_chief(lambda: self._save(step, pools))
                return stopping

            try:
                done = trainer.train(on_step)
            except UserError:
                # A run that ends in an error leaves what it learned too, if there is room.
                if self.workers.chief:
                    with contextlib.suppress(OSError, tf.errors.OpError):
                        self.summaries.flush()
                        self._save_rule()
                raise
        if not done:
            self.summaries.close()
            self.console.print(
                f"Stopped at meta-step {trainer.step}, saved in {self.run_dir}; the same command goes on from there."
            )
            return None
        # The others wait for the chief's judgement: a worker that leaves early looks like one that has failed.
        rows = self.workers.of_chief(lambda: {"rows": np.frombuffer(self._finish(), np.uint8)})["rows"]
        return json.loads(rows.tobytes())

    def _save(self, step, pools):
        """A checkpoint, and the rule, so that a run that is killed leaves one to use."""
        self._checkpoints.save(step, pools)
        self._save_rule()
        self._on_save()
        return {}

    def _due(self, step, every):
        """Whether something that is done every so many meta-steps is due after the call that ended with `step`."""
        call = self.trainer.steps_per_call
        return step // every > (step - call) // every or step == self.trainer.meta_steps

    def _claim_directory(self):
        text = configuration.operative()
        file = self.path("config.gin")
        if os.path.exists(file) and self._checkpoints.steps() and not self.change_configuration:
            with open(file) as old:
                if changed := configuration.differences(old.read()):
                    raise UserError(
                        f"{self.run_dir} holds a run of another configuration ({changed[0]}, see its config.gin); give another "
                        f"--run_dir, or --change_configuration to go on with that run under this one."
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
        if not self.workers.chief:
            return
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
        if isinstance(problem, SemiSupervisedLearning):
            self._regions(step, problem, trajectory, oldest)
            return
        one = tf.nest.map_structure(lambda leaf: leaf[oldest : oldest + 1], trajectory)
        shots = family.few_shot(one.task, stateless.fold(one.slot, "picture"))
        features = problem.network(one.state, tf.cast(shots.query, self.trainer.rule.dtype))[0].numpy()
        labels = np.argmax(shots.query_labels[0], axis=-1)
        names = [str(int(number)) for number in one.task.classes[0]]
        title = f"Mean features of the classes after {age} applications"
        self.summaries.image(step, "class_features", summaries.class_features(features, labels, names, title))

    def _regions(self, step, problem, trajectory, index):
        """Decision regions of one network, where it classifies points of the plane."""
        if hasattr(problem.family, "encode"):
            accuracy = problem.loss(self.trainer.rule.theta(), trajectory)[1]["accuracy"][index]
            figure = decision_regions.strip(problem, [(trajectory, float(accuracy))], index=index)
            self.summaries.image(step, "decision_regions", figure)

    def _film(self, rule, family):
        """Pictures of the judge's first network as it learns, where there are any."""
        trial = trial_of(rule, family, self.trainer.seed)
        if isinstance(trial, SemiSupervisedTrial) and hasattr(family, "encode"):
            decision_regions.save(trial, rule.theta(), self.summaries, self.trainer.step, self.run_dir)

    def _save_rule(self):
        card = {
            "meta_steps": self.trainer.step,
            "version": __version__,
            "trained_on": sorted({origin for family in self.trainer.families for origin in family.origins}),
            # The longest life of a network.
            "horizon": int(max(family.horizon[1] for family in self.trainer.families)),
        }
        first = self.trainer.families[0]
        if isinstance(first, few_label.FewLabelFamily):
            card["arrangement"] = first.arrangement()
        theta = self.trainer.theta()
        if self.best and self.best.known:
            theta = self.best.theta()
            card |= {"meta_step_of_best": self.best.step, "validation_accuracy": self.best.score}
        saved_rules.save_rule(self.path("rule"), self.trainer.rule, card, theta)

    def _finish(self):
        """Judges the rule and writes the rest of the directory; results.json as bytes."""
        self._save_rule()
        rule = saved_rules.load_rule(self.path("rule"))
        rows, family = [], self.judge or self.trainer.families[0]
        if not rule.needs_labels:
            export_saved_model(
                self.path("saved_model"), rule, family.hidden, family.activation, family.batch_size
            )
        if self.judge is not None:
            self.console.print("Judging the rule on tasks it has never seen ...")
            rows = judge(rule, family, self.judge_steps, self.draws, self.trainer.seed)
            for row in rows:
                self.summaries.scalars(
                    self.trainer.step, {f"test/{row['method']}_{row['inner_steps']}": row["accuracy_mean"]}
                )
            self._film(rule, family)
        text = json.dumps(rows, indent=2) + "\n"
        saved_rules.write_atomically(self.path("results.json"), text.encode())
        self.summaries.close()
        self._print_rows(rows)
        return text.encode()

    def _print_rows(self, rows):
        for row in rows:
            after = f" after {row['inner_steps']} applications" if row["method"] == "learned" else ""
            self.console.print(
                f"{row['method']:>10}  {row['accuracy_mean']:.3f} +- {row['accuracy_sem']:.3f}  ({row['features']} features, "
                f"{row['shots']} labels a class{after})",
                highlight=False,
            )
        # A rule that is told labels has none.
        saved = "SavedModel " if os.path.isdir(self.path("saved_model")) else ""
        self.console.print(
            f"Results, rule, {saved}and TensorBoard events are in {self.run_dir}", highlight=False
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
