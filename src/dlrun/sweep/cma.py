"""Optuna's CMA-ES without pickles. Optuna pickles its optimizer into the history, and loading a pickle can run code.

Here the optimizer is rebuilt for each point from the complete trials, so it is a function of the history.
"""

from types import ModuleType


def make_sampler(optuna: ModuleType, seed: int) -> object:
    """Return a CmaEsSampler that neither writes nor reads pickles."""

    class Replayed(optuna.samplers.CmaEsSampler):
        def _restore_optimizer(self, completed_trials: list) -> None:
            self._history = completed_trials

        def _init_optimizer(self, trans: object, direction: object) -> object:
            optimizer = super()._init_optimizer(trans, direction)
            sign = 1 if direction == optuna.study.StudyDirection.MINIMIZE else -1
            size = optimizer.population_size
            while len(trials := self._get_solution_trials(self._history, optimizer.generation)) >= size:
                optimizer.tell([(trans.transform(trial.params), sign * trial.value) for trial in trials[:size]])
            return optimizer

        def _split_optimizer_str(self, optimizer_str: str) -> dict[str, str]:
            return {}  # nothing is stored

    return Replayed(seed=seed, warn_independent_sampling=False)
