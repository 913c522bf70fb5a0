"""Pictures on their way into a data set: uint8, grey or colour, resized."""

import numpy as np
from PIL import Image

from meta_rules.errors import UserError

#: ITU-R BT.601 luma, the weights that PIL and TensorFlow use too.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def as_uint8(pictures, name):
    """Pictures of any number type as uint8: integers in 0..255 as they are, floats in [0, 1] times 255.

    Raises:
      UserError: NaN or infinite values, or values outside of those ranges.
    """
    if pictures.dtype == np.uint8:
        return pictures
    if np.issubdtype(pictures.dtype, np.floating):
        if not np.isfinite(pictures).all():
            raise UserError(f"{name}: the pictures hold NaN or infinite values; remove those examples.")
        if pictures.size and (pictures.min() < 0 or pictures.max() > 1):
            raise UserError(
                f"{name}: pictures of floating-point numbers must lie in [0, 1], these reach from "
                f"{pictures.min():g} to {pictures.max():g}; scale them, or save them as uint8."
            )
        return np.rint(pictures * 255).astype(np.uint8)
    if not np.issubdtype(pictures.dtype, np.integer):
        raise UserError(f"{name}: pictures must be numbers, got {pictures.dtype}; save them as uint8.")
    if pictures.size and (pictures.min() < 0 or pictures.max() > 255):
        raise UserError(
            f"{name}: pictures of integers must lie in 0..255; scale them, or save them as uint8."
        )
    return pictures.astype(np.uint8)


def channels(pictures, colour):
    """`[examples, height, width, 1 or 3]` with three channels if `colour`, else one (BT.601 luma)."""
    if colour and pictures.shape[-1] == 1:
        return np.repeat(pictures, 3, axis=-1)
    if not colour and pictures.shape[-1] == 3:
        grey = np.empty(pictures.shape[:-1] + (1,), np.uint8)
        for start in range(0, len(pictures), 4096):
            block = pictures[start : start + 4096].astype(np.float32)
            grey[start : start + 4096, ..., 0] = np.rint(block @ _LUMA)
        return grey
    return pictures


def resized(pictures, size):
    """Pictures as `[examples, size, size, channels]`, by antialiased bilinear interpolation (PIL's).

    PIL and not TensorFlow, so that loading data starts no device and gives the same bytes on every machine.
    """
    if size is None or pictures.shape[1:3] == (size, size):
        return pictures
    out = np.empty((len(pictures), size, size, pictures.shape[-1]), np.uint8)
    for i, picture in enumerate(pictures):
        image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
        small = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
        out[i] = small[..., None] if small.ndim == 2 else small
    return out


def prepared(pictures, size, colour):
    """`resized` and `channels` in the cheaper order."""
    return resized(channels(pictures, colour), size)
