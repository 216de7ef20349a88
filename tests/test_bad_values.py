"""Every key with wrong values: it is refused in words, or the run trains; never a traceback, never a hang.

The values of each composition are checked in this process. Those that the check lets through are built, and trained for
a step or two, in processes that are given SECONDS of a processor each: exit code 0, 1 (a training that failed, in
words) or 2. What several compositions have in common, such as a task's keys, is trained in the first of them.
"""

import os
import shutil
import sys
import traceback
from copy import deepcopy
from functools import cache, partial
from pathlib import Path

import pytest
from layouts import write_data
from runs import FORKS
from toys import composed, names_of, options, read_option, takes

from dlrun.config.auto import auto_keys
from dlrun.config.check import SECTIONS, VALUES, check
from dlrun.errors import UserError

SECONDS = 20
MEMORY = 6 * 2**30  # bytes of addresses: what asks for more is refused by the system
BAD = [
    None, True, "", "x", "a\0b", "$x^$", "../../x", [], [1], [[]], {}, {"_target_": "os.system"}, -1, 0, 1, 2, 0.5,
    -0.5, 1000, 2**31, 2**32, 2**63 - 1, 2**63, 10**20, -(10**20), 10**400, 1e-300, 1e39, 1e300, float("nan"),
    float("inf"), [0], [-1], [0, 8, 8], [10**9], [10**20], ["x"], [None], [["x", 5]], "9" * 5000, "²",
]  # fmt: skip
SMALL = {
    "trainer.epochs": 1, "trainer.max_steps": 2, "trainer.device": "cpu", "trainer.log_every": 0,
    "data.source.samples": 60, "data.source.test_samples": 20, "data.batch_size": 64, "data.epoch_frames": 64,
    "data.num_envs": 2, "data.video_steps": 0, "data.time_limit": 20, "task.eval_episodes": 2, "task.num_steps": 8,
    "task.minibatch": 16, "task.buffer_size": 64, "task.learning_starts": 16, "task.batch_size": 8, "task.workers": 1,
    "task.num_samples": 4, "model.width": 4, "model.units": 4, "model.growth": 4, "model.hidden": 16,
    "model.head": 16, "data.source.download": False, "data.augment.crop": 0,
}  # fmt: skip
FITTING = {  # the fitting option of another group
    "Env": {"data": "cartpole", "model": "ppo"}, "Tokens": {"data": "text_folder", "model": "gru"},
    "Mask": {"data": "shapes", "model": "unet"}, "Table": {"data": "moons", "model": "mlp"},
    "Series": {"data": "eeg", "model": "mlp"}, "Image": {"data": "cifar10", "model": "mlp"},
    "Function": {"data": "function", "model": "point"}, "Words": {"data": "imdb_word_pairs", "model": "glove"},
}  # fmt: skip
LEARNERS = {"anime_faces": "vae", "maze": "q_learning", "counting": "convolution"}  # of data that few models take
FILES = {  # what the user's data needs besides its folder
    "table": ("data.file=table.csv", "data.target=kind"), "arrays": ("data.file=samples.npz",),
    "series": ("data.file=table.csv", "data.target=size", "data.window=4"),
}  # fmt: skip
WIDE = ("model.width", "model.growth", "model.channels", "model.kernel_size", "model.middle")  # 1,000 takes minutes
GROUPS = [group for group in SECTIONS if group != "task"]  # a model brings its task


def found_options() -> list[tuple[str, str]]:
    """One option for each builder, the first by name: those that differ in values only take the same values."""
    first: dict[tuple, tuple[str, str]] = {}
    for group in GROUPS:
        for name in options(group):
            if name == "stream":  # its loaders are the user's code: test_stream.py
                continue
            option = read_option(group, name)
            node = option.get(group, option)
            task = next((each["override /task"] for each in option.get("defaults", []) if "override /task" in each), "")
            targets = (group, node.get("_target_"), (node.get("source") or {}).get("_target_"), node.get("id"), task)
            first.setdefault(targets, (group, name))
    return sorted(first.values(), key=lambda option: (len(option[1]), option))


def choices_of(group: str, name: str) -> tuple[str, ...]:
    """The choices of a composition with this option in it."""
    kind = ""
    if group == "data":
        kind = read_option("data", name).get("spec", {"_target_": ""})["_target_"].rpartition(".")[2]
        if name in LEARNERS:
            return f"model={LEARNERS[name]}", f"data={name}"
    elif any("override /data" in entry for entry in read_option(group, name).get("defaults", [])):
        return (f"{group}={name}",)  # it brings its data
    elif group == "model" and (takes(name) == ["Image"] or "Image" not in takes(name)):
        kind = next((kind for kind in takes(name) if kind in FITTING), "")
        if name == "product":
            return f"model={name}", "data=products"
    others = [f"{other}={choice}" for other, choice in FITTING.get(kind, {}).items() if other != group]
    return (*others, f"{group}={name}", *FILES.get(name, ())) if group == "data" else (f"{group}={name}", *others)


@pytest.fixture(scope="module", autouse=True)
def data_dir(tmp_path_factory):
    """A data folder with a small copy of every data set."""
    root = write_data(tmp_path_factory.mktemp("data"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DL_RUN_DATA_DIR", str(root))
        yield root


@cache
def small(*choices: str) -> dict:
    """The config of these choices, with the shortest possible training."""
    config = composed(*choices, f"data_dir={os.environ['DL_RUN_DATA_DIR']}")
    for key, value in SMALL.items():
        old = get(config, key, missing := object())
        if old is not missing and (old in (None, "auto") or isinstance(old, str) == isinstance(value, str)):
            put(config, key, [value] * len(old) if isinstance(old, list) else value)
    if "model=polynomial" in choices:
        config["data"]["batch_size"] = 60  # least squares needs all samples at once
    return config


def get(config: dict, path: str, default: object = None) -> object:
    for key in path.split("."):
        if not isinstance(config, dict) or key not in config:
            return default
        config = config[key]
    return config


def put(config: dict, path: str, value: object) -> None:
    *way, last = path.split(".")
    for key in way:
        config = config[key]
    config[last] = value


def keys_of(node: object, path: str = "") -> list[str]:
    """Dotted paths, without keys that contain a dot, such as names of files."""
    if not isinstance(node, dict):
        return [path]
    inner = [
        found for key, value in node.items() if "." not in key for found in keys_of(value, f"{path}.{key}".lstrip("."))
    ]
    return [*([path] if path else []), *inner]


def keys_tried(group: str, choices: tuple[str, ...]) -> list[str]:
    """The keys of an option's own sections."""
    sections = (group, "task") if group == "model" else (group, *VALUES) if group == "trainer" else (group,)
    return [key for key in keys_of(small(*choices)) if key.partition(".")[0] in sections]


def cases(group: str, choices: tuple[str, ...]) -> list[tuple[str, object]]:
    """Keys with values that the check accepts. Fails if it raises anything but UserError."""
    passed = []
    for key in keys_tried(group, choices):
        for value in BAD:
            config = deepcopy(small(*choices))
            put(config, key, value)
            try:
                check(config, names_of(*choices))
            except UserError as error:
                assert f"did you mean {key!r}" not in str(error)
            except Exception:
                pytest.fail(f"{choices} {key}={value!r:.60}: {traceback.format_exc(limit=-3)}")
            else:
                passed.append((key, value))
    return passed


def builder_of(config: dict, key: str) -> tuple[str, str]:
    """The builder of a key, with the builder's name for it: it takes the same values in every composition."""
    names, node, found = key.split("."), config, ("", key)
    for i, name in enumerate(names[:-1], 1):
        node = node[name]
        found = (node["_target_"], ".".join(names[i:])) if "_target_" in node else found
    return found


@cache
def first_uses() -> dict[tuple[str, str], tuple[str, ...]]:
    """The composition in which a key of a builder is tried: the first that has it."""
    found = {}
    for group, name in found_options():
        choices = choices_of(group, name)
        for key in keys_tried(group, choices):
            found.setdefault(builder_of(small(*choices), key), choices)
    return found


def extreme(found: list[tuple[str, object]]) -> list[tuple[str, object]]:
    """The smallest and the largest number for each key, and all other values."""
    numbers = {}
    found = [(key, value) for key, value in found if key not in WIDE or value != 1000]
    for key, value in found:
        if isinstance(value, int | float) and not isinstance(value, bool):
            numbers.setdefault(key, []).append(value)
    ends = {key: (min(values), max(values)) for key, values in numbers.items()}
    return [(k, v) for k, v in found if isinstance(v, bool) or not isinstance(v, int | float) or v in ends[k]]


def train(config: dict, names: dict[str, str], folder: Path, draws: bool) -> None:
    """Train as the command does, from a config that is not saved first; exits as the command does.

    draws: whether to draw, which takes longer than all else.
    """
    import resource

    from dlrun.train.session import Session

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    spent = int(sum(os.times()[:2]))
    resource.setrlimit(resource.RLIMIT_CPU, (spent + SECONDS, spent + SECONDS))
    sys.stdout = sys.stderr = open(folder / "out", "w", encoding="utf-8", errors="backslashreplace")
    os.chdir(folder)
    try:
        chosen = auto_keys(config)
        check(config, names)
        session = Session(config, names, chosen)
        run = folder / "run"
        run.mkdir()
        if not draws:
            session.finish = partial(session.finish, is_drawn=False)
        session.start(run, resumed=False)
        assert draws or not (run / "plots").exists()
    except UserError as error:
        print(error)
        sys.exit(error.exit_code)
    except Exception:
        (folder / "traceback").write_text(traceback.format_exc(limit=-6))
        sys.exit(3)


def outcome(
    choices: tuple[str, ...], key: str, value: object, folder: Path, expected: tuple[int, ...] = (0, 1, 2)
) -> str | None:
    """What went wrong in a training with this value, or nothing. expected: exit codes."""
    folder.mkdir()
    config = deepcopy(small(*choices))
    put(config, key, value)
    draws = expected == (0,) or key.startswith("data.spec")  # plots show names and shapes, and no run depends on them
    process = FORKS.Process(target=train, args=(config, names_of(*choices), folder, draws))
    process.start()
    process.join(10 * SECONDS)  # of wall time on a busy machine; SECONDS are of processor time
    case = f"{choices} {key}={value!r:.60}"
    if process.exitcode is None:
        process.kill()
        process.join()
        return f"{case}: still going after {10 * SECONDS} s"
    if process.exitcode in expected:
        shutil.rmtree(folder)
        return None
    message = "".join(path.read_text() for path in (folder / "out", folder / "traceback") if path.exists())
    return f"{case}: exit code {process.exitcode}\n{message}"


@pytest.mark.slow
@pytest.mark.parametrize(("group", "name"), found_options())
def test_every_key_refuses_bad_values_or_trains(group, name, tmp_path):
    choices = choices_of(group, name)
    wrong = outcome(choices, "seed", 0, tmp_path / "right", expected=(0,))
    if wrong and "comes with the package" in wrong:
        pytest.skip("the package with its data is not installed")
    assert not wrong, wrong
    found, uses, config = extreme(cases(group, choices)), first_uses(), small(*choices)
    found = [(key, value) for key, value in found if uses[builder_of(config, key)] == choices]
    wrong = [outcome(choices, *case, tmp_path / f"{i}") for i, case in enumerate(found)]
    assert not any(wrong), "\n".join(filter(None, wrong))


def test_the_keys_that_shorten_these_runs_exist():
    unknown = []
    for key in SMALL:
        group, _, rest = key.partition(".")
        found = [read_option(group, name) for name in options(group)]
        if not any(get(option.get(group, option), rest, missing := object()) is not missing for option in found):
            unknown.append(key)
    assert not unknown


def test_a_few_keys_refuse_bad_values_or_train():
    """Only the check, for keys of every kind, so that it is in the fast suite."""
    for group, name in (("optimizer", "adam"), ("data", "moons")):
        choices = choices_of(group, name)
        assert 0 < len(cases(group, choices)) < len(keys_tried(group, choices)) * len(BAD)
