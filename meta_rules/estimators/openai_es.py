"""OpenAI's evolution strategies: a gradient from the ranks of a population of antithetic pairs."""

import numpy as np

from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.estimators.base import register
from meta_rules.estimators.black_box import BlackBox, generator, ranks


@register("openai_es")
@configurable
class OpenAIES(BlackBox):
    """Rank-shaped antithetic evolution strategies (Salimans et al., arXiv:1703.03864, section 2.1).

    Half of the population are theta plus a perturbation each, the other half theta minus the same. The losses are
    replaced by their centred ranks over the whole population, and the gradient goes to the trainer's optimizer. A
    candidate that fails has the worst rank. It differs from `AntitheticES` in that only the order of the losses counts,
    and that all candidates see the same tasks.

    Args:
      sigma: deviation of the perturbations, in units of theta.
      tasks_each, loss, read, criterion: see `BlackBox`.

    Raises:
      UserError: sigma not above zero; see also `BlackBox`.
    """

    answer = "gradient"
    multiple = 2

    def __init__(
        self,
        sigma: float = 0.02,
        tasks_each: int = 1,
        loss: str = "end",
        read: str = "after",
        criterion: str = "loss",
    ):
        super().__init__(tasks_each, loss, read, criterion)
        self.sigma = sigma
        if not sigma > 0:
            raise UserError(f"OpenAIES.sigma must be above 0, got {sigma}.")

    def start(self, theta, seed):
        """See `BlackBox.start`."""
        return {"seed": np.int64(seed), "generation": np.int64(0)}

    def _noise(self, state, theta, population):
        half = generator(state).standard_normal((population // 2, len(theta)))
        return np.concatenate([half, -half])

    def ask(self, state, theta, population):
        """See `BlackBox.ask`."""
        return theta + self.sigma * self._noise(state, theta, population)

    def tell(self, state, theta, losses):
        """See `BlackBox.tell`."""
        noise = self._noise(state, theta, len(losses))
        gradient = ranks(losses) @ noise / (len(losses) * self.sigma)
        return state | {"generation": state["generation"] + 1}, gradient
