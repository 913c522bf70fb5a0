"""CMA-ES by pycma, on the meta-parameters of a small rule."""

import cma
import numpy as np

from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.estimators.base import register
from meta_rules.estimators.black_box import BlackBox, generator

#: Above this the covariance matrix costs more than the networks.
MOST_PARAMETERS = 1000


@register("cma_es")
@configurable
class CMAES(BlackBox):
    """Covariance matrix adaptation (Hansen, "The CMA evolution strategy: a tutorial", arXiv:1604.00772), for genomes.

    The mean of the search distribution becomes theta. The state is the distribution itself as plain arrays (mean, sigma,
    covariance, the two evolution paths, the generation); pycma's own object is rebuilt from them for every call, because
    it could otherwise only be stored as a pickle. That costs milliseconds, and a sequence of rebuilt objects gives the
    same numbers as one that is kept (there is a test). A candidate that fails has the worst rank; a generation of
    failures is passed over.

    Args:
      sigma: deviation of the first population, in units of theta.
      tasks_each, loss, read, criterion: see `BlackBox`.

    Raises:
      UserError: sigma not above zero, or a rule of more than `MOST_PARAMETERS` parameters; see also `BlackBox`.
    """

    smallest_population = 4

    def __init__(
        self,
        sigma: float = 0.2,
        tasks_each: int = 1,
        loss: str = "end",
        read: str = "after",
        criterion: str = "loss",
    ):
        super().__init__(tasks_each, loss, read, criterion)
        self.sigma = sigma
        if not sigma > 0:
            raise UserError(f"CMAES.sigma must be above 0, got {sigma}.")

    def start(self, theta, seed):
        """See `BlackBox.start`."""
        size = len(theta)
        if not 2 <= size <= MOST_PARAMETERS:
            raise UserError(
                f"CMAES works for rules of 2 to {MOST_PARAMETERS} parameters, this one has {size}; take a smaller rule such "
                f"as GenomeRule, or OpenAIES."
            )
        return {
            "seed": np.int64(seed),
            "generation": np.int64(0),
            # The generation that pycma counts: it leaves out those in which all candidates failed.
            "told": np.int64(0),
            "mean": np.asarray(theta, np.float64),
            "sigma": np.float64(self.sigma),
            "covariance": np.eye(size),
            "path": np.zeros(size),
            "sigma_path": np.zeros(size),
        }

    def _asked(self, state, population):
        """pycma's object and its candidates, as they are after `ask` in a run that was never interrupted."""
        random = generator(state)
        options = {
            "popsize": population,
            "randn": lambda *shape: random.standard_normal(shape),
            # pycma would seed NumPy's global generator.
            "seed": np.nan,
            # Eigenvectors are then a function of the covariance alone.
            "updatecovwait": 0,
            # It would move part of the distribution into a coordinate transformation, which is not in our state.
            "conditioncov_alleviate": None,
            "verbose": -9,
            "verb_log": 0,
        }
        told = int(state["told"])
        strategy = cma.CMAEvolutionStrategy(state["mean"], float(state["sigma"]), options)
        if told:
            strategy.countiter = told
            strategy.timer = cma.utilities.utils.ElapsedWCTime()
            strategy.mean_old = strategy.mean
            strategy.pc = np.array(state["path"])
            strategy.adapt_sigma.initialize(strategy)
            strategy.adapt_sigma.ps = np.array(state["sigma_path"])
            strategy.sm.C = np.array(state["covariance"])
            strategy.sm.count_tell, strategy.sm.last_update = told, told - 1
        return strategy, strategy.ask()

    def ask(self, state, theta, population):
        """See `BlackBox.ask`."""
        return np.array(self._asked(state, population)[1])

    def tell(self, state, theta, losses):
        """See `BlackBox.tell`."""
        state = state | {"generation": state["generation"] + 1}
        failed = ~np.isfinite(losses)
        if failed.all():
            return state, np.asarray(theta, np.float64)
        losses = np.where(failed, np.max(losses[~failed]) + 1.0, losses)
        strategy, candidates = self._asked(state | {"generation": state["generation"] - 1}, len(losses))
        strategy.tell(candidates, list(losses))
        state |= {
            "told": np.int64(strategy.countiter),
            "mean": np.array(strategy.mean),
            "sigma": np.float64(strategy.sigma),
            "covariance": np.array(strategy.sm.C),
            "path": np.array(strategy.pc),
            "sigma_path": np.array(strategy.adapt_sigma.ps),
        }
        return state, state["mean"]
