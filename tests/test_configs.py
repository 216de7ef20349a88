"""Every YAML composes, fits the signature of its target, states each key once, and has a header."""

import re
from itertools import product

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from layouts import write_data
from toys import NAMES, composed, models, options, read, read_option, section, takes

from dlrun.config.build import build, of_runner
from dlrun.config.check import check
from dlrun.config.pairing import CONFIGS
from dlrun.config.signatures import signature, spec_names
from dlrun.errors import ConfigError
from dlrun.models.cyclegan import Cycle
from dlrun.models.glove import GloVe
from dlrun.models.handwritten import HandWritten
from dlrun.models.operations import Operations
from dlrun.models.point import Point
from dlrun.spec import Env, Mask

YAMLS = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
GROUPS = sorted({name.partition("/")[0] for name in YAMLS if "/" in name})
FITTING = {  # options that fit data, or a task, of another kind than images
    "Env": {"data": "cartpole", "model": "ppo"},
    "Tokens": {"data": "imdb", "model": "lstm"},
    "Series": {"data": "eeg", "model": "tcn"},
    "Mask": {"data": "shapes", "model": "unet"},
    "Table": {"data": "moons", "model": "mlp"},
    "Function": {"data": "function", "model": "point"},
    "Words": {"data": "imdb_word_pairs", "model": "glove"},
}
NO_SECTION = ("experiment", "tuned", "tracker")  # files that are not one section with a target
OPTIONS = [(group, option) for group in GROUPS if group not in NO_SECTION for option in options(group)]


def targets(node: object, path: str) -> list[tuple[str, dict]]:
    """Every mapping with a `_target_` under `node`, with its path."""
    if not isinstance(node, dict):
        return []
    here = [(path, node)] if "_target_" in node else []
    return here + [found for key, value in node.items() for found in targets(value, f"{path}.{key}")]


def sweep(option: str) -> list[list[str]]:
    """The jobs of an experiment, as overrides: one without overrides if it is no sweep."""
    params = read(CONFIGS / "experiment" / f"{option}.yaml").get("hydra", {}).get("sweeper", {}).get("params", {})
    parsed = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    return [
        list(job) for job in product(*(list_of(override) for override in parsed if override.key_or_group != "seed"))
    ]


def list_of(override: object) -> list[str]:
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def test_every_config_has_a_header():
    """The first line says what the file is; that of an option of data, model or experiment has its command."""
    wrong = []
    for name in YAMLS:
        lines = (CONFIGS / name).read_text(encoding="utf-8").splitlines()
        head = lines[1:] if lines[0].startswith("# @package") else lines
        if not re.match(r"# \w.{15,}", head[0]):
            wrong.append(f"{name}: {head[0]!r} does not say what the file is")
        if name.startswith(("data/", "model/", "experiment/")):
            command = "dl-run {}={}".format(*name.removesuffix(".yaml").split("/"))
            if not any(re.search(rf"{command}\b", line) for line in lines if line.startswith("#")):
                wrong.append(f"{name}: no {command}")
    assert len(YAMLS) > 200 and not wrong, "\n".join(["", *wrong])


@pytest.mark.thorough(
    but=[
        "data/cifar10",
        "data/iris",
        "model/lenet",
        "model/gru",
        "optimizer/adam",
        "schedule/step",
        "task/supervised",
        "task/ppo",
        "trainer/default",
        "sweep/grid",
    ]
)
@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=map("/".join, OPTIONS))
def test_option_composes_and_states_each_key_once(group, option):
    spec = read_option("data", option).get("spec", {"_target_": ""}) if group == "data" else {"_target_": ""}
    kind = spec["_target_"].rpartition(".")[2]  # some data sets find their spec in the data
    if group == "task":
        kind = spec_names(signature(read_option("task", option)["_target_"]).positional["spec"])[0]
    elif group == "model":
        kind = takes(option)[0]
    others = [f"{name}={choice}" for name, choice in FITTING.get(kind, {}).items() if name != group]
    if (group, option) in (("data", "anime_faces"), ("data", "counting")):  # without labels
        others = ["model=vae"]
    if group == "task" and option not in ("supervised", "segment"):  # other tasks name the class of their network
        others = [f"model={models(option)[0]}"]
    config = composed(*others, f"{group}={option}")
    check(config, NAMES | {group: option})
    assert section(group, option) == composed(f"{group}={option}")[group]  # what other tests read from the file
    found = targets(config[group], group)
    assert found and found[0][0] == group
    for path, node in found:
        found = signature(node["_target_"])
        stated = node.keys() - {"_target_"} - set(of_runner(node))
        lacking = found.keys.keys() - stated - {"target_means", "target_stds"}  # they are read from the data
        assert stated <= found.keys.keys() and (
            not lacking or node["_target_"].endswith((".Columns", ".Series")) and not stated
        ), path
        assert found.keys.keys() == found.required or path.endswith((".spec", ".augment")), (
            f"{path}: a default that is not in the YAML"
        )


def test_trainer_describes_its_keys():
    lines = (CONFIGS / "trainer" / "default.yaml").read_text(encoding="utf-8").splitlines()
    keys = [line for line in lines if line and line[0].isalpha()]
    assert keys and not [line for line in keys if not re.search(r" # \w", line)]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.mark.thorough(
    but=["lenet_mnist", "moons_depth", "cartpole_ppo_book", "shapes_unet", "fashion_vae", "himmelblau"]
)
@pytest.mark.parametrize("option", options("experiment"))
def test_experiment_composes_and_builds(option, data_dir):
    for job in sweep(option):
        job = ["model.embedding.file=null" if each.startswith("model.embedding.file=") else each for each in job]
        config = composed(f"experiment={option}", f"data_dir={data_dir}", *job)
        check(config)
        data = build(config["data"])
        with torch.device("meta"):
            net = build(config["model"])(data.spec)
        if isinstance(net, Operations):
            assert net(torch.empty(2, *data.spec.shape, device="meta")).keys() == net.operations.keys()
            continue
        if isinstance(net, Cycle):
            images = torch.empty(2, *data.spec.shape, device="meta")
            assert all(translate(images).shape == images.shape for translate in net.eval().generator)
            continue
        if hasattr(net, "latent"):
            make = getattr(net, "generator", None) or net.decoder
            assert make.eval()(torch.empty(2, net.latent, device="meta")).shape == (2, *data.spec.shape)
            continue
        size = data.spec.shape[1:] if isinstance(data.spec, Mask) else ()
        found = net.eval()(torch.empty(2, *data.spec.shape, device="meta"))
        found = found[0] if isinstance(found, tuple) and isinstance(data.spec, Env) else found  # a policy, with values
        outputs = len(net.position) if isinstance(net, Point) else data.spec.outputs
        outputs = net.words.embedding_dim if isinstance(net, GloVe) else outputs
        outputs = data.spec.classes if isinstance(net, HandWritten) else outputs  # one for each of two classes
        assert found.shape == (2, outputs, *size)


@pytest.mark.thorough
def test_experiments_with_axes_run_as_sweeps():
    """Hydra reads the sweep of an experiment from its file: mode and parameters reach the sweeper."""
    sweeps = [option for option in options("experiment") if len(sweep(option)) > 1]
    assert {"moons_depth", "derivatives"} <= set(sweeps)
    for option in sweeps:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = compose("config", [f"experiment={option}"], return_hydra_config=True)
        assert config.hydra.mode.name == "MULTIRUN"
        assert (
            config.hydra.sweeper.params == read(CONFIGS / "experiment" / f"{option}.yaml")["hydra"]["sweeper"]["params"]
        )


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_every_optimizer_of_torch_can_be_used(name):
    """A user's `_target_` of torch.optim takes torch's keys, positional or not."""
    config = composed() | {
        "optimizer": {"_target_": f"torch.optim.{name}", "lr": 0.5, "weight_decay": 0.25, "foreach": False}
    }
    check(config)
    made = build(config["optimizer"])([torch.zeros(1, requires_grad=True)])
    assert type(made) is getattr(torch.optim, name)
    assert (made.defaults["lr"], made.defaults["weight_decay"], made.defaults["foreach"]) == (0.5, 0.25, False)


def test_a_wrong_key_of_an_optimizer_of_torch_is_refused():
    config = composed() | {"optimizer": {"_target_": "torch.optim.Adam", "lr": 0.5, "beta": [0.9, 0.99]}}
    with pytest.raises(ConfigError, match="optimizer.beta: Adam has no 'beta'; did you mean 'betas'?"):
        check(config)


def test_another_optimizer_than_the_models_says_which_key_to_leave_out():
    words = ["model=dcgan", "data=digits", "optimizer=sgd"]
    with pytest.raises(ConfigError, match="leave it out with '~optimizer.betas'"):
        check(composed(*words))
    check(composed(*words, "~optimizer.betas"))


def test_keras_rmsprop_differs_in_two_keys():
    torchs, keras = section("optimizer", "rmsprop"), section("optimizer", "rmsprop_keras")
    assert {key: value for key, value in keras.items() if value != torchs[key]} == {"alpha": 0.9, "eps": 1e-7}
