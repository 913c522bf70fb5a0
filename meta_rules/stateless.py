"""Random numbers as pure functions of a key, with one independent stream for every task.

TensorFlow's stateless generators take one seed for a whole tensor. A pool of tasks needs a seed *a task*: then a task
draws the same numbers whether it shares a replica with three others or with three hundred. Keys are int32 tensors
`[..., 2]`; leading axes are independent streams. The generator is Threefry-2x32 with 20 rounds
(Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), checked against its published vectors.
"""

import functools
import zlib

import tensorflow as tf

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
# The second counter word of folds and draws: a child key never repeats what its parent draws.
_FOLD, _DRAW = 0x666F6C64, 0x64726177


def _uint(value):
    value = tf.convert_to_tensor(value)
    if value.dtype == tf.uint32:
        return value
    return tf.bitcast(tf.cast(value, tf.int32), tf.uint32)


def threefry(key, counter):
    """Threefry-2x32-20 of two-word blocks: uint32 `(k0, k1)`, `(c0, c1)` of any shapes that broadcast -> `(x0, x1)`."""
    words = (*key, *counter)
    shape = functools.reduce(tf.broadcast_dynamic_shape, [tf.shape(word) for word in words])
    static = functools.reduce(tf.broadcast_static_shape, [word.shape for word in words])
    if static.is_fully_defined():
        shape = static.as_list()
    flat = [tf.reshape(tf.broadcast_to(word, shape), [-1]) for word in words]
    blocks = _rounds_of(static.num_elements())(*flat)
    return tuple(tf.ensure_shape(tf.reshape(word, shape), static) for word in blocks)


@functools.cache
def _rounds_of(size):
    """`_twenty_rounds` of that many blocks, None for any number, as a TensorFlow function.

    A program draws in hundreds of places: as functions of flat words the rounds are traced once a size, not once a place.
    """
    word = tf.TensorSpec([size], tf.uint32)
    # Outside of whatever program is being traced, which need not outlive this.
    with tf.init_scope():
        return tf.function(_twenty_rounds, autograph=False).get_concrete_function(word, word, word, word)


def _twenty_rounds(k0, k1, c0, c1):
    def body(block, x0, x1, *keys):
        odd = tf.bitwise.bitwise_and(block, 1) > 0
        for turns in zip(*_ROTATIONS, strict=True):
            even_turn, odd_turn = (tf.constant(turn, tf.uint32) for turn in turns)
            turn = tf.where(odd, odd_turn, even_turn)
            x0 = x0 + x1
            left, right = tf.bitwise.left_shift(x1, turn), tf.bitwise.right_shift(x1, 32 - turn)
            x1 = tf.bitwise.bitwise_xor(tf.bitwise.bitwise_or(left, right), x0)
        block = block + 1
        # The keys change places: looked up by the number of the block they would make the program twice as large.
        return block, x0 + keys[1], x1 + keys[2] + block, *keys[1:], keys[0]

    # A loop, not twenty rounds written out: XLA's fusion would copy the chain of rounds over and over (each word is used
    # twice a round) and compile for minutes.
    k2 = tf.bitwise.bitwise_xor(k0 ^ k1, tf.constant(0x1BD11BDA, tf.uint32))
    start = (tf.constant(0, tf.uint32), c0 + k0, c1 + k1, k0, k1, k2)
    return tf.while_loop(lambda block, *_: block < 5, body, start, maximum_iterations=5)[1:3]


def key(seed):
    """A key `[2]` from a Python integer of up to 64 bits."""
    words = [(seed >> shift) & 0xFFFFFFFF for shift in (0, 32)]
    return tf.constant([word - (1 << 32) if word >> 31 else word for word in words], tf.int32)


def fold(keys, *data):
    """New keys `[..., 2]` from keys and integers (or strings, which name a purpose), folded in two by two.

    Integers may be tensors that broadcast with the keys' leading axes.
    """
    words = _uint(keys)
    k0, k1 = words[..., 0], words[..., 1]
    items = [
        tf.constant(zlib.crc32(item.encode()), tf.uint32) if isinstance(item, str) else _uint(item)
        for item in data
    ]
    for i in range(0, len(items), 2):
        pair = items[i : i + 2]
        k0, k1 = threefry((k0, k1), pair if len(pair) == 2 else (*pair, tf.constant(_FOLD, tf.uint32)))
    return tf.bitcast(tf.stack([k0, k1], axis=-1), tf.int32)


def split(keys, count):
    """`count` keys from each key: `[..., 2]` -> `[..., count, 2]`."""
    return fold(keys[..., None, :], tf.range(count))


def bits(keys, count):
    """`count` uniform 32-bit words a key: `[..., 2]` -> uint32 `[..., count]`."""
    words = _uint(keys)
    half = (count + 1) // 2
    counter = tf.bitcast(tf.range(half), tf.uint32)
    x0, x1 = threefry((words[..., 0:1], words[..., 1:2]), (counter, tf.constant(_DRAW, tf.uint32)))
    return tf.concat([x0, x1], axis=-1)[..., :count]


def uniform(keys, count, dtype=tf.float32):
    """`count` numbers a key, uniform in the open interval (0, 1): `[..., 2]` -> `[..., count]`."""
    top = tf.bitwise.right_shift(bits(keys, count), tf.constant(9, tf.uint32))
    # Below 2^23, so that the signed view is the same number and the half is exact in float32.
    return (tf.cast(tf.bitcast(top, tf.int32), dtype) + 0.5) * (2.0**-23)


def normal(keys, count, dtype=tf.float32):
    """`count` standard normal numbers a key: `[..., 2]` -> `[..., count]`."""
    return normal_of(uniform(keys, count, dtype))


def normal_of(share):
    """The number below which that share of standard normal numbers lies, for shares in the open interval (0, 1)."""
    return tf.math.erfinv(2.0 * share - 1.0) * tf.constant(2.0**0.5, share.dtype)


def integers(keys, count, upper):
    """`count` integers a key, uniform in `[0, upper)`; `upper` broadcasts with `[..., count]`."""
    upper = tf.cast(upper, tf.int32)
    drawn = tf.cast(uniform(keys, count) * tf.cast(upper, tf.float32), tf.int32)
    return tf.minimum(drawn, upper - 1)


def permutation(keys, size):
    """A random permutation of `range(size)` a key: `[..., 2]` -> int32 `[..., size]`."""
    return tf.argsort(uniform(keys, size), axis=-1)
