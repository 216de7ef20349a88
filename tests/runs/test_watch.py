"""`dl-runs watch`: charts as text, runs that are read while they are written, and a terminal that is restored."""

import json
import os
import pty
import re
import select
import signal
import sys
import termios
import time

import pytest
from filelock import FileLock
from run_files import write_run

from dlrun.output.folders import all_runs
from dlrun.output.text_chart import chart, points
from dlrun.runs.listing import as_table, facts
from dlrun.runs.live import LiveRun
from dlrun.runs.watch import Watch, watch

CODES = re.compile(r"\x1b\[\d*m")


def test_a_diagonal_goes_from_corner_to_corner():
    assert chart([[(0, 0), (1, 1)]], 15, 3, colour=False) == ["no values yet  ", *[" " * 15] * 2]  # too narrow
    lines = chart([[(0, 0), (7, 7)]], 20, 5, braille=False, colour=False)
    body = [line.partition("|")[2] for line in lines[:-1]]
    assert [row.index("*") for row in body] == sorted((row.index("*") for row in body), reverse=True)
    assert body[0].endswith("*") and body[-1].startswith("*")
    assert lines[0].startswith("7 ") and lines[3].startswith("0 ") and lines[4].split() == ["0", "7"]


@pytest.mark.parametrize(
    "curve", [[(1, 5.0)], [(1, 0.0), (2, 0.0)], [(1, 1e-12), (9, 1e12)], [(1, 1.0), (2, 1 + 1e-9)]]
)
@pytest.mark.parametrize("braille", [True, False])
def test_charts_are_as_wide_as_asked(curve, braille):
    for width, height in ((16, 3), (38, 10), (79, 24)):
        lines = chart([curve], width, height, braille, colour=False)
        assert len(lines) == height and {len(line) for line in lines} == {width}
        assert any(ord(c) > 0x2800 if braille else c == "*" for line in lines for c in line)


def test_only_finite_values_are_points():
    rows = [{"epoch": 1, "a": float("nan")}, {"epoch": 2, "a": None}, {"epoch": 3, "a": 1}, {"a": 2.0}]
    assert points(rows, "a") == [(3, 1)]


def test_a_line_is_read_when_it_is_complete(tmp_path):
    run = LiveRun(write_run(tmp_path / "run", 1))
    assert run.read_rows() and len(run.epochs) == 1 and not run.read_rows()
    line = json.dumps({"step": 20, "epoch": 2, "val/loss": 1.0})
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write(line[:9])
        file.flush()
        assert run.read_rows() and len(run.epochs) == 1
        file.write(line[9:] + '\nnot a row\n{"step": 25, "epoch": 2.5, "step/loss": 1}\n')
    assert run.read_rows() and len(run.epochs) == 2 and len(run.steps) == 1
    write_run(tmp_path / "other", 1)  # a resumed run replaces the file by its first lines
    os.replace(tmp_path / "other" / "metrics.jsonl", tmp_path / "run" / "metrics.jsonl")
    assert run.read_rows() and len(run.epochs) == 1 and not run.steps


def test_a_run_that_dies_is_noticed(tmp_path):
    run = LiveRun(write_run(tmp_path / "run", status="running"))
    with FileLock(tmp_path / "run" / ".lock"):
        assert run.read_facts() and run.is_running and not run.read_facts()
    assert run.read_facts() and run.facts["status"] == "killed" and not run.read_facts()


def test_time_left_counts_validations(tmp_path):
    """4 of 10 epochs are done, each took 2.5 seconds, and the last ended just now."""
    run = LiveRun(write_run(tmp_path / "run", status="running"))
    with FileLock(tmp_path / "run" / ".lock"):
        run.read_facts(), run.read_plan(), run.read_rows()
    assert run.planned == 10 and run.epochs_done == 4
    assert 13 < run.seconds_left() <= 15
    os.utime(tmp_path / "run" / "metrics.jsonl", (time.time() - 60, time.time() - 60))
    run.read_rows()
    assert run.seconds_left() == 0


@pytest.mark.parametrize("width", [20, 40, 80, 120, 300])
@pytest.mark.parametrize("height", [5, 24, 60])
def test_the_view_fits_the_terminal(tmp_path, monkeypatch, width, height):
    for i in range(12):
        write_run(tmp_path / "day" / f"a long name of a run \x1b[2J {i}", 3, name="\x1b[5mloss" if i % 2 else "loss")
    view = Watch("title", lambda: all_runs(tmp_path))
    view.read()
    for colour in (False, True):
        view.colour = colour
        for _ in range(12):
            lines = view.lines(width, height)
            assert len(lines) == height
            assert all(len(CODES.sub("", line)) <= width for line in lines)
            assert "\x1b" not in CODES.sub("", "".join(lines))
            view.move(1)
    assert view.chosen == list(view.runs)[-1]


def test_without_a_terminal_it_prints_once(tmp_path, capsys):
    write_run(tmp_path / "day" / "one", 4)
    text = "\n".join(watch("here", lambda: all_runs(tmp_path)))
    assert "1 run, 0 running" in text and "val 0.5000" in text and "train 0.2500" in text and "\x1b" not in text
    assert "no runs here yet" in "\n".join(watch("here", list))


@pytest.mark.parametrize(("leave", "code"), [(b"q", 0), (b"\x03", 0), (signal.SIGTERM, 143)])
def test_the_terminal_is_restored(tmp_path, leave, code):
    """In a terminal of its own: the old screen, the cursor and the keyboard's settings return."""
    write_run(tmp_path / "day" / "one", 4)
    pid, terminal = pty.fork()
    if not pid:
        os.environ["TERM"] = "xterm"
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell makes its background jobs ignore it
        command = "import sys; from dlrun.runs.cli import main; sys.argv[0] = 'dl-runs'; main()"
        os.execv(sys.executable, [sys.executable, "-c", command, "watch", "--output-dir", str(tmp_path)])
    before, text = termios.tcgetattr(terminal), ""
    while "q quit" not in text:
        text += os.read(terminal, 65536).decode("utf-8", "replace")
    assert "\x1b[?1049h" in text and termios.tcgetattr(terminal) != before
    os.write(terminal, leave) if isinstance(leave, bytes) else os.kill(pid, leave)
    while select.select([terminal], [], [], 5)[0]:
        try:
            text += os.read(terminal, 65536).decode("utf-8", "replace")
        except OSError:  # the process has ended
            break
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    assert text.rindex("\x1b[?1049l") > text.rindex("q quit") and text.endswith("\x1b[?25h\x1b[?1049l")
    os.close(terminal)


def test_runs_are_found_on_all_levels(tmp_path):
    """Right below the folder (run_dir=outputs/mine), in a day's folder, and in a sweep, whose `best` is a link."""
    folders = [tmp_path / "mine", tmp_path / "day" / "one", tmp_path / "day" / "sweep" / "0"]
    for i, folder in enumerate(folders):
        write_run(folder)
        os.utime(folder / ".hydra" / "overrides.yaml", (i, i))
    (tmp_path / "day" / "sweep" / "best").symlink_to("0")
    assert all_runs(tmp_path) == folders


def test_a_name_of_several_lines_is_one_line(tmp_path):
    folder = write_run(tmp_path / "a\nb", data="x\ty")
    rows = as_table([facts(folder)], 1).splitlines()
    assert len(rows) == 3 and "a\\nb" in rows[2] and "x\\ty" in rows[2]
    view = Watch("", lambda: [folder])
    view.read()
    lines = [CODES.sub("", line) for line in view.lines(100, 24)]
    assert any("a\\nb" in line for line in lines) and not any("\n" in line for line in lines)
