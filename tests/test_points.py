"""Point clouds with a few labels: shapes, what is labelled, and what a network sees."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics.pairwise import rbf_kernel

from meta_rules import stateless
from meta_rules.errors import UserError
from meta_rules.tasks.few_label import FewLabelFamily
from meta_rules.tasks.points import SHAPES, TWO_CLASSES, PointFamily

KEYS = stateless.split(stateless.key(3), 8)


def plain(**changes):
    return PointFamily(**{"rotate": False, "scale": (1.0, 1.0), "noise": (0.0, 0.0)} | changes)


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("classes", [2, 3])
def test_points_lie_on_their_class_s_shape(shape, classes):
    if classes > 2 and shape in TWO_CLASSES:
        with pytest.raises(UserError, match="classes"):
            plain(shapes=(shape,), classes=classes, hidden=(classes,))
        return
    task = plain(shapes=(shape,), classes=classes, hidden=(classes,)).sample(KEYS)
    labels = task.labels.numpy().argmax(-1)
    for points, label in zip(task.points.numpy(), labels, strict=True):
        radius, angle = np.hypot(*points.T), np.arctan2(points[:, 1], points[:, 0])
        if shape == "moons":
            centre = np.where(label == 0, 0.0, 1.0), np.where(label == 0, 0.0, 0.5)
            across, up = points[:, 0] - centre[0], points[:, 1] - centre[1]
            np.testing.assert_allclose(np.hypot(across, up), 1.0, atol=1e-5)
            assert np.all(np.where(label == 0, up, -up) > -1e-6)
        elif shape == "circles":
            np.testing.assert_allclose(radius, (label + 1) / classes, atol=1e-5)
        elif shape == "spirals":
            turned = angle - 2 * np.pi * label / classes - 1.5 * np.pi * radius
            np.testing.assert_allclose(np.cos(turned), 1.0, atol=1e-4)
        else:
            assert all(len(np.unique(points[label == c].round(5), axis=0)) == 1 for c in range(classes))


def test_noise_rotation_and_scale_are_what_was_asked_for():
    wanted = plain(shapes=("gaussians",), points=2000, noise=(0.25, 0.25), scale=(3.0, 3.0), rotate=True)
    points, labels = (leaf.numpy() for leaf in wanted.sample(KEYS)[:2])
    angles = []
    for cloud, label in zip(points, labels.argmax(-1), strict=True):
        means = np.stack([cloud[label == c].mean(axis=0) for c in (0, 1)])
        np.testing.assert_allclose(np.linalg.norm(means[1] - means[0]), 6.0, atol=0.15)
        np.testing.assert_allclose((cloud - means[label]).std(axis=0), 0.75, atol=0.06)
        angles.append(np.arctan2(*(means[1] - means[0])[::-1]))
    assert np.std(angles) > 0.5


def test_labels_balance_and_batches():
    family = PointFamily(shapes=("moons", "spirals"), labels=(1, 4), balance=(0.3, 0.7), batch_size=40)
    task = family.sample(KEYS)
    labels, known = task.labels.numpy(), task.known.numpy()
    each = np.einsum("tpc,tp->tc", labels, known)
    # As many of either class, and of the numbers from 1 to 4 more than one occurs.
    np.testing.assert_array_equal(each[:, 0], each[:, 1])
    assert set(each[:, 0]) <= {1, 2, 3, 4} and len(set(each[:, 0])) > 1
    shares = labels.mean(axis=1)[:, 0]
    assert shares.min() >= 0.29 and shares.max() <= 0.71 and shares.std() > 0.03
    inputs, batch_labels, batch_known = (leaf.numpy() for leaf in family.labelled_batch(task, KEYS))
    assert inputs.shape == (8, 40, 64)
    seen = family.everything(task, KEYS)[0].numpy()
    for t in range(8):
        match = np.abs(inputs[t][:, None] - seen[t][None]).max(axis=-1).argmin(axis=1)
        np.testing.assert_array_equal(batch_labels[t], labels[t][match])
        np.testing.assert_array_equal(batch_known[t], known[t][match])
        assert set(np.flatnonzero(known[t])) <= set(match)


def test_a_network_sees_normalised_receptive_fields():
    family = PointFamily(units=16, width=0.3)
    task = family.sample(KEYS)
    seen = family.encode(task, task.points).numpy()
    for t in range(8):
        points = task.points[t].numpy()
        standard = (points - points.mean(axis=0)) / task.scale[t].numpy()
        np.testing.assert_allclose(np.square(standard).mean(), 1.0, rtol=1e-4)
        fields = rbf_kernel(standard, task.centres[t].numpy(), gamma=0.5 / 0.3**2)
        np.testing.assert_allclose(
            seen[t], 16 * fields / fields.sum(axis=1, keepdims=True), rtol=1e-2, atol=1e-3
        )
        # Centres are points of the cloud, all different.
        gaps = np.abs(standard[:, None] - task.centres[t].numpy()[None]).max(axis=-1)
        assert gaps.min(axis=0).max() < 1e-5 and len(set(gaps.argmin(axis=0))) == 16
    raw = PointFamily(units=0)
    assert raw.layer_sizes == (2, 2) and raw.encode(task, task.points).shape == (8, 256, 2)


def test_a_key_gives_the_same_cloud_and_splits_differ():
    family = PointFamily()
    again = tf.function(family.sample, jit_compile=True)(KEYS)
    np.testing.assert_allclose(again.points, family.sample(KEYS).points, atol=1e-5)
    assert np.abs(family.of_split("test").sample(KEYS).points - again.points).mean() > 0.1


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"shapes": ("stars",)}, "shapes"),
        ({"split": "all"}, "split"),
        ({"labels": (0, 2)}, "labels"),
        ({"noise": (0.2, 0.1)}, "noise"),
        ({"hidden": (8, 3)}, "hidden"),
        ({"balance": (0.001, 0.5)}, "balance"),
        ({"batch_size": 300}, "batch_size"),
        ({"units": -1}, "units"),
    ],
)
def test_wrong_settings_are_refused(changes, word):
    with pytest.raises(UserError, match=word):
        PointFamily(**changes)


def test_pictures_with_few_labels():
    family = FewLabelFamily(
        sources=("digits",),
        image_size=8,
        hidden=(6, 4),
        ways=4,
        support=2,
        query=3,
        batch_size=9,
        labelled_size=12,
    )
    task = family.sample(KEYS)
    batches = [family.labelled_batch(task, stateless.fold(KEYS, i)) for i in range(3)]
    for inputs, labels, known in batches:
        assert inputs.shape == (8, 21, 64) and labels.shape == (8, 21, 4)
        np.testing.assert_array_equal(known[0], [1] * 12 + [0] * 9)
        assert not labels[:, 12:].numpy().any()
    # Of all batches together at most two different pictures a class have labels: those of the task.
    for t in range(8):
        pictures = np.concatenate([inputs[t, :12] for inputs, _, _ in batches])
        labels = np.concatenate([labels[t, :12] for _, labels, _ in batches]).argmax(-1)
        assert all(1 <= len(np.unique(pictures[labels == c], axis=0)) <= 2 for c in range(4))
    assert family.everything(task, KEYS)[0].shape == (8, 12, 64)
    with pytest.raises(UserError, match="hidden"):
        FewLabelFamily(sources=("digits",), image_size=8, hidden=(6, 5), ways=4)
