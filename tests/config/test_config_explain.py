"""Unknown flags, groups, options and keys are refused by name, with the most similar known name."""

import pytest

WRONG = {
    "-x": "unrecognized arguments: -x\n  expected overrides, such as trainer.epochs=3, and the flags that dl-run",
    "--cfg nothing": "argument --cfg/-c: invalid choice: 'nothing'",
    "--resolve": "--resolve needs --cfg\n  expected dl-run --cfg job --resolve",
    "--experimental-rerun config.pickle": "--experimental-rerun loads a pickle, which can run any code",
    "--config-name other": "there is no config 'other'\n  expected a file other.yaml",
    "--config-dir nowhere": "nowhere' not found",
    "foo": "cannot read 'foo'\n  expected key=value, such as trainer.epochs=5",
    "=3": "cannot read '=3'\n  expected key=value",
    "model.hidden=[1": "cannot read the value in 'model.hidden=[1'\n  expected a number, a word, a list",
    'init=a"b': "cannot read the value in 'init=a\"b'",
    "data=": "data=: no such option\n  expected one of: anime_faces, arrays, auto_mpg,",
    "task.loss=crossentropy": "task.loss: there is no 'crossentropy'; did you mean 'cross_entropy'?",
    "data=titanic.csv": "data=titanic.csv: no such option\n  expected data=table data.file=titanic.csv",
    "data=/a/b.CSV.gz": "expected data=table data.file=/a/b.CSV.gz data.target=COLUMN",
    "data=csv": "data=csv: no such option\n  expected data=table data.file=FILE.csv data.target=COLUMN",
    "data=a.npz": "expected data=arrays data.file=a.npz",
    "model=resnet": "model=resnet: no such option; did you mean 'resnet",
    "data=mnits": "data=mnits: no such option; did you mean 'mnist'?\n  expected one of: anime_faces,",
    "optimizer=adamax": "optimizer=adamax: no such option; did you mean 'adam",
    "experiment=nothing_at_all": "experiment=nothing_at_all: no such option\n  expected one of: acrobot_ppo",
    "model=transformer": "model=transformer: no such option\n  expected one of: a2c,",
    "~data=moons": "~data=moons: a run needs one option of 'data'\n  expected one of: anime_faces,",
    "~experiment=moons": "~experiment=moons: experiment has another value\n  expected ~experiment, or its value",
    "trainer.monitor=''": "trainer.monitor= is not measured here\n  expected one of: val/loss, val/acc",
    "trainer.processes=100000000000": "trainer.processes=100000000000: expected an integer in [1, 100]",
    "trainer.epochs=9223372036854775808": "=9223372036854775808: expected an integer of at most 1,000,000,000",
    "model.hidden=[64,2000000]": "model.hidden=[64, 2000000]: expected a list, each an integer of at most 1,000,000",
    "optimizer.lr=100000000000000000000": "expected a number > 0; write a number this large with a point or an",
    "data.spec.classes=-1": "data.spec.classes=-1: expected an integer in [2, 100000] or null",
    "data.spec.shape=[0,8,8]": "expected a list of 3: an integer >= 1, an integer >= 1, an integer >= 1",
    "data.source=null": "data.source=None: expected a mapping with a _target_",
    "modl=mlp": "modl=mlp: there is no key 'modl'; did you mean 'model'?\n  expected one of: data, data_dir, init,",
    "trainer.epoch=3": "trainer.epoch=3: trainer has no 'epoch'; did you mean 'trainer.epochs'?\n  trainer has:",
    "trainer.lr=1": "trainer.lr=1: trainer has no 'lr'; did you mean 'optimizer.lr'?",
    "trainer.lrr=1": "trainer.lrr=1: trainer has no 'lrr'; did you mean 'optimizer.lr'?",
    "trianer.epochs=3": "trianer.epochs=3: there is no key 'trianer.epochs'; did you mean 'trainer.epochs'?",
    "trainer.epochs.foo=3": "trainer.epochs.foo=3: trainer.epochs has no keys\n  trainer has: epochs, max_steps,",
    "model.hidden.foo=3": "model.hidden.foo=3: a list has no keys\n  expected the whole list,",
    "+data.spec.labels.foo=3": "data.spec.labels.foo=3: a list has no keys",
    "model.hidden.7=3": "model.hidden.7=3: a list has no keys",
    "data.specs.a.foo=3": "data.specs.a.foo=3: data has no 'specs'; did you mean 'data.spec'?\n  data has: spec,",
    "sed=1": "sed=1: there is no key 'sed'; did you mean 'seed'?",
    "epochs=3": "epochs=3: there is no key 'epochs'; did you mean 'trainer.epochs'?",
    "data.lr_multipliers=4": "data.lr_multipliers=4: data has no 'lr_multipliers'; did you mean 'task.lr_multipliers'?",
    "lr=0.1": "lr=0.1: there is no key 'lr'; did you mean 'optimizer.lr'?",
    "+foo=1": "there is no key 'foo'\n    expected one of: data, data_dir, init,",
    "+model.foo=1": "model.foo: mlp has no 'foo'\n    mlp has: activation, dropout, hidden, ",
    "++trainer.foo=1": "trainer.foo: Trainer has no 'foo'\n    Trainer has: checkpoint_every_minutes,",
    "init=nope": "init=nope: cannot read the checkpoint nope: No such file or directory\n  expected a run's folder",
    "++foo=1": "there is no key 'foo'",
    "+trainer.epoch=3": "trainer.epoch: Trainer has no 'epoch'; did you mean 'epochs'?",
    "++optimizer.beta=0.9": "optimizer.beta: adam has no 'beta'; did you mean 'betas'?",
    "+trainer.epochs=5": "+trainer.epochs=5: trainer.epochs is already set\n  expected trainer.epochs=5,",
    "+data=digits": "+data=digits: data is already set\n  expected data=digits, without the +",
    "+data.spec._partial_=true": "data.spec._partial_: Image has no '_partial_'",
    "~model": "~model: a run needs one option of 'model'\n  expected one of: a2c,",
    "~trainer": "the section 'trainer' is missing: choose an option with trainer=...",
    "~trainer.epochs": "trainer.epochs is missing: Trainer needs it",
    "~foo": "~foo: there is no key 'foo'",
    "~trainer.foo": "~trainer.foo: there is no key 'trainer.foo'\n  dl-run --cfg job shows all keys",
    "trainer=null": "trainer=null: not an option of trainer\n  expected one of: default",
    "schedule=[cosine,step]": "schedule=[...]: several options at once; expected one",
    "data@model=digits": "data@model=digits: expected data=digits, without a package",
    "model=mlp,lenet": "model=mlp,lenet: several values for one run\n  expected one value, a sweep (dl-run -m model",
    "hydra.foo=1": "hydra.foo=1: hydra has no 'foo'",
    "hydra.mode=x": "hydra.mode=x: Invalid value 'x'",
    "trainer.epochs=${x}": "trainer.epochs: Interpolation key 'x' not found",
    "trainer.epochs=${trainer.epochs}": "an interpolation refers to itself",
    "data_dir=${oc.env:NOT_THERE}": "data_dir: NOT_THERE is not set in the environment\n  expected NOT_THERE=...",
    "-m trainer.patience=sort(null,3)": "sort takes no null\n  expected the values in the order of the jobs: null,3",
    "-m trainer.patience=range(null,3)": "range takes no null\n  expected the values in the order of the jobs: null,3",
    "-m seed=sort(a,3)": "sort does not take these values\n  expected sort as in sort(3,1)",
    "-m seed=chioce(1,2)": "there is no function 'chioce'; did you mean 'choice'?\n  expected one of: choice, range,",
    "seed=sort(3,1)": "several values for one run\n  expected one value, a sweep (dl-run -m 'seed=sort(3,1)'),",
    "hydra.sweeper.params={seed:1}": "expected the axes of the sweep themselves: dl-run -m seed=0,1",
    "-m hydra.sweeper.params.seed=1,2": "expected the axes of the sweep themselves: dl-run -m seed=0,1",
    "seed=" + "1" * 5000: "...: a number of more than 4,300 digits\n  expected a smaller one",
    "trainer.epochs=${oc.env:NO}": "trainer.epochs: NO is not set in the environment\n  expected NO=... dl-run ..., or",
    "seed=${oc.decode:${oc.env:N}}": "around a value with one ${...} in another: 'seed=\"${oc.decode:${oc.env:N}}\"'",
    "init=;": "expected quotes around it, and others for the shell: 'init=\";\"'",
}


@pytest.mark.thorough(but=[*WRONG][1::2])
@pytest.mark.parametrize("line", WRONG)
def test_unknown_flags_options_and_keys_are_refused_with_suggestions(refused, line):
    arguments = line.split(" ") if line.startswith("-") else [line]
    assert WRONG[line] in refused(*arguments)


NAMES = {
    "data.target=2020": "is not empty or null\n    as text: 'data.target=\"2020\"'",
    "data.target=true": "    as text: 'data.target=\"true\"'",
    "data.drop=[2020,b]": '    as text: \'data.drop=["2020","b"]\'',
    "data.positive=false": "    as text: 'data.positive=\"false\"'",
    "data.types.a.b=text": "expected a mapping; a name with a point is written 'data.types={a.b: text}'",
    "data.types={'a':text,'b':text}": "without quotes\n  expected 'data.types={a:text,b:text}'",
}


@pytest.mark.parametrize("line", NAMES)
def test_how_names_are_written_that_look_like_other_values(refused, line):
    assert NAMES[line] in refused("data=table", line)


def test_the_names_of_all_metrics_are_wrapped(refused):
    lines = refused("task.metrics=[foo]").splitlines()
    assert any(line.startswith("      ") for line in lines) and max(map(len, lines)) <= 120


def test_a_long_list_is_wrapped(refused):
    assert all(len(line) <= 120 for line in refused("trainer.nothing=1").splitlines())


def test_swapped_letters_are_suggested_first(refused):
    assert "there is no key 'modle'; did you mean 'model'?" in refused("modle=mlp")


def test_a_list_for_a_mapping_in_a_file_is_refused_with_the_mapping(refused, tmp_path):
    folder = tmp_path / "own" / "experiment"
    folder.mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - override /data: digits\ndata: {augment: [flip]}\n"
    (folder / "mine.yaml").write_text(text)
    err = refused("--config-dir", str(tmp_path / "own"), "experiment=mine", left=["own"])
    assert "experiment/mine has a list where the option that it changes has a mapping" in err and "own: [my" in err
