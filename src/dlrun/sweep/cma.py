"""Optuna's CMA-ES without pickles. Optuna pickles its optimizer into the history, and loading a pickle can run code.

Here the optimizer is rebuilt for each point from the complete trials, so it is a function of the history.
"""

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from optuna._transform import _SearchSpaceTransform
    from optuna.samplers import BaseSampler
    from optuna.samplers._cmaes import CmaClass
    from optuna.trial import FrozenTrial


def make_sampler(seed: int) -> "BaseSampler":
    """Return a CmaEsSampler that neither writes nor reads pickles."""
    from optuna.samplers import CmaEsSampler
    from optuna.study import StudyDirection

    class Replayed(CmaEsSampler):
        def _restore_optimizer(self, completed_trials: "list[FrozenTrial]") -> None:
            self._history = completed_trials

        def _init_optimizer(self, trans: "_SearchSpaceTransform", direction: StudyDirection) -> "CmaClass":
            optimizer = super()._init_optimizer(trans, direction)
            sign = 1 if direction == StudyDirection.MINIMIZE else -1
            size = optimizer.population_size
            while len(trials := self._get_solution_trials(self._history, optimizer.generation)) >= size:
                values = [sign * cast(float, trial.value) for trial in trials[:size]]  # complete trials have one
                points = [trans.transform(trial.params) for trial in trials[:size]]
                optimizer.tell(list(zip(points, values, strict=True)))
            return optimizer

        def _split_optimizer_str(self, optimizer_str: str) -> dict[str, str]:
            return {}  # nothing is stored

    return Replayed(seed=seed, warn_independent_sampling=False)
