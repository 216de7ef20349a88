"""Load Optuna and open the storage of a search: a journal, or a database that other machines can join."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from dlrun.config.extras import install
from dlrun.errors import UserError, check_state, first_line
from dlrun.output.folders import within
from dlrun.sweep.rows import is_number
from dlrun.sweep.state import State
from dlrun.sweep.workers import others_at_work

if TYPE_CHECKING:
    import optuna


def load_optuna() -> ModuleType:
    """Import Optuna. Raises UserError if it is not installed."""
    try:
        import cmaes  # noqa: F401  needed by sampler=cmaes
        import optuna
    except ImportError as error:
        raise UserError(
            f"sweep=optuna needs Optuna, which is not installed here: {error}\n  install it: {install('optuna')}"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


DATABASES = ("sqlite", "postgresql", "mysql")  # Optuna keeps pickles in Redis
OPTIONS = {"application_name", "charset", "connect_timeout", "ssl_ca", "sslmode", "sslrootcert", "timeout"}
FACTS = {
    **dict.fromkeys(("started", "cwd", "configs"), str),
    **dict.fromkeys(("command", "flags", "arguments"), list),
    "total": int,
}
PUBLISHED = "dl-run"  # the study's attribute with the sweep's command line, for processes that join


def published(url: str, key: str) -> tuple[str, dict]:
    """Return the study name and facts of the newest sweep in a database. Raises UserError if there is none."""
    optuna = load_optuna()
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        raise UserError(f"{key}={url}: there is no such file\n  expected the sweep.storage of an existing sweep")
    storage = database(optuna, url, key)
    sweeps = [s for s in optuna.get_all_study_summaries(storage) if PUBLISHED in s.user_attrs]
    if not sweeps:
        raise UserError(f"{key}={url}: it has no sweep\n  expected one that was started with sweep.storage={url}")
    newest = max(sweeps, key=lambda study: study.user_attrs[PUBLISHED]["started"])
    facts = newest.user_attrs[PUBLISHED]
    try:
        check_state(facts, FACTS)
        if not all(isinstance(word, str) for name in ("command", "flags", "arguments") for word in facts[name]):
            raise ValueError("its command line was edited")
    except ValueError as error:
        raise UserError(f"{key}={url}: the study there is damaged: {error}\n  expected it as dl-run wrote it") from None
    return newest.study_name, dict(facts)


def database(optuna: ModuleType, url: str, key: str) -> "optuna.storages.BaseStorage":
    """Connect to a database. Raises UserError if it cannot be reached, or if its URL could run code."""
    kind, _, rest = url.partition("://")
    options = {name for name, _ in parse_qsl(rest.partition("?")[2], keep_blank_values=True)}
    if kind.partition("+")[0] not in DATABASES or options - OPTIONS:
        wrong = ", ".join(sorted(options - OPTIONS)) or f"{kind}://"
        raise UserError(
            f"{key}={hidden(url)}: {wrong} could run code\n"
            f"  expected one of {', '.join(DATABASES)}, with only these options: {', '.join(sorted(OPTIONS))}"
        )
    try:
        return optuna.storages.get_storage(url)
    except Exception as error:  # SQLAlchemy, drivers and sockets raise different exceptions
        raise UserError(
            f"{key}={hidden(url)}: cannot reach it: {first_line(error)}\n"
            "  expected the URL of a running database, such as sqlite:///sweeps.db or "
            "postgresql://user:password@host/db\n  or null, which keeps the search in the sweep's folder"
        ) from None


def hidden(url: str) -> str:
    """Return a URL without its password."""
    return re.sub(r"://([^:/@]*):[^@]*@", r"://\1:***@", url)


def journal(optuna: ModuleType, state: State) -> "optuna.storages.BaseStorage":
    """Open and check the history in the sweep's folder. Raises UserError if Optuna cannot have written it."""
    path = within(state.folder.resolve(), "optuna.journal")
    if not others_at_work(state.folder, state.worker):  # a lock can only be that of a killed process
        path.with_name(path.name + ".lock").unlink(missing_ok=True)
        if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
            path.write_bytes(text[: text.rfind(b"\n") + 1])  # drop a line that a power cut left incomplete
    try:
        kinds = optuna.storages.journal
        storage = kinds.JournalStorage(kinds.JournalFileBackend(str(path)))
        for study in storage.get_all_studies():
            for trial in storage.get_all_trials(study._study_id, deepcopy=False):
                _check(trial)
    except OSError:
        raise
    except Exception as error:  # Optuna can raise any exception on an edited line
        raise UserError(
            f"the search's history {path} is damaged: {first_line(error)}\n"
            "  expected the file as Optuna wrote it; restore it"
        ) from None
    return storage


def _check(trial: "optuna.trial.FrozenTrial") -> None:
    """Raise ValueError, or an exception of Optuna's, if Optuna cannot have written this trial."""
    trial._validate()
    steps, values = trial.intermediate_values.keys(), [*trial.intermediate_values.values(), *(trial.values or [])]
    if not all(type(step) is int for step in steps) or not all(map(is_number, values)):
        raise ValueError(f"trial {trial.number} has a value that is not a number")
    if not isinstance(trial.user_attrs, dict) or not isinstance(trial.system_attrs, dict):
        raise ValueError(f"trial {trial.number} has no attributes")


@contextmanager
def reaching(optuna: ModuleType, has_database: bool) -> Iterator[None]:
    """Turn a failing database or disk into a UserError. Running jobs are stopped and can be resumed."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, OSError) as error:
        where = "the database that sweep.storage names" if has_database else "a disk with room"
        raise UserError(
            f"the search's history cannot be read or written: {first_line(error)}\n"
            f"  expected {where}; finished work is kept: resume with dl-run -m sweep.resume=last"
        ) from error
