"""Which trial judges a rule on a family: it follows from the problem that the two make."""

from meta_rules.evaluation.few_shot import FewShotTrial, result_rows
from meta_rules.evaluation.semi_supervised import SemiSupervisedTrial
from meta_rules.semi_supervised_learning import SemiSupervisedLearning, problem_of


def trial_of(rule, family, seed=0):
    """The trial of a rule on a family, with a method `accuracies(theta, steps, draws)`.

    Raises:
      UserError: rule and family do not go together.
    """
    if isinstance(problem_of(rule, family), SemiSupervisedLearning):
        return SemiSupervisedTrial(rule, family, seed)
    return FewShotTrial(rule, family, seed)


def judge(rule, family, steps, draws, seed=0):
    """Rows of results.json for a rule with its own meta-parameters on a family; see the trials.

    Args:
      rule: an `UpdateRule`.
      family: of the test split.
      steps: increasing numbers of rule applications.
      draws: tasks.
      seed: of tasks and networks.
    """
    trial = trial_of(rule, family, seed)
    if isinstance(trial, SemiSupervisedTrial):
        return trial.rows(rule.theta(), steps, draws)
    return result_rows(trial.accuracies(rule.theta(), steps, draws), family)
