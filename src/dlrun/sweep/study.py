"""Optuna itself, where it is installed, and the database that a search is kept in and joined by."""

import re
import warnings
from pathlib import Path

from dlrun.config.extras import install
from dlrun.errors import UserError


def load_optuna() -> object:
    """The module. Raises UserError where it is not installed."""
    try:
        import cmaes  # noqa: F401  what one of its samplers needs
        import optuna
    except ImportError as error:
        raise UserError(
            f"sweep=optuna needs Optuna, and there is none here: {error}\n  install it: {install('optuna')}"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


PUBLISHED = "dl-run"  # the study's attribute from which others take the command line of the sweep


def published(url: str, key: str) -> tuple[str, dict]:
    """The study of the newest sweep that a database holds, and what it was started with. Raises UserError for none."""
    optuna = load_optuna()
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        raise UserError(
            f"{key}={url}: there is no such file\n  expected the sweep.storage that a sweep was started with"
        )
    storage = database(optuna, url, key)
    found = [s for s in optuna.get_all_study_summaries(storage) if PUBLISHED in s.user_attrs]
    if not found:
        raise UserError(f"{key}={url}: it holds no sweep\n  expected one that was started with sweep.storage={url}")
    newest = max(found, key=lambda study: study.user_attrs[PUBLISHED]["started"])
    return newest.study_name, dict(newest.user_attrs[PUBLISHED])


def database(optuna: object, url: str, key: str) -> object:
    """Raises UserError where it cannot be reached."""
    try:
        return optuna.storages.get_storage(url)
    except Exception as error:  # SQLAlchemy, a driver, a socket: each has its own
        shown = re.sub(r"://([^:/@]*):[^@]*@", r"://\1:***@", url)
        raise UserError(
            f"{key}={shown}: cannot reach it: {str(error).splitlines()[0]}\n"
            "  expected the URL of a database that runs, as in sqlite:///sweeps.db or postgresql://user:password@host/db"
            "\n  or nothing: the search is then kept in the sweep's folder"
        ) from None
