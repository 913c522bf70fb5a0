"""Families of classes that are made up: Gaussian mixtures, textures, and patches of natural pictures."""

import numpy as np
from PIL import Image

from meta_rules.tasks.sources.base import (
    Content,
    Option,
    SourceInfo,
    number,
    picture_content,
    register,
    whole,
)
from meta_rules.tasks.sources.drawn import EXAMPLES, Drawn, generator


def _names(prefix, count):
    return tuple(f"{prefix}{index}" for index in range(count))


@register("gaussian_mixtures")
class GaussianMixtures(Drawn):
    """Each class is a mixture of Gaussians with random means and covariances in a shared latent space.

    `x = (latent U + noise) / deviation`: features `[examples, features]` of unit variance over all classes.
    The seed draws another space, other means and other covariances.
    """

    options = {
        "examples": EXAMPLES,
        "classes": Option(64, whole(2), "classes"),
        "features": Option(
            None, whole(2), "features a vector; the default is size * size, or 196 without a size"
        ),
        "components": Option(2, whole(1), "Gaussians a class"),
        "latent": Option(24, whole(1), "dimensions of the shared space that the Gaussians lie in"),
        "spread": Option(0.7, number(0.0), "deviation of the means, where a component's own is about 1"),
    }

    def info(self):
        """See `Source`."""
        classes, features = self.option["classes"], self.option["features"] or 196
        origin = "drawn: mixtures of Gaussians with random means and covariances"
        return SourceInfo(self.name, (features,), classes, self.sizes(classes), origin)

    def read(self, stored, size, colour, seed):
        """See `Source`."""
        option = self.option
        classes, components, latent = option["classes"], option["components"], option["latent"]
        features = option["features"] or (size * size if size else 196)
        world = generator(seed, self.kind, "classes")
        means = world.normal(size=(classes, components, latent)) * option["spread"]
        # Random scales along random directions; their mean square is 1.
        scales = np.exp(world.normal(size=(classes, components, latent)))
        scales /= np.sqrt(np.mean(np.square(scales), axis=-1, keepdims=True))
        turns = np.linalg.qr(world.normal(size=(classes, components, latent, latent)))[0]
        mixing = world.normal(size=(latent, features)) / np.sqrt(latent)
        noise = 0.3
        deviation = np.sqrt((1 + option["spread"] ** 2) * np.sum(np.square(mixing), axis=0) + noise**2)

        draws = generator(seed, self.kind, stored)
        labels = self.labels(stored, classes)
        component = draws.integers(components, size=len(labels))
        scaled = draws.normal(size=(len(labels), latent)) * scales[labels, component]
        points = means[labels, component]
        for which in range(classes * components):
            rows = np.flatnonzero(labels * components + component == which)
            points[rows] += scaled[rows] @ turns.reshape(-1, latent, latent)[which]
        vectors = points @ mixing + noise * draws.normal(size=(len(labels), features))
        return Content((vectors / deviation).astype(np.float32), labels, _names("mixture", classes))


@register("textures")
class Textures(Drawn):
    """Each class is a sum of a few warped gratings of its own orientations, frequencies and contrast curve.

    Phases are the class's own plus noise, so that nearby pictures of a class look alike; a smooth random
    warp, contrast and pixel noise vary from picture to picture.
    """

    options = {
        "examples": EXAMPLES,
        "classes": Option(64, whole(2), "classes"),
        "gratings": Option(3, whole(1, 16), "gratings a class"),
        "phase": Option(1.0, number(0.0), "deviation of the phases within a class, radians"),
    }

    def info(self):
        """See `Source`."""
        classes = self.option["classes"]
        origin = "drawn: sums of warped gratings with random orientations and frequencies"
        return SourceInfo(self.name, (28, 28, 1), classes, self.sizes(classes), origin)

    def read(self, stored, size, colour, seed):
        """See `Source`."""
        classes, gratings = self.option["classes"], self.option["gratings"]
        world = generator(seed, self.kind, "classes")
        angle = world.uniform(0, np.pi, size=(classes, gratings))
        cycles = np.exp(world.uniform(np.log(0.7), np.log(4.0), size=(classes, gratings)))
        phase = world.uniform(0, 2 * np.pi, size=(classes, gratings))
        weight = world.uniform(0.4, 1.0, size=(classes, gratings))
        gain = np.exp(world.uniform(np.log(0.7), np.log(4.0), size=classes))
        palette = world.uniform(0, 1, size=(classes, 2, 3))

        draws = generator(seed, self.kind, stored)
        labels = self.labels(stored, classes)
        side = size or 28
        pictures = np.empty((len(labels), side, side, 3 if colour else 1), np.uint8)
        place = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
        for start in range(0, len(labels), 2048):
            label = labels[start : start + 2048]
            count = len(label)

            def own(values, label=label):
                return values[label].astype(np.float32)[..., None, None]

            bend = draws.normal(size=(2, count, 1, 1)).astype(np.float32) * 0.05
            turn = draws.uniform(0, 2 * np.pi, size=(2, count, 1, 1)).astype(np.float32)
            across = place[None, None, :] + bend[0] * np.sin(2 * np.pi * place[None, :, None] + turn[0])
            down = place[None, :, None] + bend[1] * np.sin(2 * np.pi * place[None, None, :] + turn[1])
            shift = draws.normal(size=(count, gratings)).astype(np.float32) * self.option["phase"]
            total = np.zeros((count, side, side), np.float32)
            for k in range(gratings):
                along = own(np.cos(angle[:, k])) * across + own(np.sin(angle[:, k])) * down
                waves = 2 * np.pi * own(cycles[:, k]) * along + own(phase[:, k]) + shift[:, k, None, None]
                total += own(weight[:, k]) * np.cos(waves)
            contrast = draws.uniform(0.6, 1.0, size=(count, 1, 1)).astype(np.float32)
            shade = 0.5 + 0.5 * contrast * np.tanh(own(gain) * total)
            shade += 0.04 * draws.normal(size=shade.shape).astype(np.float32)
            shade = shade[..., None]
            if colour:
                ends = palette[label].astype(np.float32)[:, :, None, None, :]
                shade = ends[:, 0] + (ends[:, 1] - ends[:, 0]) * shade
            pictures[start : start + count] = np.rint(np.clip(shade, 0, 1) * 255)
        return Content(pictures, labels, _names("texture", classes))


@register("patches")
class Patches(Drawn):
    """Patches of two photographs that scikit-learn carries: a class is a tile, an example a crop of it.

    The crops of a split start at columns of their own, so that no two splits share a crop; size, brightness
    and contrast vary. Tiles with a quarter of hardly any contrast (sky) are left out.
    """

    options = {"examples": EXAMPLES}
    _TILE = 71
    _NATIVE = 28

    def info(self):
        """See `Source`."""
        classes = len(self._tiles())
        origin = "patches of the photographs china.jpg and flower.jpg (CC BY 2.0), as carried by scikit-learn"
        return SourceInfo(self.name, (self._NATIVE, self._NATIVE, 1), classes, self.sizes(classes), origin)

    def _tiles(self):
        from sklearn.datasets import load_sample_images

        tiles = []
        data = load_sample_images()
        for path, photograph in zip(data.filenames, data.images, strict=True):
            for top in range(0, photograph.shape[0] - self._TILE + 1, self._TILE):
                for left in range(0, photograph.shape[1] - self._TILE + 1, self._TILE):
                    tile = photograph[top : top + self._TILE, left : left + self._TILE]
                    half = self._TILE // 2
                    grey = tile.mean(axis=-1)
                    quarters = [grey[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
                    if min(quarter.std() for quarter in quarters) > 5:
                        tiles.append((f"{str(path).rsplit('/', 1)[-1][:-4]}_{top}_{left}", tile))
        return tiles

    def read(self, stored, size, colour, seed):
        """See `Source`."""
        tiles = self._tiles()
        images = [
            Image.fromarray(tile if colour else tile.mean(axis=-1).astype(np.uint8)) for _, tile in tiles
        ]
        labels = self.labels(stored, len(tiles))
        side = size or self._NATIVE
        draws = generator(seed, self.kind, stored)
        # Of every five columns, crops start at three for training, and at one each for the other splits.
        columns = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}[stored]
        starts = np.array([column for column in range(24) if column % 5 in columns])
        left = draws.choice(starts, size=len(labels))
        top = draws.integers(24, size=len(labels))
        width = draws.uniform(32, 47, size=len(labels))
        pictures = np.empty((len(labels), side, side, 3 if colour else 1), np.uint8)
        for i, label in enumerate(labels):
            box = (left[i], top[i], left[i] + width[i], top[i] + width[i])
            crop = images[label].resize((side, side), Image.Resampling.BILINEAR, box=box, reducing_gap=None)
            pictures[i] = np.asarray(crop).reshape(side, side, -1)
        contrast = draws.uniform(0.7, 1.3, size=(len(labels), 1, 1, 1)).astype(np.float32)
        light = draws.uniform(-25, 25, size=(len(labels), 1, 1, 1)).astype(np.float32)
        for start in range(0, len(labels), 2048):
            rows = slice(start, start + 2048)
            changed = (pictures[rows] - np.float32(127.5)) * contrast[rows] + np.float32(127.5) + light[rows]
            changed += 2 * draws.standard_normal(changed.shape, np.float32)
            pictures[rows] = np.rint(np.clip(changed, 0, 255))
        return picture_content(pictures, labels, tuple(name for name, _ in tiles), None, colour)
