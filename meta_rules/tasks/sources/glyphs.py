"""Characters drawn in many fonts, as in Metz et al. (2019): the classes are characters.

Place, size, rotation, slant, ink, paper, noise and sometimes the sign vary. The splits use different fonts.
"""

import pathlib

import numpy as np
from absl import logging
from PIL import Image, ImageDraw, ImageFont

from meta_rules.errors import UserError
from meta_rules.tasks.sources.base import Content, Option, SourceInfo, choice, number, register
from meta_rules.tasks.sources.drawn import EXAMPLES, Drawn, generator

#: Letters only: a rule that claims never to have seen digits may be meta-trained on these.
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: Fonts whose letters are other signs than the letters' codes say.
_SYMBOLS = ("cmex", "cmsy", "lastresort", "symbol", "dings", "emoji", "icon")
#: Pixels of the master drawings: the em, and the canvas around it.
_EM, _CANVAS = 56, 112


def _characters(text):
    if len(text) < 2 or len(set(text)) < len(text) or any(c.isspace() for c in text):
        raise ValueError("two or more different characters, no spaces")
    return text


@register("glyphs")
class Glyphs(Drawn):
    """Pictures of characters, drawn at the size asked for (28 without one)."""

    options = {
        "examples": EXAMPLES,
        "characters": Option(LETTERS, _characters, "the classes; letters without digits unless asked for"),
        "fonts": Option("bundled", choice("bundled", "all"), "bundled: matplotlib's; all: the system's too"),
        "noise": Option(
            0.08, number(0.0, 1.0), "greatest deviation of the pixel noise, of the range from black to white"
        ),
        "shift": Option(0.08, number(0.0, 0.5), "greatest shift from the centre, of the side"),
        "rotation": Option(15.0, number(0.0, 180.0), "greatest rotation, degrees"),
        "inverted": Option(0.1, number(0.0, 1.0), "share of pictures with dark ink on light paper"),
    }

    def info(self):
        """See `Source`."""
        classes, count = len(self.option["characters"]), len(font_files(self.option["fonts"] == "all"))
        origin = f"drawn: characters in {count} fonts, with random place, size, rotation, contrast and noise"
        return SourceInfo(self.name, (28, 28, 1), classes, self.sizes(classes), origin)

    def version(self):
        """Also the fonts: names and sizes."""
        return super().version() + [
            [path.name, path.stat().st_size] for path in font_files(self.option["fonts"] == "all")
        ]

    def read(self, stored, size, colour, seed):
        """See `Source`."""
        characters = self.option["characters"]
        masters = self._masters(stored)
        labels = self.labels(stored, len(characters))
        draws = generator(seed, self.kind, stored)
        side = size or 28
        chosen = draws.random(len(labels))
        inverse = self._placements(draws, len(labels), side)
        shapes = np.empty((len(labels), side, side), np.uint8)
        for i, label in enumerate(labels):
            of_class = masters[label]
            master = of_class[int(chosen[i] * len(of_class))]
            # Drawn at twice the size and halved: affine transforms alone do not smooth.
            wide = master.transform(
                (2 * side, 2 * side), Image.Transform.AFFINE, inverse[i], Image.Resampling.BILINEAR
            )
            shapes[i] = wide.reduce(2)
        return Content(self._inked(shapes, colour, draws), labels, tuple(characters))

    def _placements(self, draws, count, side):
        """Affine maps from output to master pixels, PIL's six numbers: float64 `[count, 6]`."""
        limit = np.deg2rad(self.option["rotation"])
        angle = draws.uniform(-limit, limit, size=count)
        slant = draws.uniform(-0.2, 0.2, size=count)
        # Master pixels an output pixel: the em is 0.7 to 1.1 sides.
        scale = _EM / (2 * side * draws.uniform(0.7, 1.1, size=count))
        stretch = np.exp(draws.uniform(-0.15, 0.15, size=count))
        shift = self.option["shift"] * 2 * side
        across, down = draws.uniform(-shift, shift, size=(2, count))
        a, b = scale * stretch * np.cos(angle), scale * stretch * (np.sin(angle) + slant)
        d, e = -scale / stretch * np.sin(angle), scale / stretch * np.cos(angle)
        # The master's centre lands in the picture's centre, moved by (across, down).
        x, y = side + across, side + down
        return np.stack([a, b, _CANVAS / 2 - a * x - b * y, d, e, _CANVAS / 2 - d * x - e * y], axis=1)

    def _inked(self, shapes, colour, draws):
        """Shapes `[examples, side, side]` to `[examples, side, side, channels]`: ink, paper, noise."""
        depth = 3 if colour else 1
        pictures = np.empty(shapes.shape + (depth,), np.uint8)
        for start in range(0, len(shapes), 2048):
            shape = shapes[start : start + 2048, ..., None].astype(np.float32) / 255
            count = len(shape)
            paper = draws.uniform(0.0, 0.3, size=(count, 1, 1, depth)).astype(np.float32)
            ink = draws.uniform(0.6, 1.0, size=(count, 1, 1, depth)).astype(np.float32)
            picture = paper + (ink - paper) * shape
            turned = draws.random((count, 1, 1, 1)) < self.option["inverted"]
            picture = np.where(turned, 1 - picture, picture)
            noise = draws.uniform(0, self.option["noise"], size=(count, 1, 1, 1)).astype(np.float32)
            picture += noise * draws.standard_normal(picture.shape, np.float32)
            pictures[start : start + count] = np.rint(np.clip(picture, 0, 1) * 255)
        return pictures

    def _masters(self, split):
        """For each character, its drawings in the split's fonts: lists of PIL images."""
        fonts = split_fonts(font_files(self.option["fonts"] == "all"), split)
        characters = self.option["characters"]
        masters = [[] for _ in characters]
        for path in fonts:
            codes = _codes(path)
            font = ImageFont.truetype(str(path), _EM, layout_engine=ImageFont.Layout.BASIC)
            lacking = "".join(c for c in characters if ord(c) not in codes)
            if lacking:
                logging.info("Font %s lacks %s; other fonts draw them.", path.name, lacking)
            for index, character in enumerate(characters):
                if ord(character) in codes:
                    masters[index].append(_master(font, character))
        missing = "".join(c for c, drawn in zip(characters, masters, strict=True) if not drawn)
        if missing:
            raise UserError(
                f"{self.name!r}: no font of the split {split} has {missing!r}; leave these characters out."
            )
        return masters


def _master(font, character):
    image = Image.new("L", (_CANVAS, _CANVAS))
    left, top, right, bottom = font.getbbox(character)
    corner = ((_CANVAS - left - right) / 2, (_CANVAS - top - bottom) / 2)
    ImageDraw.Draw(image).text(corner, character, font=font, fill=255)
    return image


def _codes(path):
    from matplotlib import ft2font

    return ft2font.FT2Font(str(path)).get_charmap()


def font_files(system=False):
    """Font files with ordinary letters, sorted by name: matplotlib's own, and the system's if asked for.

    Returns:
      A list of `pathlib.Path`; of several files with one name only the first.
    """
    import matplotlib

    paths = sorted(pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf"))
    if system:
        from matplotlib import font_manager

        paths += sorted(
            map(pathlib.Path, font_manager.findSystemFonts()), key=lambda path: (path.name, str(path))
        )
    found = {}
    for path in paths:
        if path.name not in found and not any(word in path.name.lower() for word in _SYMBOLS):
            found[path.name] = path
    return [found[name] for name in sorted(found) if _has_letters(found[name])]


def _has_letters(path):
    try:
        codes = _codes(path)
    except (OSError, RuntimeError, ValueError):
        return False
    return all(ord(letter) in codes for letter in LETTERS)


def split_fonts(fonts, split):
    """The fonts of a split: of every seven by name, five for training and one each for the others."""
    held = {2: "validation", 5: "test"}
    return [font for index, font in enumerate(fonts) if held.get(index % 7, "train") == split]
