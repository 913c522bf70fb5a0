"""A second view of a batch: the same examples, damaged in ways that the data itself suggests.

Nothing here knows what an input is; whatever is near or alike is read from how the inputs vary together within the batch.

- *Corruption*: a share of the entries is replaced by the same entry of other examples.
- *Patches*: what is replaced comes in patches of inputs that vary together, because a single entry is easily filled in from
  its neighbours. The patches are where a random mixture of the batch's own examples is large: such a mixture is a random
  field with just the covariance of the inputs.
- *Deformation*: every input takes the value of one that varies with it, all of them in the direction in which a random
  field (another mixture of examples) rises. On images, whose pixels may stand in any order, that is an elastic deformation;
  where inputs do not vary together it changes nothing.

Sources: corruption, Bahri et al., "SCARF", ICLR 2022; elastic deformation, Simard, Steinkraus and Platt, "Best practices for
convolutional neural networks", ICDAR 2003, which knows where pixels are. Fields and neighbours from covariance are our own.
"""

import statistics
from typing import NamedTuple

import tensorflow as tf

from meta_rules import stateless
from meta_rules.errors import UserError
from meta_rules.rules.local import batch_norm, mean_product

#: How much more an input's own value counts than one that does not vary with it, in the exponent of their mixture.
NEARNESS = 20.0


class Damage(NamedTuple):
    """How a second view differs from the first.

    Attributes:
      corruption: share of the entries replaced, in [0, 1); 0 for no second view at all.
      patches: how much of what decides is common to inputs that vary together, in [0, 1]; 0 replaces entries one by one.
      deformation: strength of the deformation, 0 for none; around 2 an input moves about to its neighbours' place.
    """

    corruption: float = 0.0
    patches: float = 0.0
    deformation: float = 0.0

    def __bool__(self):
        """Whether there is a second view."""
        return self.corruption > 0.0

    def checked(self):
        """Itself.

        Raises:
          UserError: a share out of its range, a negative deformation, or patches or deformation without corruption.
        """
        if not 0.0 <= self.corruption < 1.0:
            raise UserError(f"corruption must be in [0, 1), got {self.corruption}.")
        if not 0.0 <= self.patches <= 1.0:
            raise UserError(f"patches must be in [0, 1], got {self.patches}.")
        if not self.deformation >= 0.0:
            raise UserError(f"deformation must not be negative, got {self.deformation}.")
        if not self and (self.patches or self.deformation):
            raise UserError("patches and deformation need a second view; give corruption, for example 0.25.")
        return self


def second_view(inputs, damage, keys):
    """The batch, damaged.

    Args:
      inputs: `[tasks, batch, in]`.
      damage: a `Damage` with some corruption.
      keys: `[tasks, 2]`.
    """
    view = inputs
    if damage.patches or damage.deformation:
        # But for inputs that hardly vary, each to variance 1: what is left of those is noise.
        varying = batch_norm(inputs, epsilon=1e-2)
        if damage.deformation:
            view = _deformed(inputs, varying, damage.deformation, keys)
    tasks, batch, width = tf.unstack(tf.shape(inputs))
    words = stateless.bits(stateless.fold(keys, "second view"), batch * width)
    words = tf.reshape(words, [tasks, width, batch])
    # One random word an entry: its lower half decides whether, its upper half by whom.
    chance = tf.cast(tf.bitwise.bitwise_and(words, tf.constant(0xFFFF, tf.uint32)), tf.int32)
    if damage.patches:
        alone = stateless.normal_of((tf.cast(chance, inputs.dtype) + 0.5) / 0x10000)
        common = tf.transpose(_fields(varying, batch, stateless.fold(keys, "patches")), [0, 2, 1])
        level = (1.0 - damage.patches) ** 0.5 * alone + damage.patches**0.5 * common
        replaced = level < statistics.NormalDist().inv_cdf(damage.corruption)
    else:
        replaced = chance < int(damage.corruption * 0x10000)
    donor = tf.cast(tf.bitwise.right_shift(words, tf.constant(16, tf.uint32)), tf.int32) % batch
    columns = tf.transpose(view, [0, 2, 1])
    given = tf.gather(columns, donor, batch_dims=2)
    view = tf.transpose(tf.where(replaced, given, columns), [0, 2, 1])
    view.set_shape(inputs.shape)
    return view


def _fields(varying, count, keys):
    """Random fields over the inputs with their own covariance, `[tasks, count, in]`, each value of variance about 1."""
    tasks, batch, _ = tf.unstack(tf.shape(varying))
    shares = tf.reshape(stateless.normal(keys, count * batch, varying.dtype), [tasks, count, batch])
    return tf.matmul(shares, varying) * tf.math.rsqrt(tf.cast(batch, varying.dtype))


def _deformed(inputs, varying, strength, keys):
    """The batch with one deformation for all its examples."""
    field = _fields(varying, 1, stateless.fold(keys, "deformation"))
    taken = tf.nn.softmax(NEARNESS * mean_product(varying, varying) + strength * field, axis=-1)
    return tf.matmul(inputs, taken, transpose_b=True)
