"""The semi-supervised rule, the problem it makes with point clouds, its judgement and its pictures."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from small_problems import SmallRule, small_family
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from meta_rules import configuration, decision_regions, rules, stateless
from meta_rules.errors import UserError
from meta_rules.evaluation.few_shot import COLUMNS, FewShotTrial
from meta_rules.evaluation.judgement import trial_of
from meta_rules.evaluation.semi_supervised import SemiSupervisedTrial
from meta_rules.evaluation.semi_supervised_peers import PEERS, chosen_settings, peer_accuracy
from meta_rules.rules.base import Side, per_task
from meta_rules.semi_supervised_learning import LOGIT_SCALE, SemiSupervisedLearning, problem_of
from meta_rules.summaries import RunSummaries
from meta_rules.tasks.points import PointFamily
from meta_rules.training_run import TrainingRun
from meta_rules.trajectories import RuleLearning

SIZES, TASKS, BATCH = (6, 5, 3), 2, 9
KEYS = stateless.split(stateless.key(1), TASKS)


def small_rule(**config):
    rule = rules.make("semi_supervised", **{"hidden": 4, "error_channels": 2, "dtype": "float64"} | config)
    random = np.random.default_rng(0)
    rule.assign({name: value + 0.1 * random.normal(size=value.shape) for name, value in rule.theta().items()})
    return rule


def update(rule, side, state=None, seed=0):
    inputs = tf.constant(np.random.default_rng(seed).uniform(size=(TASKS, BATCH, SIZES[0])), rule.dtype)
    state = rule.initial_state(SIZES, KEYS) if state is None else state
    theta = per_task(rule.theta(), TASKS)
    return rule.update(theta, rule.network(SIZES), state, inputs, KEYS, side=side), inputs


def some_side(known=4, seed=0):
    labels = np.eye(SIZES[-1])[np.random.default_rng(seed).integers(SIZES[-1], size=(TASKS, BATCH))]
    mask = np.broadcast_to(np.arange(BATCH) < known, (TASKS, BATCH)).astype(float)
    return Side(tf.constant(labels), tf.constant(mask))


def same(a, b):
    for x, y in zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12)


def test_what_stands_where_no_label_is_known_does_not_matter():
    rule, side = small_rule(), some_side()
    other = some_side(seed=1).labels.numpy()
    other[:, :4] = side.labels.numpy()[:, :4]
    found, _ = update(rule, side)
    same(update(rule, side._replace(labels=tf.constant(other)))[0], found)
    # No side information is an empty mask.
    same(update(rule, None)[0], update(rule, side._replace(mask=tf.zeros_like(side.mask)))[0])
    assert np.any(update(rule, None)[0].kernels[1] != found.kernels[1])


def test_a_top_unit_sees_its_own_target_alone():
    rule, side = small_rule(feedback="none"), some_side()
    found, _ = update(rule, side)
    labels = side.labels.numpy().copy()
    labels[:, :, 2] = 1.0 - labels[:, :, 2]
    other, _ = update(rule, side._replace(labels=tf.constant(labels)))
    np.testing.assert_allclose(other.kernels[1][..., :2], found.kernels[1][..., :2], rtol=1e-12)
    # Not every one: a sender may be silent.
    assert np.any(other.kernels[1][..., 2] != found.kernels[1][..., 2])
    # Without feedback the layer below hears nothing of it; with it, it does.
    same(other.kernels[0], found.kernels[0])
    heard = [update(small_rule(), side._replace(labels=tf.constant(x)))[0] for x in (side.labels, labels)]
    assert np.any(heard[0].kernels[0] != heard[1].kernels[0])


def test_a_weight_moves_towards_the_mean_target_of_the_examples_its_sender_is_active_in():
    rule = rules.make("semi_supervised", dtype="float64")
    theta = rule.theta() | {"step": tf.constant(50.0, tf.float64), "terms": tf.zeros([4], tf.float64)}
    rule.assign(theta | {"terms_top": tf.constant([1.0, 0.0, 0.0, 0.0], tf.float64)})
    side = some_side(known=BATCH)
    state = rule.initial_state(SIZES, KEYS)
    after, inputs = update(rule, side, state)
    below = rule.network(SIZES).activities(state, inputs).post[1].numpy()
    target = (side.labels.numpy() - 1 / 3) / np.sqrt(2 / 9)
    active = below.mean(axis=1)
    wanted = np.einsum("tbi,tbj->tij", below, target) / BATCH / (active[..., None] + 1e-2)
    start = state.kernels[1].numpy()
    wanted += start * (1.0 - active / (active + 1e-2))[..., None]
    np.testing.assert_allclose(after.kernels[1], wanted, rtol=1e-6, atol=1e-9)


def test_lateral_weights_are_correlations_between_different_units():
    rule = small_rule()
    state = rule.initial_state(SIZES, KEYS)
    after, inputs = update(rule, None, state)
    slope, step = (float(rule.theta()[name]) for name in ("slope", "step_lateral"))
    z = rule.network(SIZES).activities(state, inputs).pre[1].numpy()
    output = np.tanh(np.exp(slope) * z) / np.exp(slope)
    wanted = np.einsum("tbi,tbj->tij", output, output) / BATCH / (1.0 + np.exp(-step))
    wanted *= 1.0 - np.eye(5)
    np.testing.assert_allclose(after.memory[0], wanted, rtol=1e-8, atol=1e-10)


def test_rule_and_family_must_go_together():
    rule, points, pictures = rules.make("semi_supervised"), PointFamily(), small_family()
    assert isinstance(problem_of(rule, points), SemiSupervisedLearning)
    assert type(problem_of(SmallRule(), pictures)) is RuleLearning
    assert isinstance(trial_of(SmallRule(), pictures), FewShotTrial)
    with pytest.raises(UserError, match="needs labels"):
        problem_of(rule, pictures)
    with pytest.raises(UserError, match="rules that need labels"):
        problem_of(SmallRule(), points)


@pytest.fixture(scope="module")
def trial():
    family = PointFamily(
        points=128, batch_size=64, units=48, split="test", shapes=("gaussians",), noise=(0.4, 0.4)
    )
    return SemiSupervisedTrial(rules.make("semi_supervised"), family, seed=1)


@pytest.fixture(scope="module")
def frames(trial):
    return decision_regions.film(trial, trial.rule.theta(), ages=(0, 40, 80))


def test_the_meta_objective_is_that_of_the_network_s_own_output(trial, frames):
    life, accuracy = frames[-1]
    loss, figures = trial.problem.loss(trial.rule.theta(), life)
    inputs, labels = trial.family.everything(life.task, None)
    scores = LOGIT_SCALE * trial.problem.network.activities(life.state, inputs).pre[-1].numpy().astype(float)
    likelihood = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    right = scores.argmax(-1) == labels.numpy().argmax(-1)
    assert float(loss[0]) == pytest.approx(-np.log((likelihood * labels.numpy()).sum(-1)).mean(), rel=1e-4)
    assert accuracy == pytest.approx(right.mean()) and figures.keys() == {"accuracy"}


def test_labels_spread_from_four_points_to_all(trial):
    # The untrained meta-parameters already send labels through the cloud: far better than the labelled points alone can say.
    accuracy = trial.accuracies(trial.rule.theta(), (0, 40), 20)
    assert accuracy.keys() == {40} and accuracy[40].shape == (20,)
    assert np.median(accuracy[40]) > 0.93


def test_peers_are_chosen_on_validation_clouds_and_do_what_their_names_say(trial):
    tuning, clouds = trial.clouds(4, "validation"), trial.clouds(8)
    assert all(np.abs(a[0] - b[0]).mean() > 0.01 for a, b in zip(tuning, clouds[:4], strict=True))
    for points, encoded, labels, known in clouds:
        assert points.shape == (128, 2) and encoded.shape == (128, 48)
        assert np.bincount(labels[known]).tolist() == [2, 2]
    life = trial.fresh(0)
    np.testing.assert_allclose(
        clouds[0][1], trial.family.everything(life.task, None)[0][0], rtol=1e-3, atol=1e-4
    )
    settings = chosen_settings("label_spreading", tuning)
    spread = [peer_accuracy("label_spreading", settings, cloud) for cloud in clouds]
    alone = [
        peer_accuracy("supervised", {"encoded": False, "hidden": (), "alpha": 1.0}, cloud) for cloud in clouds
    ]
    assert np.mean(spread) > 0.95 and np.mean(alone) > 0.8
    assert settings in PEERS["label_spreading"][1]


def test_pictures_show_the_cloud_and_the_animation_plays(trial, frames, tmp_path):
    probabilities, extent = decision_regions.region(trial.problem, frames[-1][0])
    np.testing.assert_allclose(probabilities.sum(-1), 1.0, rtol=1e-5)
    # At a labelled point the region is the label's.
    task = frames[-1][0].task
    at = int(np.flatnonzero(task.known[0])[0])
    x, y = task.points[0, at].numpy()
    column, row = (
        int(round((value - low) / (high - low) * (decision_regions.GRID - 1)))
        for value, low, high in ((x, *extent[:2]), (y, *extent[2:]))
    )
    assert probabilities[row, column].argmax() == int(task.labels[0, at].numpy().argmax())
    moving = decision_regions.animation(trial.problem, frames)
    picture = Image.open(io.BytesIO(moving))
    assert picture.format == "GIF" and picture.n_frames == 3
    summaries = RunSummaries(str(tmp_path), "")
    summaries.animation(5, "moving", moving)
    summaries.close()
    (event,) = EventAccumulator(str(tmp_path)).Reload().Tensors("moving")
    width, height, content = event.tensor_proto.string_val
    assert content == moving and (int(width), int(height)) == picture.size


SMALL_RUN = [
    "MetaTrainer.meta_steps = 2",
    "MetaTrainer.tasks = 2",
    "PointFamily.points = 64",
    "PointFamily.batch_size = 32",
    "PointFamily.units = 16",
    "PointFamily.windows = (3,)",
    "TrainingRun.judge_steps = (5,)",
    "TrainingRun.draws = 3",
    "TrainingRun.picture_every = 2",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two_moons", "two_gaussians"])
def test_a_run_leaves_results_and_pictures(name, tmp_path):
    configuration.parse([f"{name}.gin"], SMALL_RUN)
    rows = configuration.build(TrainingRun, str(tmp_path)).run()
    assert rows == json.loads((tmp_path / "results.json").read_text())
    assert [row["method"] for row in rows] == ["learned", *PEERS]
    assert all(set(row) == set(COLUMNS) and row["shots"] == 2 and row["trials"] == 3 for row in rows)
    assert (tmp_path / "decision_regions.gif").exists() and (tmp_path / "rule" / "rule.npz").exists()
    tags = EventAccumulator(str(tmp_path)).Reload().Tags()["tensors"]
    assert {"decision_regions", "decision_regions/strip", "decision_regions/animation"} <= set(tags)
