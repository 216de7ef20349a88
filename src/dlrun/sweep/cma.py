"""Optuna's CMA-ES without its pickles: it keeps its optimizer in the history as one, and to load it can run any code.

Here it is built anew for each point, from the trials that are complete: a function of the history.
"""


def make_sampler(optuna: object, seed: int) -> object:
    """Optuna's CmaEsSampler, which neither writes nor reads a pickle."""

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
            return {}  # nothing to keep

    return Replayed(seed=seed, warn_independent_sampling=False)
