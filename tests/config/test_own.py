"""The user's own code: plugins by entry point, a trusted dl-run.yaml, a new package. Nothing runs without consent."""

import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dlrun
from dlrun import cli
from dlrun.config import consent, new_package, plugins, project, signatures
from dlrun.config.compose import compose
from dlrun.config.new_package import FILES, TEMPLATE

NET = """from torch import nn
from dlrun.spec import Image

def net(spec: Image):
    return nn.Sequential(nn.Flatten(), nn.Linear(spec.features, spec.outputs))
"""
RAN = "open('ran', 'w').close()\n"
MODEL = "# @package _global_\ndefaults: [{override /task: supervised}, _self_]\nmodel: {_target_: PACKAGE.nets.net}\n"
SMALL = ["data=digits", "trainer.epochs=1", "trainer.device=cpu"]


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """A new working folder and home: nothing is allowed, no plugin is known, all caches are empty."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(signatures, "ALLOWED", frozenset())
    monkeypatch.setattr(consent, "allowed", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("dlrun.output.plot_files.PlotFiles._plot", lambda *a: None)
    yield
    for cache in (plugins.plugins, project._if_trusted):
        cache.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] in ("acme", "mynets", "evil")]:
        del sys.modules[name]


def package(base, name, net=NET, option="own_net", configs="configs"):
    """A package with a network and its option."""
    (base / name).mkdir(parents=True)
    (base / name / "__init__.py").write_text("")
    (base / name / "nets.py").write_text(net)
    folder = base / name / configs / "model" if configs == "configs" else base / configs / "model"
    folder.mkdir(parents=True)
    (folder / f"{option}.yaml").write_text(MODEL.replace("PACKAGE", name))


def install(base, dist, plugin, name, net=NET, option="own_net"):
    """As if a package with an entry point was installed in this folder."""
    package(base, name, net, option)
    register(base, dist, plugin, name)
    use(base)


def register(base, dist, plugin, name):
    info = base / f"{dist}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text(f"[console_scripts]\nx = y:z\n\n[dlrun.plugins]\n{plugin} = {name}\n")


def use(base):
    sys.path.insert(0, str(base))
    importlib.invalidate_caches()
    plugins.plugins.cache_clear()


def refused(monkeypatch, capsys, *arguments, code=2):
    monkeypatch.setattr(sys, "argv", ["dl-run", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    err = capsys.readouterr().err
    assert ended.value.code == code and "Traceback" not in err, err
    return err


# --- plugins ----------------------------------------------------------------------------------------------------------


def test_an_installed_plugin_adds_options_and_allowed_code(tmp_path, monkeypatch, capsys):
    with pytest.raises(dlrun.UserError, match="no such option"):
        dlrun.train("model=own_net", *SMALL)
    install(tmp_path / "site", "acme_nets", "acme", "acme")
    assert plugins.plugins()["acme"] == ("acme", tmp_path / "site" / "acme" / "configs", "acme_nets-1.0")
    run = dlrun.train("model=own_net", *SMALL)
    assert type(run.module[1]).__name__ == "Linear" and run.config["model"]["_target_"] == "acme.nets.net"
    monkeypatch.setattr(sys, "argv", ["dl-run", "--help"])
    cli.main()
    assert "own_net" in capsys.readouterr().out
    assert not consent.is_allowed("acmeother.nets.net") and consent.is_allowed("acme.nets.net")


def test_plugins_that_clash_or_fail_are_named(tmp_path, monkeypatch, capsys):
    site = tmp_path / "site"
    install(site, "acme_nets", "acme", "acme", net="import nothing_like_this\n" + NET)
    err = refused(monkeypatch, capsys, "model=own_net", *SMALL)
    assert "cannot import acme.nets: ModuleNotFoundError: No module named 'nothing_like_this' (" in err
    assert f"{site / 'acme' / 'nets.py'}, line 1)" in err and len(err.splitlines()) == 2
    install(tmp_path / "two", "other", "acme", "evil", option="other_net")
    err = refused(monkeypatch, capsys, *SMALL)
    assert "two installed packages register the plugin 'acme': other-1.0 and acme_nets-1.0" in err
    sys.path.remove(str(tmp_path / "two"))
    install(tmp_path / "three", "third", "third", "mynets", option="mlp")
    assert "model=mlp is there twice" in refused(monkeypatch, capsys, *SMALL)
    sys.path.remove(str(tmp_path / "three"))
    register(tmp_path / "four", "fourth", "fourth", "nowhere_at_all")
    use(tmp_path / "four")
    monkeypatch.setattr(sys, "argv", ["dl-run", "--help"])
    cli.main()  # as its package is not needed
    out, err = capsys.readouterr()
    assert err.count("'fourth' of fourth-1.0 is left out: it names 'nowhere_at_all', and there is no such package") == 1
    assert "own_net" in out and plugins.plugins().keys() == {"acme"}


def test_a_syntax_error_is_shown_with_its_own_place(code, tmp_path, monkeypatch, capsys):
    """Not with that of the import: in the module of a plugin, of a base class, or in one that they import."""
    broken = tmp_path / "code" / "acme" / "broken.py"
    broken.write_text("x = 1\ny = f(2 3)\n")
    (tmp_path / "code" / "acme" / "derived.py").write_text("from acme.broken import Base\nclass Net(Base):\n    pass\n")
    (tmp_path / "code" / "acme" / "nets.py").write_text(f"import acme.broken\n{NET}")
    place = f"SyntaxError: invalid syntax. Perhaps you forgot a comma? ({broken}, line 2: y = f(2 3))"
    for word in ("acme.broken.Net", "acme.derived.Net", "acme.nets.net"):
        assert place in refused(monkeypatch, capsys, f"model={word}", *SMALL)
    assert place in refused(monkeypatch, capsys, "model=acme.broken.Net", "model.width=3")
    assert place in refused(monkeypatch, capsys, "task.loss=acme.broken.loss", *SMALL)
    broken.write_bytes(b"x = 1\n\0")
    assert f"null bytes ({broken})" in refused(monkeypatch, capsys, "model=acme.broken.Net", *SMALL)


def test_a_module_that_is_not_found_is_described(code, tmp_path, monkeypatch, capsys):
    (tmp_path / "code" / "acme" / "inner").mkdir()
    for word, why in {
        "acme.part.Net": f": {tmp_path / 'code' / 'acme'} has no 'part'; did you mean 'parts'?",
        "acme.parts.more.Net": "parts.py is one file",
        "acme.inner.Net": "has no __init__.py",
        "acmee.nets.Net": "Python finds no 'acmee'; did you mean 'acme'?\n    it looks in ",
        "sys.exit": "sys is built-in",
    }.items():
        assert f"model={word}: there is no module " in (err := refused(monkeypatch, capsys, f"model={word}"))
        assert why in err and "no such option" not in err
    assert f"; the working folder is {Path.cwd()}\n    expected an installed package" in refused(
        monkeypatch, capsys, "model=elsewhere.nets.Net"
    )
    sys.path.remove(str(tmp_path / "code"))
    monkeypatch.chdir(tmp_path / "code")
    advice = f"'acme' is in {tmp_path / 'code'}: set PYTHONPATH=., or install it (pip install -e FOLDER)"
    for word in ("model=acme.parts.Net", "task.loss=acme.losses.own", "'task.metrics=[acme.metrics.own]'"):
        assert advice in refused(monkeypatch, capsys, word.strip("'"))


def test_of_two_copies_of_a_plugin_the_first_on_the_path_is_used(tmp_path):
    """An old copy lies behind an environment; its name may be spelt otherwise."""
    install(tmp_path / "old", "Acme_nets", "acme", "acme", option="old_net")
    (tmp_path / "old" / "Acme_nets-1.0.dist-info").rename(tmp_path / "old" / "Acme_Nets-0.9.dist-info")
    install(tmp_path / "new", "acme_nets", "acme", "acme")
    assert plugins.plugins() == {"acme": ("acme", tmp_path / "new" / "acme" / "configs", "acme_nets-1.0")}


def test_the_working_folder_registers_nothing(tmp_path):
    """A cloned repository may hold anything; Jupyter and python -c have its folder in the path."""
    install(Path.cwd(), "evil", "evil", "evil", net=RAN + NET)
    sys.path.insert(0, "")
    plugins.plugins.cache_clear()
    assert plugins.plugins() == {} and not consent.is_allowed("evil.nets.net")
    with pytest.raises(dlrun.UserError, match="no such option"):
        dlrun.train("model=own_net", *SMALL)
    assert not Path("ran").exists()


# --- code as an option ------------------------------------------------------------------------------------------------

CODE = """import torch
from dlrun.data.images.images import Images
from dlrun.types import Count, Positive
from dlrun.tasks.supervised import Supervised

def slow(params, *, lr: Positive, momentum: float = 0.5):
    return torch.optim.SGD(params, lr=lr, momentum=momentum)

def none(params, *, lr: Positive = 0.1):
    return 3

class Sgd(torch.optim.SGD):
    pass

class Wrapped(Sgd):
    def __init__(self, params, *, wobble: Positive = 1.0, **rest):
        super().__init__(params, **rest)

class Decayed(torch.optim.AdamW):
    def __init__(self, params, *, decay: Positive = 0.1, **rest):
        super().__init__(params, weight_decay=decay, **rest)

class Fixed(torch.optim.AdamW):
    def __init__(self, params, *, rate: Positive = 0.1, **rest):
        torch.optim.AdamW.__init__(self, params, rate, **rest)

class All(torch.optim.AdamW):
    def __init__(self, *args, **rest):
        super().__init__(*args, **rest)

class Net(torch.nn.Module):
    def __init__(self, spec, *, width: Count = 8):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(spec.features, width), torch.nn.Linear(width, spec.outputs)
        )

    def forward(self, x):
        return self.layers(x)

class Deeper(Net):
    pass

def half(time, *, factor: Positive = 0.5) -> float:
    return factor

class Own(Supervised):
    pass

class Margin(Own):
    def __init__(self, net, spec, device, update, *, margin: Positive, l1: float, mixup: Positive = 0.3, **rest):
        super().__init__(net, spec, device, update, l1=l1, mixup=mixup, **rest)

class Pictures(Images):
    pass
"""


@pytest.fixture
def code(tmp_path):
    """A package that is allowed."""
    (tmp_path / "code" / "acme").mkdir(parents=True)
    (tmp_path / "code" / "acme" / "__init__.py").write_text("")
    (tmp_path / "code" / "acme" / "parts.py").write_text(CODE)
    use(tmp_path / "code")
    dlrun.allow("acme")


def test_code_is_an_option_of_its_group(code):
    """Its keys and their defaults are read from the source, those of base classes too; a class does as a function."""
    words = ["data=digits", "model=acme.parts.Deeper", "schedule=acme.parts.half"]
    sections, _ = compose([*words, "optimizer=acme.parts.Wrapped", "optimizer.lr=0.2", "model.width=4"])
    assert sections.model == {"_target_": "acme.parts.Deeper", "width": 4} and sections.schedule.factor == 0.5
    assert sections.optimizer.lr == 0.2 and sections.optimizer.wobble == 1.0 and not sections.optimizer.nesterov
    assert sections.task._target_ == "dlrun.tasks.supervised.Supervised"
    run = dlrun.train(*words, "optimizer=acme.parts.slow", "optimizer.lr=0.1", "trainer.epochs=1")
    assert type(run.module).__name__ == "Deeper" and run.config["optimizer"]["momentum"] == 0.5
    assert run.summary["model"] == "acme.parts.Deeper" and run.evaluate("val")["acc"] > 0.3
    assert dlrun.resume(run, "trainer.epochs=2").metrics.height == 2


def test_what_a_class_gives_its_base_itself_is_no_key(code):
    """It was passed a second time, with the value of the base's option."""
    words = ["data=digits", "model=linear", "trainer.max_steps=2", "optimizer=acme.parts."]
    run = dlrun.train(*words[:-1], f"{words[-1]}Decayed", "optimizer.decay=0.2")
    assert run.config["optimizer"]["decay"] == 0.2 and run.config["optimizer"]["betas"] == [0.9, 0.999]
    assert "weight_decay" not in run.config["optimizer"]
    with pytest.raises(dlrun.UserError, match="Decayed has no 'weight_decay'"):
        dlrun.train(*words[:-1], f"{words[-1]}Decayed", "++optimizer.weight_decay=0.2")
    keys = {name: signatures.signature(f"acme.parts.{name}").keys for name in ("Fixed", "All")}
    assert "lr" not in keys["Fixed"] and {"rate", "betas"} <= keys["Fixed"].keys() and "lr" in keys["All"]


def test_code_that_changes_while_a_program_runs_is_read_anew(code, tmp_path):
    """A notebook that reloaded a module kept its old keys until the kernel was restarted."""
    parts = tmp_path / "code" / "acme" / "parts.py"
    words = ["data=digits", "model=acme.parts.Deeper", "trainer.max_steps=1"]
    dlrun.train(*words)
    parts.write_text(parts.read_text().replace("width: Count = 8", "width: Count = 8, depth: Count = 2"))
    with pytest.raises(dlrun.UserError, match=r"Deeper has no 'depth' as Python imported it.*\n.*reload\(acme.parts\)"):
        dlrun.train(*words, "model.depth=3")
    with pytest.raises(dlrun.UserError, match="acme.parts has no 'later' as Python imported it"):
        parts.write_text(parts.read_text() + "\ndef later(time):\n    return 1.0\n")
        dlrun.train("data=digits", "schedule=acme.parts.later")
    importlib.reload(sys.modules["acme.parts"])
    assert dlrun.train(*words, "model.depth=3").config["model"]["depth"] == 3


def experiment(text):
    """A folder of configs with this experiment, named mine."""
    (folder := Path("own", "experiment")).mkdir(parents=True)
    (folder / "mine.yaml").write_text(f"# @package _global_\n{text}")
    return str(folder.parent)


def test_an_experiment_chooses_code_as_the_command_line_does(code, monkeypatch, capsys):
    words = {"model": "Net", "optimizer": "slow", "schedule": "half", "task": "Own"}
    words = {group: f"acme.parts.{name}" for group, name in words.items()} | {"data": "digits"}
    chosen = "".join(f"  - override /{group}: {word}\n" for group, word in words.items())
    folder = experiment(f"defaults:\n{chosen}  - _self_\noptimizer: {{lr: 0.1}}\nmodel: {{width: 4}}\n")
    typed, _ = compose([*(f"{group}={word}" for group, word in words.items()), "optimizer.lr=0.1", "model.width=4"])
    sections, hydra = compose(["experiment=mine"], folder)
    assert sections == typed and words.items() <= hydra.runtime.choices.items()
    with monkeypatch.context() as patch:
        patch.setattr(consent, "allowed", set())
        err = refused(patch, capsys, "optimizer=acme.parts.slow", "optimizer.lr=0.1")  # its keys are not known
        assert "optimizer._target_='acme.parts.slow' is not allowed here" in err and len(err.splitlines()) == 1
        err = refused(patch, capsys, "-cd", folder, "experiment=mine")
        assert "4 errors" in err and err.count("is not allowed here") == 4 and "acme.parts" not in sys.modules
    Path(folder, "optimizer").mkdir()
    file = Path(folder, "optimizer", "acme.parts.slow.yaml")  # comes first
    file.write_text("_target_: torch.optim.SGD\n")
    assert compose(["experiment=mine"], folder)[0].optimizer["_target_"] == "torch.optim.SGD"
    file.unlink()
    run = dlrun.train("experiment=mine", "trainer.max_steps=1", config_dir=folder)
    assert run.summary["model"] == "acme.parts.Net" and run.config["task"]["_target_"] == "acme.parts.Own"
    err = refused(monkeypatch, capsys, "-cd", folder, "experiment=mine", "optimizer.momntum=0")
    assert "did you mean 'optimizer.momentum'?" in err


def test_a_task_of_ones_own_has_the_values_of_the_built_in_one(code, monkeypatch, capsys):
    """Only keys that are new and have no default are asked for."""
    (plain, _), (own, _) = compose(["task=supervised"]), compose(["task=acme.parts.Own"])
    assert own.task == {**plain.task, "_target_": "acme.parts.Own"} and own.task.penalise == ["*"]
    section, _ = compose(["task=acme.parts.Margin", "task.margin=2"])
    changes = {"_target_": "acme.parts.Margin", "margin": 2, "mixup": 0.3}
    assert section.task == {**plain.task, **changes}
    err = refused(monkeypatch, capsys, "task=acme.parts.Margin")
    assert err == "dl-run: task.margin is missing: Margin needs it\n"
    words = ["data=digits", "model.hidden=[4]", "trainer.max_steps=1"]
    run = dlrun.train(*words, "task=acme.parts.Own")
    assert run.summary["test"] == dlrun.train(*words).summary["test"]
    pictures = compose(["data=acme.parts.Pictures"])[0].data  # of many data sets: what they share
    assert pictures.sampler == "none" and pictures.augment.flip is False and "source" not in pictures


BROKEN = """import numpy as np, torch
from dlrun.types import Higher, Positive

def score(y, p) -> Higher:
    return 1.0

def ends(time):
    return np.float64(1 / (1 - time.fraction))

def raising(time):
    return 1 / time.fraction

def negative(time):
    return 0.5 - time.fraction

def made(params, *, lr: Positive = 0.1):
    raise RuntimeError("no memory")

class Step(torch.optim.SGD):
    def step(self, closure=None):
        raise KeyError("momentum")

class Exploding(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for param in group["params"]:
                param.data.div_(0)

def metric(y, p) -> Higher:
    return p.nothing

def many(y, p) -> Higher:
    return p

def word(y) -> Higher:
    return "good"

def failing(spec):
    raise ValueError("no net")

def number(spec):
    return 3

def shape(spec):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(spec.features, 7))

def narrow(spec):
    return torch.nn.Linear(5, 10)
"""


def test_broken_code_is_refused_before_data_is_read(code, tmp_path, monkeypatch):
    """Metrics, optimizers, schedules and networks are tried on small inputs; nothing of the run's is changed by it."""
    from dlrun.data.images.images import Images

    (tmp_path / "code" / "acme" / "broken.py").write_text(BROKEN)
    rows = dlrun.train(*SMALL, "task.metrics=[acme.broken.score]", "schedule=acme.broken.ends").metrics
    assert rows["val/score"].to_list() == [1.0]
    with monkeypatch.context() as patch:
        patch.setattr(Images, "load", lambda *a, **k: pytest.fail("data was read"))
        for words, why in {
            ("schedule=acme.broken.raising",): r"raised ZeroDivisionError: .*broken.py, line 11",
            ("schedule=acme.broken.negative",): "returned -0.49 when 0.99 of the run is done",
            ("optimizer=acme.broken.made",): "optimizer=acme.broken.made raised RuntimeError: no memory",
            ("optimizer=acme.broken.Step", "optimizer.lr=1"): "raised KeyError: 'momentum'",
            ("optimizer=acme.broken.Exploding", "optimizer.lr=1"): "made weights infinite or NaN",
            ("task.metrics=[acme.broken.metric]",): "metrics=acme.broken.metric raised AttributeError",
            ("task.metrics=[acme.broken.many]",): r"returned 200 numbers\n  expected a number from y int64 \(20,\)",
            ("task.metrics=[acme.broken.word]",): "metrics=acme.broken.word returned a str",
            ("model=acme.broken.failing",): "model=acme.broken.failing raised ValueError: no net",
            ("model=acme.broken.number",): "model=acme.broken.number returned a int",
            ("model=acme.broken.shape",): r"returned a tensor \(2, 7\)\n  expected outputs \(2, 10\) of inputs",
            ("model=acme.broken.narrow",): "the network raised RuntimeError",
        }.items():
            with pytest.raises(dlrun.UserError, match=why):
                dlrun.train(*SMALL, *words, "run_dir=refused")
            assert not Path("refused").exists()


LOSSES = """import functools
import torch.nn.functional as F
from torch import nn
from dlrun.types import NonNegative

def rest(out, y, **keys):
    return F.cross_entropy(out, y, **keys)

part = functools.partial(rest, label_smoothing=0.1)

def failing(out, y):
    return F.cross_entropy(out, y.lower())

class Scaled:
    def __init__(self, *, by: NonNegative = 2.0):
        self.by = by

    def __call__(self, out, y):
        return self.by * F.cross_entropy(out, y, reduction="none")

class Halved(nn.Module):
    def __init__(self, *, by: NonNegative = 0.5):
        super().__init__()
        self.by = by

    def forward(self, out, y, reduction="mean"):
        return self.by * F.cross_entropy(out, y, reduction=reduction)

class Learned(Halved):
    def __init__(self, *, by: NonNegative = 0.5):
        super().__init__(by=by)
        self.layer = nn.Linear(1, 1)

class Raising(Scaled):
    def __init__(self, *, by: NonNegative = 0.5):
        raise KeyError(by)

class Placed(Scaled):
    def __init__(self, by):
        self.by = by

class Uncalled:
    pass
"""


ONE_STEP = [*SMALL, "trainer.max_steps=1", "model.hidden=[4]"]


@pytest.fixture
def losses(code, tmp_path):
    """A package with losses, which configs may name."""
    (tmp_path / "code" / "acme" / "losses.py").write_text(LOSSES)


def test_a_loss_is_a_function_or_a_class(losses):
    plain, by_class, by_key, by_module = (
        dlrun.train(*ONE_STEP, f"task.loss={loss}").summary["test"]["test/loss"]
        for loss in (
            "acme.losses.rest", "acme.losses.Scaled", "{_target_: acme.losses.Scaled, by: 3}", "acme.losses.Halved"
        )
    )  # fmt: skip
    assert by_class > plain > by_module and by_key > by_class


def test_what_cannot_be_a_loss_is_refused(losses):
    for loss, why in {
        "{_target_: acme.losses.rest, label_smoothing: 0.1}": "it has no keys; its ** takes none, since keys are read",
        "acme.losses.part": "is made when acme.losses runs, and its parameters are read without running it",
        "acme.losses.nothing": "acme.losses has no 'nothing'",
        "{_target_: acme.losses.Scaled, by: -1}": "by=-1: expected a number >= 0",
        "acme.losses.Learned": "has parameters or buffers",
        "acme.losses.Placed": "its constructor takes by: expected only keys, after *",
        "acme.losses.Uncalled": "its __call__ has ()",
    }.items():
        with pytest.raises(dlrun.UserError) as error:
            dlrun.train(*ONE_STEP, f"task.loss={loss}")
        assert why in str(error.value), error.value


def test_a_loss_that_raises_is_refused_with_its_place(losses):
    for loss, why in {
        "acme.losses.failing": r"losses.failing raised AttributeError: .* no attribute 'lower' \(.*losses.py, line ",
        "acme.losses.Raising": r"acme.losses.Raising\(...\) raised KeyError: 0.5 \(.*losses.py, line ",
    }.items():
        with pytest.raises(dlrun.UserError, match=why):
            dlrun.train(*ONE_STEP, f"task.loss={loss}")


def test_code_that_is_no_option_is_refused(code, monkeypatch, capsys):
    for words, why in {
        ("optimizer=acme.parts.slow",): "optimizer.lr is missing: slow needs it",
        ("optimizer=acme.parts.slow", "optimizer.lr=0.1", "optimizer.momentm=0"): "did you mean 'optimizer.momentum'",
        ("optimizer=acme.parts.Wrapped", "optimizer.wobble=-1"): "optimizer.wobble=-1: expected a number > 0",
        ("optimizer=acme.parts.nope",): "acme.parts has no 'nope'",
        ("optimizer=acme.parts.none",): "returns 3",
        ("optimizer=turtle.Turtle",): "is not allowed here",
        ("data=iris.csv",): "no such option\n  expected data=table data.file=iris.csv",
        ("schedule=acme.parts.Net",): "is a class: expected a function",
    }.items():
        assert why in refused(monkeypatch, capsys, *SMALL, *words)


# --- dl-run.yaml ------------------------------------------------------------------------------------------------------


def test_a_file_in_the_working_folder_is_ignored_until_it_is_trusted(tmp_path, monkeypatch, capsys):
    package(Path.cwd(), "evil", net=RAN + NET, configs="options")
    monkeypatch.delenv("DL_RUN_DATA_DIR", raising=False)
    file = Path("dl-run.yaml")
    file.write_text("output_dir: runs\ndata_dir: data\nallow: [evil]\nconfig_dirs: [options]\n")
    with pytest.raises(dlrun.UserError, match="no such option"):
        dlrun.train("model=own_net", *SMALL)
    own = "{_target_: evil.nets.net}"
    assert "is not allowed here" in refused(monkeypatch, capsys, "model=mlp", f"++model={own}", *SMALL)
    assert not Path("ran").exists() and str(Path.cwd()) not in sys.path
    monkeypatch.setattr(sys, "argv", ["dl-run", "trust"])
    project._if_trusted.cache_clear()
    cli.main()
    assert "is trusted as it is now" in capsys.readouterr().out
    run = dlrun.train("model=own_net", *SMALL)
    assert Path("ran").exists() and run.folder.resolve().is_relative_to(Path.cwd() / "runs")
    assert run.config["data_dir"] == str(Path.cwd() / "data") and dlrun.load().folder == run.folder
    assert dlrun.train("model=own_net", *SMALL, "output_dir=typed").folder.is_relative_to("typed")
    file.write_text(file.read_text() + "# changed\n")
    assert project.project() == {} and not consent.is_allowed("evil.nets.net")
    assert "is not read, as you have not trusted it" in capsys.readouterr().err


def test_a_wrong_file_is_refused_with_all_its_errors(monkeypatch, capsys):
    assert "there is no" in refused(monkeypatch, capsys, "trust")
    Path("dl-run.yaml").write_text("alow: [a]\noutput_dir: 3\nconfig_dirs: [nowhere]\nallow: evil\n")
    err = refused(monkeypatch, capsys, "trust")
    for text in ("4 errors", "did you mean 'allow'?", "output_dir=3", "there is no folder", "allow='evil'"):
        assert text in err
    for text, why in {
        "[1": "expected YAML",
        "- a": "expected keys of",
        "!!python/object/apply:os.system [x]": "YAML",
    }.items():
        Path("dl-run.yaml").write_text(text)
        assert why in refused(monkeypatch, capsys, "trust")
    for text, why in {
        "a: &a [x, x]\nb: &b [*a, *a]\nallow: [*b, *b]": "repeats another value",  # doubles with each line
        "allow: " + 60 * "[" + 60 * "]": "nested more than",
        "allow: ['evil; x']": "expected the name of a package",
        "#" * 100_001: "more than 100,000 bytes",
    }.items():
        Path("dl-run.yaml").write_text(text)
        assert why in refused(monkeypatch, capsys, "trust")
    assert project.project() == {}  # too large a file is no error where it is not asked for
    Path("dl-run.yaml").unlink()
    os.mkfifo("dl-run.yaml")
    assert "cannot read" in refused(monkeypatch, capsys, "trust") and project.project() == {}
    assert not (Path(os.environ["XDG_CONFIG_HOME"]) / "dl-run").exists()
    assert "expected dl-run trust" in refused(monkeypatch, capsys, "trust", "me")


# --- a new package ----------------------------------------------------------------------------------------------------


def test_a_new_package_is_written_completely_and_under_an_unused_name(monkeypatch, capsys):
    assert {path.name for path in TEMPLATE.iterdir()} == set(FILES.values())
    monkeypatch.setattr(sys, "argv", ["dl-run", "new", "acme"])
    cli.main()
    out = capsys.readouterr().out
    for name in FILES:
        path = Path("acme", name.replace("mynets", "acme"))
        assert path.is_file() and "mynets" not in path.read_text() and str(path) in out
    Path("linked").symlink_to("nowhere")
    reasons = {"acme": "is there already", "linked": "is there already", "": "NAME"}
    # modules, and distributions under other names than their modules, which pip would replace
    reasons |= dict.fromkeys(
        ("torch", "json", "hydra_plugins", "pillow", "hydra_core", "dl_run"), "of this name already"
    )
    # options, which would be there twice once the package is installed
    reasons |= {"lenet_mnist": "already: experiment=lenet_mnist\n  expected another name", "mlp": "model=mlp"}
    package(Path("site").absolute(), "other", option="mine_cnn")
    monkeypatch.setattr(new_package, "option_folders", lambda: [Path("site", "other", "configs")])
    reasons |= {"mine": "already: model=mine_cnn", "pokemon": "=pokemon"}
    reasons |= dict.fromkeys(("a-b", "class", "Acme", "../x", "_a", "a_", "9a", "n\u00e4h", "a\n"), "small letters")
    for name, why in reasons.items():
        assert why in refused(monkeypatch, capsys, "new", *([name] if name else []))
    assert sorted(path.name for path in Path().iterdir()) == ["acme", "linked", "site"]


def test_half_a_package_does_not_stay(monkeypatch, capsys):
    def full(path, content):
        if path.name == "losses.py":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        path.write_text(content)

    monkeypatch.setattr(new_package, "write_whole", full)
    err = refused(monkeypatch, capsys, "new", "acme", code=1)  # a full disk
    assert "cannot write" in err and not Path("acme").exists()


@pytest.mark.slow
def test_a_new_package_installs_trains_and_passes_its_test(tmp_path):
    command = [sys.executable, "-P", "-m", "dlrun"]
    env = os.environ | {"PYTHONPATH": str(Path(dlrun.__file__).parents[1])}
    subprocess.run([*command, "new", "mynets"], check=True, env=env, capture_output=True)
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True).returncode:
        pytest.skip("this Python has no pip")
    site = tmp_path / "site"
    subprocess.run(
        [*pip, "install", "-q", "--no-deps", "--no-build-isolation", "--target", site, "./mynets"], check=True
    )
    env["PYTHONPATH"] = f"{site}{os.pathsep}{env['PYTHONPATH']}"
    done = subprocess.run([*command, "experiment=mynets"], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "mynets_bars" in done.stdout, done.stderr
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "mynets"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
