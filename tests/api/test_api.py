"""The Python interface: the bits and texts of the command line; the state of the host program is restored."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
import torch
from finished_runs import FAMILIES, untrained, write_texts
from PIL import Image
from runs import assert_same, dl_run, ended

import dlrun
from dlrun.api.command import _folders, run_command
from dlrun.api.memory import as_polars, given
from dlrun.api.run import Run
from dlrun.api.words import as_words
from dlrun.tasks.supervised import Supervised

SMALL = ["data=digits", "model.hidden=[16]", "trainer.epochs=2", "trainer.device=cpu", "trainer.log_every=0"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dlrun.output.plot_files.PlotFiles._plot", lambda *a: None)  # drawing takes most of the time


def samples(count=200, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 3)).astype(np.float32)
    return x, (x.sum(1) > 0).astype(np.int64)


def test_import_is_fast_and_loads_no_torch():
    code = (
        "import time; t = time.process_time(); import dlrun; dlrun.train, dlrun.UserError; "
        "print(time.process_time() - t); import sys; print('torch' in sys.modules, 'hydra' in sys.modules)"
    )
    found = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() for _ in "ab"]
    assert min(float(words[0]) for words in found) < 0.1
    assert found[0][1:] == ["False", "False"]


def test_help_shows_the_function_and_loads_no_torch():
    """dlrun.train is both a package and a function."""
    code = "import pydoc, sys, dlrun; print(pydoc.plain(pydoc.render_doc(dlrun.NAME)), 'torch' in sys.modules)"
    for name, words in {
        "train": ("Train a run and return it.", "*words: str", "y_test: Any = None,", "config_dir: str | "),
        "sweep": ("Run a sweep or a search", "*words: str", "config_dir: "),
        "runs": ("List all runs in a folder", "output_dir: "),
    }.items():
        shown = subprocess.run(
            [sys.executable, "-c", code.replace("NAME", name)], capture_output=True, text=True
        ).stdout
        assert all(word in shown.partition("PACKAGE CONTENTS")[0] for word in words) and shown.split()[-1] == "False"
        assert shown.index(words[0]) < 120, "before the package's own text"


@pytest.mark.thorough
def test_results_equal_those_of_the_command_line_whatever_the_host_program_sets(tmp_path):
    process = dl_run(tmp_path / "log", *SMALL, f"run_dir={tmp_path / 'command'}")
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(5), np.random.seed(5)
    drawn = np.random.get_state()[1].tolist()
    before = torch.get_rng_state(), list(sys.argv), [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    try:
        with torch.no_grad(), torch.inference_mode(), torch.autocast("cpu"):
            run = dlrun.train(*SMALL[:2], {"trainer": {"epochs": 2, "device": "cpu", "log_every": 0}}, "run_dir=python")
            assert not torch.is_grad_enabled() and torch.is_inference_mode_enabled()
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.random.get_state()[1].tolist() == drawn
    assert torch.equal(torch.get_rng_state(), before[0]) and sys.argv == before[1]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before[2]
    assert ended(process) == 0, (tmp_path / "log").read_text()
    assert_same(tmp_path / "command", run.folder)
    assert dlrun.load(tmp_path / "command").evaluate() == run.evaluate("test")


def test_errors_read_as_on_the_command_line(tmp_path):
    for words in (
        ["model=mpl"],
        ["trainer.epochs=0"],
        ["trainer.epoch=3"],
        ["data=moons", "model=lenet"],
        ["sweep.jobs=2"],
    ):
        process = dl_run(tmp_path / "log", *words)
        with pytest.raises(dlrun.UserError) as error:
            dlrun.train(*words)
        assert ended(process) == 2
        assert (tmp_path / "log").read_text() == f"dl-run: {error.value}\n"
        (tmp_path / "log").unlink()
    with pytest.raises(dlrun.UserError, match="expected dlrun.resume"):
        dlrun.train("resume=last")
    for words in (["seeds=4"], ["-m", "seed=0,1"], [{"seeds": 4}]):
        with pytest.raises(dlrun.UserError, match=r"asks for several runs\n  expected dlrun.sweep"):
            dlrun.train(*words)
    with pytest.raises(dlrun.UserError, match="a flag of the command line"):
        dlrun.train("--json", "model=mlp")
    with pytest.raises(dlrun.UserError, match="mode=time: dlrun.train trains"):
        dlrun.train("mode=time")
    with pytest.raises(dlrun.UserError, match="there is no run under"):
        dlrun.load()
    assert not Path("outputs").exists()


def test_values_become_overrides_of_the_command_line():
    given = {"model": "lenet", "trainer": {"epochs": np.int64(3), "compile": True}, "init": None}
    assert as_words(["a=1", given]) == ["a=1", "model=lenet", "trainer.epochs=3", "trainer.compile=true", "init=null"]
    assert as_words([{"model.hidden": (64, 32), "data.file": Path("/a b/c.csv"), "seed": "5", "x": "true"}]) == [
        "model.hidden=[64,32]", 'data.file="/a b/c.csv"', 'seed="5"', 'x="true"',
    ]  # fmt: skip
    assert as_words([{"optimizer": {"groups": {"head": {"lr": 0.1}}}}]) == ["optimizer.groups={head:{lr:0.1}}"]
    for wrong in (3, {"a": object()}, {1: 2}):
        with pytest.raises(dlrun.UserError, match="expected"):
            as_words([wrong])


def test_an_interrupt_saves_first_and_the_run_resumes_to_the_bit():
    words = [*SMALL, "trainer.checkpoint_gap=0"]
    whole = dlrun.train(*words, "run_dir=whole")
    learn = Supervised.step

    def step(self, batch, clock):
        if clock.step == 25:
            signal.raise_signal(signal.SIGINT)
        return learn(self, batch, clock)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with patch.object(Supervised, "step", step), pytest.raises(KeyboardInterrupt, match="dlrun.resume"):
            dlrun.train(*words, "run_dir=cut")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    cut = dlrun.load("cut")
    assert cut.status == "stopped" and cut.summary["steps"] == 26
    assert_same(whole.folder, dlrun.resume(cut).folder)


def test_threads_run_one_after_another():
    found = {}

    def train(seed):
        found[seed] = dlrun.train(*SMALL, f"seed={seed}", f"run_dir=thread{seed}")

    threads = [threading.Thread(target=train, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same(found[1].folder, dlrun.train(*SMALL, "seed=1", "run_dir=alone").folder)
    assert [run.status for run in found.values()] == ["finished"] * 2


@pytest.mark.thorough
def test_arrays_train_and_resume_only_with_the_same_arrays():
    x, y = samples()
    words = ["model.hidden=[8]", "trainer.device=cpu"]
    whole = dlrun.train(*words, "trainer.epochs=3", "run_dir=whole", x=torch.tensor(x), y=y.tolist())
    cut = dlrun.train(*words, "trainer.epochs=1", "run_dir=cut", x=x, y=y)
    loaded = dlrun.load(cut.folder)
    with pytest.raises(dlrun.UserError, match="in the memory of a Python program"):
        loaded.evaluate()
    with pytest.raises(dlrun.UserError, match="in the memory of a Python program"):
        dlrun.resume(loaded, "trainer.epochs=3")
    with pytest.raises(dlrun.UserError, match="the data has changed"):
        dlrun.resume(loaded, "trainer.epochs=3", x=x + 0.01, y=y)
    before = cut.outputs(x)
    again = dlrun.resume(loaded, "trainer.epochs=3", x=x, y=y)
    assert np.array_equal(cut.outputs(x), again.outputs(x)) and not np.array_equal(cut.outputs(x), before)
    with pytest.raises(dlrun.UserError, match="a number that is not finite"):
        again.predict(np.full_like(x[:2], np.nan))
    assert torch.equal(again.module(torch.tensor(x)), whole.module(torch.tensor(x)))
    assert again.evaluate("val")["acc"] == again.summary["best"]["value"]
    assert whole.evaluate(x=x, y=y)["acc"] == np.mean(whole.outputs(x).argmax(1) == y)
    with pytest.raises(dlrun.UserError, match="samples in memory belong to one process"):
        dlrun.train(*words, "trainer.processes=2", x=x, y=y)


def test_frames_and_datasets_train():
    x, y = samples()
    frame = pl.DataFrame({"a": x[:, 0], "b": ["u" if v > 0 else "w" for v in x[:, 1]]})
    words = ["model.hidden=[8]", "trainer.epochs=1", "trainer.device=cpu"]
    run = dlrun.train(*words, x=frame, y=pl.Series("kind", y))
    assert run.finished.data.spec.target_names == ("kind",) and frame.columns == ["a", "b"]
    assert run.predict(frame)["label"].to_list() == run.predict([*frame.iter_rows(named=True)])["label"].to_list()
    assert run.evaluate(x=frame, y=y)["acc"] == np.mean(run.predict(frame)["label"].to_numpy() == y.astype(str))
    dataset = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
    by_set, by_array = (dlrun.train(*words, x=a, y=b) for a, b in ((dataset, None), (x, y)))
    assert torch.equal(by_set.module(torch.tensor(x)), by_array.module(torch.tensor(x)))


class Bad(torch.utils.data.Dataset):
    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i] if not isinstance(self.items[i], Exception) else (_ for _ in ()).throw(self.items[i])


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield 1, 2


class Long(Bad):
    def __len__(self):
        return -3


ONE = (np.zeros(3), 0)
MASKED, META = np.ma.array(np.zeros((3, 2)), mask=np.eye(3, 2)), torch.zeros(3, 2, device="meta")
WRONG = {
    "x has 200 samples, y has 199 targets": samples()[0:1] + (samples()[1][:-1],),
    "an array (N, ...), each of one shape": ([[1, 2], [3]], [0, 1]),
    "y without x": (None, [1]),
    "Bad[1] is a int: 5": (Bad(ONE, 5), None),
    "Bad[1]: x has the shape (4,), that of the first item (3,)": (Bad(ONE, (np.zeros(4), 0)), None),
    "Bad[0] raised OSError: gone": (Bad(OSError("gone")), None),
    "Bad[0]: x is a dict": (Bad(({"a": 1}, 0)), None),
    "Bad has no items": (Bad(), None),
    "Stream has no length: it is a stream": (Stream(), None),
    "y='z': train has no such column": (pl.DataFrame({"a": [1, 2]}), "z"),
    "expected only one of the two": (Bad(ONE), [1]),
    "Bad[1]: x: setting an array element with a sequence": (Bad((1, 0), ([1, [2, 3]], 0)), None),
    "len() of Long raised ValueError: __len__() should return >= 0": (Long(ONE), None),
    "train: the frame has no rows": (pl.DataFrame({"a": []}), "a"),
    "x without y": (pl.DataFrame({"a": [1, 2]}), None),
    "the LazyFrame raised": (pl.scan_csv("nowhere.csv"), "a"),
    "x: a masked array has no values where it is masked": (MASKED, [0, 1, 0]),
    "y: a masked array has": ([1, 2, 3], MASKED[:, 0]),
    "Bad[0]: x: a masked array has": (Bad((MASKED[0], 0)), None),
    "x: Cannot copy out of meta tensor": (META, [0, 1, 0]),
    "Bad[0]: x: Cannot copy out of meta tensor": (Bad((META[0], 0)), None),
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_samples_are_refused_before_anything_is_written(text):
    x, y = WRONG[text]
    with pytest.raises(dlrun.UserError) as error:
        if text == "y without x":
            dlrun.train(x=x, y_test=y)
        dlrun.train(x=x, y=y)
    assert text.removeprefix("y ") in str(error.value) and not Path("outputs").exists()


def test_missing_values_of_pandas_become_null():
    class Series(list):
        def tolist(self):
            return list(self)

    class NAType:
        """As pandas' own: it equals nothing and has no truth value."""

        def __ne__(self, other):
            return self

        def __bool__(self):
            raise TypeError("boolean value of NA is ambiguous")

    column = Series([1.0, float("nan"), NAType()])
    members = {"__module__": "pandas.core.frame", "columns": ["a"], "__getitem__": lambda self, name: column}
    frame = type("DataFrame", (), members)()
    assert as_polars(frame)["a"].to_list() == [1.0, None, None]
    assert given(None, None, None, None, None, None).data == {}
    members["columns"] = ["a", "a"]
    with pytest.raises(dlrun.UserError, match="two columns 'a'"):
        as_polars(type("DataFrame", (), members)())


def test_a_lazy_frame_is_collected():
    frame = pl.DataFrame({"a": [1, 2], "b": [0, 1]})
    lazy, eager = (given(x, "b", x, "b", None, None) for x in (frame.lazy(), frame))
    assert lazy.words == eager.words and lazy.data["source"]()["val"].equals(eager.data["source"]()["val"])


def test_predictions_from_every_kind_of_object(tmp_path):
    write_texts(tmp_path)

    def made(family):
        return dlrun.load(untrained(tmp_path / family, [o.format(data=tmp_path) for o in FAMILIES[family]]))

    run, pixels = made("classes"), np.random.default_rng(0).integers(0, 255, (5, 8, 8), np.uint8)
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    wanted = run.outputs(pixels)
    assert wanted.shape == (5, 10) and np.allclose(wanted.sum(1), 1, atol=1e-6)
    for x in (pixels[:, None], torch.tensor(pixels), pixels[..., None], paths, [Image.open(p) for p in paths]):
        assert np.array_equal(run.outputs(x), wanted)
    assert np.array_equal(run.outputs(paths[0]), run.outputs(pixels[0]))
    labels = run.predict(pixels)
    assert labels["label"].to_list() == [str(i) for i in wanted.argmax(1)] and "p(9)" in labels.columns
    stored = torch.tensor(pixels[:, None])
    assert np.allclose(run.full_module(stored).detach().numpy(), wanted, atol=1e-6)
    assert not run.module.training
    zeros, shape = torch.zeros(2, 1, 8, 8), r"the module got an input of shape \(8, 8\)\n  expected \(batch, 1, 8, 8\)"
    for x, text in (
        (torch.zeros(8, 8), shape),
        (zeros.double(), "type float64\n  expected float32"),
        (None, "NoneType"),
        (zeros.to("meta"), "on the device meta, which has no values\n  expected one with values"),
        (zeros.to_sparse(), "a sparse tensor\n  expected a dense one"),
        (torch.nested.as_nested_tensor(zeros), "a nested tensor"),
    ):
        with pytest.raises(dlrun.UserError, match=text):
            run.module(x)
    assert run.module.to("meta")(zeros.to("meta")).shape == (2, 10)  # to count operations, say
    with pytest.raises(dlrun.UserError, match=r"on the device cpu\n  expected one on .*: x.to\('meta'\)"):
        run.module.to("meta")(zeros)
    assert run.module.double()(zeros.double()).dtype is torch.float64
    for x, text in (
        (stored[0], r"of shape \(1, 8, 8\)"),
        (stored.float(), "expected pixels as they are stored, uint8"),
        (stored.to("meta"), "on the device meta"),
    ):
        with pytest.raises(dlrun.UserError, match=text):
            run.full_module(x)
    for x, text in ((pixels / 255, "uint8"), (pixels[:, :4], "has the shape"), ([3], "is no image"), (None, "nothing"),
                    (5, "5 is no image"), (META.to(torch.uint8), "meta tensor"), (MASKED, "masked array")):  # fmt: skip
        with pytest.raises(dlrun.UserError, match=text):
            run.predict(x)
    assert made("targets").predict([[0.5, 1.0]]).height == 1
    with pytest.raises(dlrun.UserError, match="one text or number per column"):
        (rows := made("columns")).predict([{"x": 1}, 5])
    texts = made("texts")
    assert texts.predict(["a good film", "bad"])[:1].equals(texts.predict("a good film"))
    for x in (5, np.zeros((2, 2)), pl.LazyFrame({"a": ["good"]})):
        with pytest.raises(dlrun.UserError, match="is no text"):
            texts.predict(x)
    assert made("masks").predict(np.zeros((2, 16, 16, 3), np.uint8)).shape == (2, 16, 16)
    gan, actor = made("gan"), made("actor")
    assert gan.predict(samples=3).shape[0] == 3
    assert actor.predict(episodes=2).columns == ["episode", "return", "length"]
    for each, size in ((gan, 64), (actor, 4), (rows, rows.finished.data.spec.features), (texts, 6)):
        wrong = [torch.zeros(3, size, 3), torch.zeros(3, size, dtype=torch.bool), np.zeros((3, size))]
        right = torch.zeros(3, size, dtype=torch.int32 if each is texts else torch.float32)
        wrong += [right.to("meta"), right.to_sparse()]
        for module in (each.module, each.full_module):
            out = module(right)
            assert len(out[0] if isinstance(out, tuple) else out) == 3
            for x in wrong:
                with pytest.raises(dlrun.UserError, match="the module got an? "):
                    module(x)
    with pytest.raises(dlrun.UserError, match="this run takes --episodes|this run takes"):
        made("values").predict(np.zeros((1, 4)))


def test_a_stranger_s_names_are_escaped(tmp_path):
    folder = untrained(tmp_path / "<img src=x onerror=alert(1)>", FAMILIES["two classes"])
    (folder / "summary.json").write_text(
        '{"status": "finished", "model": "<script>", "best": {"metric": "<b>", "value": 1}}'
    )
    run = dlrun.load(folder)
    html = run._repr_html_()
    assert "<script>" not in html and "<img" not in html and "<b>" not in html and "&lt;script&gt;" in html
    for name in ("loss.png", "acc.png"):
        (folder / "plots").mkdir(exist_ok=True)
        (folder / "plots" / name).symlink_to("/etc/hostname")
    for best, test in (
        ('{"value": "a", "metric": "\\u001b[2J\\ud800"}', '{"a": "b"}'),
        ("[1]", '"x"'),
        ('{"epoch": []}', "{}"),
    ):
        (folder / "summary.json").write_text(f'{{"status": ["x"], "data": {{}}, "best": {best}, "test": {test}}}')
        assert "\x1b" not in repr(run) + run._repr_html_() + run.figures._repr_html_()
        (repr(run) + run._repr_html_()).encode()
        assert "<img" not in run._repr_html_()
    sweep = dlrun.Sweep(folder)
    assert "no results" in repr(sweep) and "no results" in sweep._repr_html_()


def test_a_notebook_shows_the_figures(tmp_path):
    (tmp_path / "plots").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "plots" / "loss.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "plots" / "rows.gif")
    html = Run(tmp_path).figures._repr_html_()
    assert html.count("<img") == 2 and "data:image/png;base64,iVBOR" in html and "data:image/gif;base64,R0lG" in html


def test_allow_accepts_only_names_of_packages():
    with pytest.raises(dlrun.UserError, match="expected the name of a package"):
        dlrun.allow("my nets")


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """A package that is allowed, and on this program's own path only, as one in a script's folder is."""
    (tmp_path / "beside" / "mynets").mkdir(parents=True)
    (tmp_path / "beside" / "mynets" / "nets.py").write_text(
        "from torch import nn\n\n\ndef wide(spec, *, width: int = 4):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(spec.features, width), nn.Linear(width, spec.outputs))\n"
    )
    monkeypatch.setattr("dlrun.config.consent.allowed", (allowed := set()))
    monkeypatch.setattr("dlrun.api.command.allowed", allowed)
    monkeypatch.syspath_prepend(tmp_path / "beside")
    dlrun.allow("mynets.nets")
    return tmp_path / "beside"


def test_a_new_process_finds_allowed_packages_and_no_others(beside):
    code = "from dlrun.config.signatures import is_allowed, signature; print(signature('mynets.nets.wide').keys, "
    code += "is_allowed('mynets.nets.wide'), is_allowed('mynets.netsuite.x'), is_allowed('mynets.other.x'))"
    with patch("dlrun.api.command.COMMAND", ["-P", "-c", code]), patch("dlrun.api.command.json.loads") as line:
        line.return_value = {"exit_code": 0, "error": None, "folder": "."}
        run_command([])
    assert line.call_args.args[0] == "{'width': <class 'int'>} True False False"
    assert _folders(["torch", "mynets.nets", "nowhere"]) == [str(beside)]


@pytest.mark.slow
def test_allow_reaches_the_jobs_of_sweeps(beside):
    sweep = dlrun.sweep("model=mynets.nets.wide", "model.width=3,4", "data=moons", *SMALL[2:], "trainer.max_steps=1")
    assert sweep.jobs["status"].to_list() == ["finished", "finished"], sweep.results


@pytest.mark.slow
def test_sweeps_and_distributed_runs_start_their_own_processes():
    sweep = dlrun.sweep("seed=0,1", *SMALL)
    assert [run.status for run in sweep.runs] == ["finished"] * 2 and sweep.jobs.height == 2
    assert sweep.best.folder in [run.folder for run in sweep.runs] and "2 jobs" in repr(sweep)
    assert_same(sweep.runs[0].folder, dlrun.train(*SMALL, "seed=0").folder)
    assert dlrun.sweep("seed=0,-1", *SMALL).jobs["status"].to_list() == ["finished", "refused"]
    seeds = dlrun.sweep("seeds=2", *SMALL)
    assert seeds.jobs.height == 2 and [run.config["seed"] for run in seeds.runs] == [0, 1]
    with pytest.raises(dlrun.UserError, match="sweep.jobs"):
        dlrun.sweep("seed=0,1", "sweep.jobs=0", *SMALL)
    assert dlrun.train(*SMALL, "trainer.processes=2").summary["processes"] == 2


@pytest.mark.slow
def test_the_tour_runs(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    tour = nbformat.read(Path(__file__).parents[2] / "docs" / "tour.ipynb", as_version=4)
    os.environ.setdefault("PYTHONPATH", str(Path(dlrun.__file__).parents[1]))
    nbclient.NotebookClient(tour, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in tour.cells for output in cell.get("outputs", ())]
    assert not [output for output in shown if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in shown)
