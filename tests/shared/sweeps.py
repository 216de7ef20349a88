"""Sweeps that can be killed often: the real state, runner and search, over jobs that only pretend to learn.

A job takes milliseconds, so that a sweep can be killed often; what it writes is what a run writes, as far as a sweep
reads it.
"""

import json
import sys
from pathlib import Path

JOB = """
import json, os, signal, sys, time
folder, x, epochs, seconds = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
os.makedirs(folder + "/checkpoints", exist_ok=True)
path, metrics = folder + "/checkpoints/last.ckpt", folder + "/metrics.jsonl"
done = int(open(path).read()) if os.path.exists(path) else 0
rows = open(metrics).read().splitlines()[:done] if done else []
open(metrics, "w").write("".join(row + "\\n" for row in rows))
def summary(status, **more):
    with open(folder + "/summary.tmp", "w") as file:
        json.dump({"status": status, "goal": "val/loss", "scores": {"val/loss": "min"}, **more}, file)
    os.replace(folder + "/summary.tmp", folder + "/summary.json")
summary("running")
do = sys.argv[5]
if do == "refuse":
    print("something before\\ndl-run: x=0: expected another\\n  expected this")
    sys.exit(2)
if do == "exit":
    sys.exit(0)
if do == "raise":
    raise RuntimeError("a bug")
if do == "abort":
    os.abort()
if do == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if do in ("hang", "stubborn"):
    print("hanging", flush=True)
    os.fork()  # a process of its own, which is to go with it
    time.sleep(1000)
for epoch in range(done + 1, epochs + 1):
    time.sleep(seconds)
    with open(metrics, "a") as file:
        file.write(json.dumps({"step": epoch, "epoch": epoch, "val/loss": (x - 0.3) ** 2 + 1 / epoch}) + "\\n")
    open(path + "tmp", "w").write(str(epoch))
    os.replace(path + "tmp", path)
with open(folder + "/../finished", "a") as file:
    file.write(folder + "\\n")
best = {"epoch": epochs, "metric": "val/loss", "value": (x - 0.3) ** 2 + 1 / epochs}
summary("finished", best=best, test={}, seconds=epochs * seconds)
"""

INTERVAL = (0.0, 1.0, False, False)


def sweep(
    folder: str, num: int, jobs: int, *, epochs: int = 4, seconds: float = 0.02, do: dict[str, str] | None = None,
    timeout: float = 100.0, retry: str | None = None, join: str | None = None, **search: object,
) -> None:  # fmt: skip
    """Start or resume a sweep of `num` jobs in this process. search: keys of sweep=optuna for a search.

    do: what jobs do instead of learning, by number.
    """
    import yaml

    from dlrun.config.pairing import CONFIGS
    from dlrun.sweep import process
    from dlrun.sweep.axes import Axis
    from dlrun.sweep.job import Job
    from dlrun.sweep.opening import compare, existing_sweep, new_sweep
    from dlrun.sweep.plan import Plan
    from dlrun.sweep.report import closing
    from dlrun.sweep.runner import Runner
    from dlrun.sweep.screen import Screen
    from dlrun.sweep.settings import Grid, Search
    from dlrun.sweep.slots import Slots

    keys = yaml.safe_load((CONFIGS / "sweep" / "grid.yaml").read_text()) | {"retry": retry, "join": join}
    if search:
        keys |= yaml.safe_load((CONFIGS / "sweep" / "optuna.yaml").read_text()) | {"trials": num} | search
    settings = (Search if search else Grid)(**{k: v for k, v in keys.items() if k[0] != "_" and k != "defaults"})
    plan, points = Plan(), [Job(i, [f"x={i / num}"]) for i in range(num)]
    if search:
        from dlrun.sweep.search import Optuna

        plan, points = Optuna(settings, [Axis(["x"], [], INTERVAL, "x=interval(0,1)")], epochs), []
    axis = Axis(["x"], [] if search else [job.overrides for job in points], INTERVAL if search else None, "x=...")
    command = {"command": [], "flags": [], "arguments": ["x=..."], "configs": ""}
    there = sorted(Path(folder).glob("*/*_sweep"))
    if there:
        opened = existing_sweep(there[0], settings, lambda state, how: compare(state, how, ["x=..."], {}, [axis]))
    else:
        opened = new_sweep(Path(folder), settings, command, points, {"multirun.yaml": "", "base": {}})

    def pretend(job: Job, goes_on: bool) -> list[str]:
        x, what = job.overrides[0].partition("=")[2], (do or {}).get(str(job.number), "")
        return [sys.executable, "-S", "-c", JOB, str(state.run_folder(job)), x, str(epochs), str(seconds), what]

    with opened as state:
        with state.alone():
            plan.open(state)
        process.GRACE, screen = 0.5, Screen()
        stopped = Runner(state, plan, Slots(jobs, None, []), timeout, pretend, screen, stays=not join).run()
        screen.show(closing(state, stopped))


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    sweep(*arguments.pop("args"), **arguments)
