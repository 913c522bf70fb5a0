"""Networks trained by a rule, several side by side in one compiled program: what every judgement of a rule rests on."""

import tensorflow as tf

from meta_rules import stateless
from meta_rules.inner_loop import unroll
from meta_rules.rules.base import per_task


class NetworkTraining:
    """Starts base networks and applies a rule to them.

    Args:
      rule: an `UpdateRule`.
      layer_sizes, activation: of the base network; see `BaseNetwork`.
      batch: function of `(data, keys [tasks, 2])` that draws an unlabelled batch `[tasks, batch, inputs]`; it is compiled. For
        a rule that says `needs_labels` it gives the `Side` too: `(inputs, side)`.
    """

    def __init__(self, rule, layer_sizes, activation, batch):
        self.rule, self.layer_sizes = rule, layer_sizes
        self.network = rule.network(layer_sizes, activation)
        self._batch = batch
        self._compiled = {}

    @tf.function(jit_compile=True, autograph=False)
    def start(self, keys):
        """A fresh network for every key `[tasks, 2]`."""
        return self.rule.initial_state(self.layer_sizes, stateless.fold(keys, "network"))

    def train(self, theta, keys, data, state, first, steps, block=None):
        """The state after `steps` applications of the rule, numbered from `first`.

        Args:
          theta: dict of name -> array, the meta-parameters.
          keys: `[tasks, 2]`, the same in every call for one network.
          data: what `batch` draws from.
          state: `NetworkState` of the networks.
          first, steps: integers; the applications `first .. first + steps - 1` are made.
          block: applications a compiled program makes, a divisor of `steps`; `steps` if None. Every length compiles once.
        """
        block = block or steps
        if block not in self._compiled:
            self._compiled[block] = tf.function(
                lambda *args: self._steps(*args, block), jit_compile=True, autograph=False
            )
        for done in range(0, steps, block):
            state = self._compiled[block](theta, keys, data, state, tf.constant(first + done))
        return state

    def _steps(self, theta, keys, data, state, first, steps):
        def step(copies, state, index):
            key = stateless.fold(keys, "step", first + index)
            drawn = self._batch(data, stateless.fold(key, "batch"))
            drawn = tf.nest.map_structure(lambda leaf: tf.cast(leaf, self.rule.dtype), drawn)
            batch, told = (drawn[0], {"side": drawn[1]}) if self.rule.needs_labels else (drawn, {})
            return self.rule.update(
                copies, self.network, state, batch, stateless.fold(key, "rule"), **told
            ), ()

        copies = per_task(theta, keys.shape[0])
        return unroll(step, copies, state, steps, differentiable=False)[0]
