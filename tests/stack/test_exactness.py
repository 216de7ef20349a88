"""How near a stacked job is to the job alone: 1e-4 over its first 100 steps, or as long as rounding allows."""

import math
import random
from statistics import mean, variance

import pytest
import runs
from finished_runs import write_texts
from runs import compose, rows, undrawn
from stacks import UNET, together

DIGITS = ["data=digits", "data.batch_size=32"]
MLP = [*DIGITS, "model=mlp", "model.hidden=[32,16]"]
TEXTS = ["data=text_folder", "data.root={data}/texts.csv", "data.vocab=50", "data.length=6", "data.batch_size=16"]
TEXTS += ["model.units=8", "model.embedding.size=8", "model.dropout=0.2", "optimizer.lr=0.003"]
SERIES = ["data=series", "data.file={data}/series.csv", "data.target=y", "data.window=12", "data.batch_size=32"]
MAPS = ["data=shapes", "data.source.samples=40", "data.spec.shape=[3,16,16]"]
POINTS = ["data=gaussians", "data.batch_size=64"]
SEEDS = [["seed=0"], ["seed=1"]]
RATES = [["seed=0"], ["seed=1", "optimizer.lr=0.01"]]
FOLDS = [["data.fold=0"], ["data.fold=1", "seed=1"]]  # targets of other means and deviations
GROUPS = [["optimizer.lr=0.001", "optimizer.groups={biases:{lr:0.1}}"]]
GROUPS += [
    ["optimizer.lr=0.03", "optimizer.groups={biases:{lr:0.1}}"],
    ["optimizer.groups={matrices:{weight_decay:1}}"],
]
CASES = {  # the words of all jobs, and those of each
    "images": ([*MLP, "model.dropout=0.2", "optimizer=adamw", "schedule=cosine"], RATES),
    "groups": ([*MLP, "optimizer=adamw"], [*GROUPS, ["optimizer.groups=null", "optimizer.lr=0.01"]]),
    "bf16": ([*MLP, "trainer.precision=bf16"], SEEDS),
    "table": (["data=wine", "model=mlp"], RATES),
    "folds": (["data=diabetes", "model=mlp", "data.folds=17"], FOLDS),
    "series": ([*SERIES, "model=lstm", "model.units=8"], SEEDS),
    "loop": ([*SERIES, "model=gru", "model.units=8", "model.cell=loop", "model.input_dropout=0"], SEEDS),
    "texts": ([*TEXTS, "model=gru"], RATES),
    "packed": ([*TEXTS, "model=lstm", "model.mask_padding=true", "model.bidirectional=true"], SEEDS),
    "rnn": ([*TEXTS, "model=rnn", "model.mask_padding=true", "model.head=mean"], [*SEEDS, ["model.dropout=0.5"]]),
    "autoencoder": ([*DIGITS, "model=autoencoder", "model.hidden=[32]"], RATES),
    "vae": ([*DIGITS, "model=vae", "model.hidden=[32]"], RATES),
    "wgan": ([*POINTS, "model=wgan"], SEEDS),
    "a2c": (["model=a2c", "data.video_steps=0", "task.eval_episodes=2"], SEEDS),
}  # fmt: skip
SHORT = {  # differences of 1e-7 grow beyond 1e-4 within 100 steps, also in a job alone; with the steps until then
    "batch_norm": ([*MLP, "model.norm=batch"], SEEDS, 40),
    "convolutions": (["data=mnist", "data_dir={data}", "model=lenet", "data.batch_size=16"], SEEDS, 60),
    "maps": ([*MAPS, *UNET, "model.norm=none"], SEEDS, 40),
    "gan": ([*POINTS, "model=gan"], SEEDS, 40),
    "wgan_gp": ([*POINTS, "model=wgan_gp"], SEEDS, 40),
    "ppo": (["model=ppo", "data.video_steps=0", "task.eval_episodes=2"], SEEDS, 5),
    "dqn": (["model=dqn", "data.video_steps=0", "task.eval_episodes=2"], SEEDS, 7),
}
QUICK = ("images", "groups", "folds", "packed")  # the others are slow tests
COUNTS = ("acc", "miou", "top5", "fraction")  # of samples or pixels, which a last bit can decide


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with a table of images, texts and a series."""
    folder, draw = write_texts(runs.write_mnist(tmp_path_factory.mktemp("data"))), random.Random(0)
    lines = [f"{math.sin(t / 5) + draw.gauss(0, 0.3)},{draw.gauss(0, 1)}" for t in range(400)]
    (folder / "series.csv").write_text("\n".join(["y,x", *lines]))
    return folder


def both(folder, data, common, jobs, *keys):
    """Train the jobs as a stack and alone; the rows of each."""
    words = [*common, "trainer.epochs=1000", "trainer.checkpoint_gap=1000", "trainer.device=cpu", "trainer.log_every=1"]
    configs = [
        compose(*(word.format(data=data) if "{data}" in word else word for word in (*words, *keys, *job)))
        for job in jobs
    ]
    with undrawn():
        assert together(folder / "stack", configs, is_tried=True)
        for number, config in enumerate(configs):
            runs.train(folder / "alone" / str(number), config, finish=True)
    return [[rows(folder / kind / str(number)) for kind in ("alone", "stack")] for number in range(len(jobs))]


STEPS = {name: (*case, 100) for name, case in CASES.items()} | SHORT
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in STEPS]


@pytest.mark.parametrize("name", NAMES)
def test_a_stacked_job_is_near_the_job_alone(name, data, tmp_path, monkeypatch):
    monkeypatch.setattr("dlrun.train.session.Session.finish", lambda *args: None)
    common, jobs, steps = STEPS[name]
    most = 100 if name in CASES else 2 * steps
    for alone, stacked in both(tmp_path, data, common, jobs, f"trainer.max_steps={most}"):
        assert alone[-1]["step"] == stacked[-1]["step"] == most
        for wanted, found in zip(alone, stacked, strict=False):
            if wanted["step"] > steps:
                break
            wanted = {k: v for k, v in wanted.items() if not k.startswith("time/") and not k.endswith(COUNTS)}
            assert {k: found[k] for k in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-4), wanted["step"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["batch_norm", "gan", "dqn"])
def test_means_over_seeds_are_those_of_jobs_alone(name, data, tmp_path):
    """Of kinds whose single jobs differ after some steps."""
    common, metric, keys = {
        "batch_norm": ([*MLP, "model.norm=batch"], "val/acc", ["trainer.max_steps=150"]),
        "gan": ([*POINTS, "model=gan"], "val/swd", ["trainer.max_steps=100"]),
        "dqn": (["model=dqn", "data.video_steps=0", "task.eval_episodes=4"], "val/return", ["trainer.max_steps=40"]),
    }[name]
    pairs = both(tmp_path, data, common, [[f"seed={seed}"] for seed in range(8)], *keys, "trainer.log_every=0")
    alone, stacked = ([[row[metric] for row in one[kind] if metric in row][-1] for one in pairs] for kind in (0, 1))
    noise = math.sqrt((variance(alone) + variance(stacked)) / 8)
    assert abs(mean(alone) - mean(stacked)) <= 2 * noise, (alone, stacked)
