"""environment.txt and changes.patch: the code and packages that a run was started with."""

import re
import subprocess
from importlib.metadata import distributions

import pytest
from runs import compose, train

from dlrun.output import provenance
from dlrun.output.provenance import ChangesWriter, git_commit, packages, write_environment
from dlrun.runs.show import show


def git(*words):
    name = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(["git", *name, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a changed text, a changed binary file, one that is not UTF-8, and one that is not tracked."""
    folder = tmp_path / "checkout"
    (folder / "sub").mkdir(parents=True)
    monkeypatch.chdir(folder)
    for name in ("text", "sub/latin", "binary"):
        (folder / name).write_bytes(b"before\n")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "x")
    (folder / "text").write_text("after\n")
    (folder / "sub" / "latin").write_bytes("gr\xfc\xdfe\n".encode("latin-1"))
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "new.py").write_text("secret = 1\n")
    return folder


def test_packages_equal_those_of_importlib():
    """The names of the folders agree with the files in them."""
    read = {re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower(): d.version for d in distributions()}
    named = {re.sub(r"[-_.]+", "-", name): version for name, version in (line.split("==") for line in packages())}
    assert named == read and "torch" in named


def test_packages_of_both_metadata_formats_are_listed(tmp_path, monkeypatch):
    for name in ("antlr4_python3_runtime-4.9.3-py3.10.egg-info", "torch-2.13.0+cpu.dist-info", "develop.egg-info"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert packages() == ["antlr4-python3-runtime==4.9.3", "torch==2.13.0+cpu"]


def test_the_patch_restores_the_changes(checkout, tmp_path):
    assert git_commit().endswith("+")
    (tmp_path / "run").mkdir()
    ChangesWriter(tmp_path / "run").run()
    changed = {name: (checkout / name).read_bytes() for name in ("text", "sub/latin", "binary")}
    git("checkout", "-q", ".")
    patch = tmp_path / "run" / "changes.patch"
    git("apply", str(patch))
    assert {name: (checkout / name).read_bytes() for name in changed} == changed
    first = patch.read_bytes().splitlines()[0]
    assert first == b"# not tracked by git, content not saved: new.py" and b"secret" not in patch.read_bytes()


def test_a_large_patch_is_a_list_of_files(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "MOST", 1000)
    (checkout / "text").write_text("".join(f"{i}\n" for i in range(10_000)))
    ChangesWriter(tmp_path).run()
    text = (tmp_path / "changes.patch").read_text()
    assert "more than 1,000 bytes" in text and " text " in text and "9999" not in text and len(text) < 2500


def test_a_run_has_both_files_and_show_names_them(checkout, tmp_path):
    config = compose("data=digits", "model.hidden=[4]", "trainer.epochs=1", "trainer.device=cpu")
    train(tmp_path / "run", config)
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("environment.txt", "changes.patch")}
    assert b"torch==" in before["environment.txt"] and b"+after" in before["changes.patch"]
    text = show(tmp_path / "run")
    assert re.search(r"^environment\.txt +\d", text, re.M) and re.search(r"^changes\.patch +\d", text, re.M)
    git("checkout", "-q", ".")
    train(tmp_path / "clean", config)
    assert not (tmp_path / "clean" / "changes.patch").exists()


def test_a_checkout_whose_changes_cannot_be_told_is_not_called_clean(checkout, tmp_path, monkeypatch):
    """Filters and what is inside submodules: git would run programs that they name. The parent's changes are told."""
    git("checkout", "-q", ".")
    assert len(git_commit()) == 40
    subprocess.run(["git", "init", "-q", "inner"], check=True)
    (checkout / "inner" / "text").write_text("a")
    for words in (["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", "inner", *words], check=True, capture_output=True)
    git("-c", "advice.addEmbeddedRepo=false", "add", "inner")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "with a submodule")
    subprocess.run(["git", "-C", "inner", "config", "filter.evil.clean", f"touch {tmp_path}/ran; cat"], check=True)
    (checkout / "inner" / ".git" / "info" / "attributes").write_text("* filter=evil\n")
    (checkout / "inner" / "text").write_text("b")  # of the same size
    assert len(git_commit()) == 41 and git_commit().endswith("?") and not (tmp_path / "ran").exists()
    (tmp_path / "run").mkdir()
    write_environment(tmp_path / "run", git_commit())
    assert "\n# Changes in the checkout are unknown" in (tmp_path / "run" / "environment.txt").read_text()
    inner = ["git", "-C", "inner", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*inner, "commit", "-q", "--allow-empty", "-m", "y"], check=True, stdout=subprocess.DEVNULL)
    (tmp_path / "ran").unlink(missing_ok=True)  # by the commit above
    assert git_commit().endswith("+")
    ChangesWriter(tmp_path / "run").run()
    assert "+Subproject commit" in (tmp_path / "run" / "changes.patch").read_text()
    git("config", "filter.any.clean", f"touch {tmp_path}/ran; cat")
    assert git_commit().endswith("?") and not (tmp_path / "ran").exists()


def test_a_missing_folder_or_git_is_no_error(checkout, tmp_path, monkeypatch):
    ChangesWriter(tmp_path / "nowhere").run()
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None
    (tmp_path / "run").mkdir()
    ChangesWriter(tmp_path / "run").run()
    assert not list((tmp_path / "run").iterdir())
    write_environment(tmp_path / "run")
    assert (tmp_path / "run" / "environment.txt").read_text().startswith("# Python 3.")
