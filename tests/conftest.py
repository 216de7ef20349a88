"""Fixtures that several folders share. Files that need another `config` or `dl_run` define their own."""

import signal
import sys

import pytest
import runs
from reviews import write_reviews

from dlrun import cli
from dlrun.config import signatures


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Take the mark `thorough` from the cases that its `but` names, and from slow ones."""
    missing = {}
    for item in items:
        if mark := item.get_closest_marker("thorough"):
            quick, case = mark.kwargs.get("but", ()), item.callspec.id if hasattr(item, "callspec") else ""
            missing.setdefault(item.nodeid.partition("[")[0], set(quick)).discard(case)
            if case in quick or item.get_closest_marker("slow"):
                item.own_markers = [each for each in item.own_markers if each.name != "thorough"]
    lost = {name: cases for name, cases in missing.items() if cases}
    if lost and not any("::" in argument for argument in config.args):
        raise pytest.UsageError(f"no such cases of a thorough test: {lost}")


@pytest.fixture
def undrawn():
    """No plots are drawn: they take most of the time of a small run."""
    with runs.undrawn():
        yield


@pytest.fixture
def dl_run(monkeypatch, capsys, tmp_path, undrawn):
    """Run the command in this process, in an empty folder, without plots; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # main sets it: restored after the test
    monkeypatch.setattr(signatures, "ALLOWED", frozenset())

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dl-run", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as error:
            code = error.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def refused(dl_run, tmp_path):
    """Run a command that must be refused and must leave only `left` in the folder; returns the text of the error."""

    def run(*arguments, left=()):
        code, _, err = dl_run(*arguments)
        assert code == 2, err
        assert err.startswith("dl-run: ") and "Traceback" not in err and "HYDRA" not in err
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(left)
        return err.removeprefix("dl-run: ")

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a finished run of one epoch, started from the command line. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    with pytest.MonkeyPatch.context() as patch, runs.undrawn():
        patch.chdir(folder.parent)
        patch.setenv("HYDRA_FULL_ERROR", "0")
        patch.setattr(sys, "argv", ["dl-run", "trainer.epochs=1", f"run_dir={folder}"])
        cli.main()
    return folder


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A folder with small MNIST and IMDB data."""
    return write_reviews(runs.write_mnist(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="session")
def config(data_dir):
    """Compose a small run with the given overrides."""
    return lambda *overrides: runs.compose(f"data_dir={data_dir}", *runs.SMALL, *overrides)


@pytest.fixture
def session(config):
    """Make the session of a small run with the given overrides."""
    from dlrun.train.session import Session

    return lambda *overrides: Session(*config(*overrides))


@pytest.fixture(scope="session")
def straight(config, tmp_path_factory):
    """The folder of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    runs.train(folder, config(*runs.STRAIGHT))
    return folder


@pytest.fixture
def stopped(config, tmp_path):
    """The folder of a run as `straight`, stopped in its second epoch."""
    runs.train(tmp_path, config(*runs.STRAIGHT), signals={5: signal.SIGTERM})
    return tmp_path
