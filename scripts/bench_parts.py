"""The parts of scripts/bench: the processes to run, the figures to read, and the targets.

Processes run one at a time and the contestants take turns (hand, dl-run, ..., hand, dl-run, ...), so that a change in
the machine's speed affects all of them. The figure of a training is the mean over all epochs but the first; the table
has medians over the repeats. dl-run runs as a normal process with logging, validation and checkpoints; its epochs end
when TensorBoard's val points are written.
"""

import argparse
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

from bench_stacks import stacks
from bench_tables import tables

HERE = Path(__file__).resolve().parent
SCRIPTS = (["-c"], ["-m", "dlrun"], *([str(HERE / f"bench_{name}.py")] for name in ("loops", "steps", "images")))
CODE, RUN, LOOPS, STEPS, IMAGES = ([sys.executable, *words] for words in SCRIPTS)
OTHERS = {"lightning": "Lightning", "keras": "Keras"}
SHARE = {"mlp": 1 / 2, "lenet": 1 / 1.5, "lstm": 1 / 1.5}  # largest share of their time that dl-run may take
WARM = 8  # untimed steps of ResNet18


class Bench:
    """rows: rows of the table. figures: all single measurements, by part and contestant."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder = args, folder
        self.rows: list[tuple[str, ...]] = []
        self.figures: dict[str, dict[str, list[float]]] = {}

    def start(self, command: list[str]) -> subprocess.Popen:
        return subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self, process: subprocess.Popen, codes: tuple[int, ...] = (0,)) -> str:
        """Wait for a process and return its output. An unexpected exit code ends the benchmark."""
        out, err = process.communicate()
        if process.returncode not in codes:
            sys.exit(f"{' '.join(process.args)}\nended with {process.returncode}:\n{err[-3000:]}")
        return out

    def last_line(self, *command: object) -> dict | float:
        return json.loads(self.end(self.start([*map(str, command)])).splitlines()[-1])

    def seconds(self, *command: str, codes: tuple[int, ...] = (0,)) -> float:
        started = time.perf_counter()
        self.end(self.start([*command]), codes)
        return time.perf_counter() - started

    def training(self, *overrides: str) -> tuple[list[str], Path]:
        """Return the command of a run, and its folder."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return [*RUN, "trainer.device=cpu", f"run_dir={folder}", *overrides], folder

    def until(self, rows: int, *overrides: str) -> tuple[float, Path]:
        """Stop a run after it has written this number of metric rows; return the seconds until then, and its folder."""
        command, folder = self.training(*overrides)
        path, started, process = folder / "metrics.jsonl", time.perf_counter(), self.start(command)
        while process.poll() is None and not (path.exists() and path.read_bytes().count(b"\n") >= rows):
            time.sleep(0.002)
        seconds = time.perf_counter() - started
        process.terminate()  # it saves and closes its files
        self.end(process, (143,))
        return seconds, folder

    def measure(self, part: str, contestants: dict[str, Callable[[], float]]) -> dict[str, float]:
        """Return the median of each contestant."""
        found = self.figures[part] = {name: [] for name in contestants}
        for turn in range(self.args.repeats):
            for name, one in contestants.items():
                found[name].append(one())
                print(f"{part} {turn + 1}/{self.args.repeats}: {name} {found[name][-1]:.4g}", file=sys.stderr)
        return {name: median(values) for name, values in found.items()}

    def judge(self, what: str, mine: float, against: str, base: float, most: float, more: str = "") -> None:
        """Add a row with the target mine / base <= most, or mine - base <= most if `more` names a unit."""
        value, unit = (mine - base, f" {more} more") if more else (mine / base, "")
        verdict = f"{value:.3f}{unit}", f"<= {most:.3g}{unit}", "yes" if value <= most else "NO"
        self.rows.append((what, f"{against} {base:.4g} {more or 's'}", f"{mine:.4g} {more or 's'}", *verdict))

    def versus(
        self, part: str, against: str, base: Callable, ours: dict[str, Callable], most: float, more: str = ""
    ) -> None:
        found = self.measure(part, {against: base, **ours})
        for what in ours:
            self.judge(what, found[what], against, found[against], most, more)


def training(bench: Bench, net: str) -> None:
    """Seconds per epoch: training, validation, logs and checkpoints. The LSTM on IMDB against a loop and Keras only."""
    data, others = ("imdb", ("keras",)) if net == "lstm" else ("mnist", tuple(OTHERS))
    epochs, what = bench.args.epochs, f"{data.upper()} {net}, an epoch"

    def loop(kind: str) -> float:
        marks = bench.last_line(*LOOPS, kind, net, epochs)["marks"]
        return (marks[-1] - marks[1]) / (epochs - 1)

    def ours() -> float:
        command, folder = bench.training(f"model={net}", f"data={data}", f"trainer.epochs={epochs}")
        bench.end(bench.start(command))
        ends = wall_times(folder, "val/loss")
        return (ends[-1] - ends[0]) / (epochs - 1)

    installed = [name for name in others if importlib.util.find_spec(name)]
    loader = () if net == "lstm" else ("loader",)
    contestants = {"hand": partial(loop, "hand"), "dl-run": ours}
    contestants |= {kind: partial(loop, kind) for kind in (*loader, *installed)}
    found = bench.measure(net, contestants)
    bench.judge(what, found["dl-run"], "hand-written", found["hand"], 1.02)
    for _ in loader:
        bench.judge(what, found["dl-run"], "DataLoader loop", found["loader"], 1.0)
    for name in others:
        if name in installed:
            bench.judge(what, found["dl-run"], f"{OTHERS[name]} {version(name)}", found[name], SHARE[net])
        else:
            bench.rows.append((what, f"{OTHERS[name]}: pip install -e '.[bench]'", "", "", "", "skipped"))


def wall_times(folder: Path, tag: str) -> list[float]:
    """Return the times at which TensorBoard's points of this curve were written."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return [point.wall_time for point in EventAccumulator(str(folder / "tensorboard")).Reload().Scalars(tag)]


def resnet18(bench: Bench) -> None:
    """Seconds per step, from the times of two rows of step/*."""
    rows = bench.args.steps // WARM

    def ours() -> float:
        choice = "model=resnet18", "data=cifar10", "trainer.precision=bf16", f"trainer.log_every={WARM}"
        times = wall_times(bench.until(1 + rows, *choice)[1], "step/loss")
        return (times[rows] - times[0]) / (rows * WARM)

    hand = partial(bench.last_line, *LOOPS, "step", "resnet18", rows * WARM)
    bench.versus("resnet18", "hand-written", hand, {"CIFAR-10 ResNet18 bf16, 128 images": ours}, 1.02)


def generative(bench: Bench, model: str) -> None:
    """Seconds per step; both contestants in one process, in turns."""
    runs = [bench.last_line(*STEPS, model, 10 * bench.args.steps) for _ in range(bench.args.repeats)]
    found = bench.figures[model] = {name: [run[name] for run in runs] for name in runs[0]}
    ratio = median(run["dl-run"] / run["hand"] for run in runs)
    base = median(found["hand"])
    bench.judge(f"MNIST {model}, a step", ratio * base, "hand-written", base, 1.03)


def images(bench: Bench) -> None:
    """Seconds to decode, resize and store 50,000 small JPEGs, without a cache from before."""
    folder = bench.folder / "jpegs"
    folder.mkdir()
    bench.last_line(*IMAGES, "make", folder, 50_000)
    bare, ours = (partial(bench.last_line, *IMAGES, what, folder) for what in ("bare", "dl-run"))
    bench.versus("images", "bare Pillow loop", bare, {"50,000 JPEGs to the cache": ours}, 1.2)


def startup(bench: Bench) -> None:
    """Seconds from the start of the process to the end of the first step, or of the import; exiting is not included."""
    base = partial(bench.seconds, *CODE, "import os, torch; os._exit(0)")
    ours = {"digits, start to first step": lambda: bench.until(1, "trainer.log_every=1")[0]}
    bench.versus("startup", "import torch", base, ours, 1.0, more="s")


def memory(bench: Bench) -> None:
    """Peak resident memory of a whole run, including the test and the plots."""
    peak, choice = [*CODE, PEAK], ("model=mlp", "data=mnist", "trainer.epochs=3")
    ours = {"MNIST mlp, peak memory": lambda: bench.last_line(*peak, *bench.training(*choice)[0])}
    bench.versus("memory", "import torch", partial(bench.last_line, *peak, *CODE, "import torch"), ours, 250, more="MB")


def ppo(bench: Bench) -> None:
    """Seconds of training and evaluation until CartPole is solved, and frames per second. The seed is the repeat."""
    found: dict[str, list[dict]] = {"stable-baselines3": [], "dl-run": []}

    def other() -> float:
        seed = len(found["stable-baselines3"])
        found["stable-baselines3"].append(bench.last_line(sys.executable, HERE / "bench_ppo.py", seed))
        return found["stable-baselines3"][-1]["seconds"]

    def ours() -> float:
        command, folder = bench.training("model=ppo", "trainer.stop_at=475", f"seed={len(found['dl-run'])}")
        bench.end(bench.start([*command, "data.video_steps=0"]))
        summary = json.loads((folder / "summary.json").read_text())
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        solved = summary["stopped_by"] == "stop_at"
        found["dl-run"].append({"seconds": summary["seconds"], "frames": rows[-1]["samples"], "solved": solved})
        return summary["seconds"]

    if not importlib.util.find_spec("stable_baselines3"):
        bench.rows.append(("CartPole by PPO", "pip install -e '.[bench]'", "", "", "", "skipped"))
        return
    medians = bench.measure("ppo", {"stable-baselines3": other, "dl-run": ours})
    title = f"Stable-Baselines3 {version('stable-baselines3')}"
    bench.judge("CartPole by PPO, to solved", medians["dl-run"], title, medians["stable-baselines3"], 1 / 3)
    speeds = {name: median(one["frames"] / one["seconds"] for one in runs) for name, runs in found.items()}
    bench.rows.append(
        (
            "CartPole by PPO, frames/s",
            f"{title} {speeds['stable-baselines3']:,.0f}",
            f"{speeds['dl-run']:,.0f}",
            f"{speeds['dl-run'] / speeds['stable-baselines3']:.3f}",
            "",
            ", ".join(f"{name} {sum(r['solved'] for r in runs)} of {len(runs)} solved" for name, runs in found.items()),
        )
    )


# A forked child inherits its parent's peak, so a small process starts the command.
PEAK = """import os, sys
_, status, usage = os.wait4(os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:]), 0)
print(usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
sys.exit(os.waitstatus_to_exitcode(status))"""


def cli(bench: Bench) -> None:
    """Seconds for the help, the printed config and an error."""
    commands = {"--help": ["--help"], "--cfg job": ["--cfg", "job"], "a misspelt key": ["trainer.epoch=1"]}
    ours = {f"dl-run, {name}": partial(bench.seconds, *RUN, *words, codes=(0, 2)) for name, words in commands.items()}
    bench.versus("cli", "import hydra", partial(bench.seconds, *CODE, "import hydra"), ours, 3.0)


def python(bench: Bench) -> None:
    """Seconds of a whole process: the command, and a program that calls dlrun.train with the same words."""

    def command() -> float:
        return bench.seconds(*bench.training("trainer.epochs=3")[0])

    def program() -> float:
        words = bench.training("trainer.epochs=3")[0][len(RUN) :]
        return bench.seconds(*CODE, f"import dlrun; dlrun.train(*{words})")

    bench.versus("python", "dl-run", command, {"dlrun.train, digits": program}, 0.1, more="s")


def trackers(bench: Bench) -> None:
    """Seconds of a run's steps with each tracker that is installed; all in one process, in turns."""
    found = bench.last_line(sys.executable, HERE / "bench_trackers.py", 3 * bench.args.epochs, bench.args.repeats)
    bench.figures["trackers"] = found["seconds"]
    base = median(wall for wall, _ in found["seconds"].pop("none"))
    for name in found["seconds"]:
        bench.judge(f"MNIST mlp, all steps with {name}", found["ratios"][name][0] * base, "without", base, 1.03)


PARTS = {net: partial(training, net=net) for net in SHARE}
PARTS |= {part.__name__: part for part in (resnet18, startup, memory, cli, ppo, images, python, trackers)}
PARTS |= {model: partial(generative, model=model) for model in ("vae", "wgan_gp")}
PARTS |= {"stacks": partial(stacks, run=RUN), "tables": tables}


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*: (.*)", info)
    processor = ", ".join(
        [
            name[1] if name else platform.processor(),
            f"{os.cpu_count()} cores",
            *re.findall("avx512_bf16|amx_bf16", info)[:1],
        ]
    )
    threads = os.environ.get("OMP_NUM_THREADS", os.cpu_count())
    return f"{processor}, {threads} threads, torch {version('torch')}, Python {platform.python_version()}"


def main(description: str) -> None:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, from %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="repeats of each measurement (%(default)s)")
    parser.add_argument(
        "--epochs", type=int, default=8, help="epochs of each training; the first is not timed (%(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=24, help="timed steps of ResNet18, after 8 untimed ones (%(default)s)"
    )
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    args = parser.parse_args()
    if not set(args.only.split(",")) <= set(PARTS) or min(args.repeats, args.epochs - 1, args.steps // WARM) < 1:
        parser.error(f"expected --only some of {','.join(PARTS)}; --repeats >= 1, --epochs >= 2, --steps >= {WARM}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, Path(folder))
        for part in args.only.split(","):
            PARTS[part](bench)
    titles = ("what", "against", "dl-run", "ratio or difference", "target", "reached")
    print("\n".join("| " + " | ".join(row) + " |" for row in (titles, ("---",) * len(titles), *bench.rows)))
    print(f"\n{machine()}")
    if args.json:
        content = {"machine": machine(), "rows": [titles, *bench.rows], "figures": bench.figures}
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    sys.exit(any(row[-1] == "NO" for row in bench.rows))
