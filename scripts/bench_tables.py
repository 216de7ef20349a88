"""The part `tables` of scripts/bench: reading a table of 1,000,000 rows, and a run on a series of 1,000,000 steps.

bench_tables.py make FOLDER                         write table.csv (250 MB), series.csv (63 MB) and short.csv
bench_tables.py polars|load|series|short FOLDER     print JSON: seconds and memory of one of these

polars is its own reading of the table; load is all of `data=table`: read, split, encoded and put on the device. Memory
is the highest resident set of the process, less that with torch and polars imported, in MB. series and short are whole
runs, on all steps of the series and on its first 10,000; the difference is the memory that the series takes.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

ROWS, SHORT = 1_000_000, 10_000
TABLE = ["data=table", "data.target=target"]
SERIES = ["data=series", "data.target=v0", "data.time=time", "data.window=48", "data.horizon=24", "model=linear"]
RUN = ["trainer.device=cpu", "trainer.max_steps=500", "data.batch_size=64"]


def tables(bench: Any) -> None:
    """Add the rows."""
    bench.last_line(sys.executable, __file__, "make", bench.folder)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("polars", "load", "series", "short")}

    def one(name: str) -> float:
        found[name].append(bench.last_line(sys.executable, __file__, name, bench.folder))
        return found[name][-1]["seconds"]

    seconds = bench.measure("tables", {name: partial(one, name) for name in found})
    memory = {name: sorted(each["memory"] for each in runs)[len(runs) // 2] for name, runs in found.items()}
    rows, encoded = "1,000,000 rows of 31 columns", found["load"][0]["encoded"]
    bench.judge(f"{rows}, read and encoded", seconds["load"], "1.2 x polars + 2 s", 1.2 * seconds["polars"] + 2, 1.0)
    bench.rows.append(_memory(rows, "encoded", encoded, memory["load"], 3.0))
    stored = ROWS * (5 + 1) * 4 / 2**20  # five columns and the target
    steps = "a run on 1,000,000 steps of 5 columns"
    bench.rows.append(_memory(steps, "the stored series", stored, memory["series"] - memory["short"], 2.0))


def _memory(what: str, against: str, base: float, mine: float, most: float) -> tuple[str, ...]:
    ratio = mine / base
    verdict = "yes" if ratio <= most else "NO"
    return f"{what}, memory", f"{against} {base:.4g} MB", f"{mine:.4g} MB", f"{ratio:.3f}", f"<= {most:.3g}", verdict


def make(folder: Path) -> None:
    """Write a table of 17 real, 6 whole, 5 text and 2 other columns and a target; and a series with its time."""
    import numpy as np
    import polars as pl

    random = np.random.default_rng(0)
    columns: dict[str, Any] = {f"real{i}": np.round(random.normal(i, 1 + i, ROWS), 6) for i in range(17)}
    columns |= {f"whole{i}": random.integers(0, 10 ** (i + 1), ROWS) for i in range(6)}
    for i, levels in enumerate((2, 5, 20, 100, 1000)):
        columns[f"cat{i}"] = np.array([f"level {j}" for j in range(levels)])[random.integers(0, levels, ROWS)]
    columns["flag"] = random.integers(0, 2, ROWS).astype(bool)
    columns["day"] = np.datetime64("2015-01-01") + random.integers(0, 3650, ROWS).astype("timedelta64[D]")
    target = np.where(columns["real0"] + 0.1 * columns["real3"] > 0.3, "yes", "no")
    gaps = pl.Series(np.where(random.random(ROWS) < 0.05, np.nan, columns["real5"])).fill_nan(None)
    pl.DataFrame(columns | {"real5": gaps, "target": target}).write_csv(folder / "table.csv")
    hours = np.datetime64("2000-01-01T00:00", "ms") + np.arange(ROWS).astype("timedelta64[h]")
    daily = np.sin(np.arange(ROWS) / 24 * 2 * np.pi)
    walks = {f"v{i}": np.round(np.cumsum(random.normal(size=ROWS)) * 0.01 + daily, 4) for i in range(5)}
    series = pl.DataFrame({"time": hours, **walks})
    series.write_csv(folder / "series.csv")
    series[:SHORT].write_csv(folder / "short.csv")
    print(0)


def polars(file: Path) -> dict[str, float]:
    """Read the table as polars does, without this package."""
    import polars as pl
    import torch  # noqa: F401  # its memory is in that of the other contestant, too

    before, started = resident("VmRSS"), time.perf_counter()
    frame = pl.read_csv(file)
    return {"seconds": time.perf_counter() - started, "memory": resident("VmHWM") - before, "rows": frame.height}


def load(file: Path) -> dict[str, float]:
    """Read, split and encode the table, and put it on the device."""
    import torch
    from hydra import compose, initialize_config_dir

    from dlrun.config.build import build
    from dlrun.config.pairing import CONFIGS
    from dlrun.config.saved import plain

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = plain(compose("config", [*TABLE, f"data.file={file}", "data.batch_size=256"]))
    data = build(config["data"])  # imports polars, with the memory settings of a run
    before, started = resident("VmRSS"), time.perf_counter()
    data.load(torch.device("cpu"))
    seconds = time.perf_counter() - started
    encoded = data.resident.x["train_arrays"].nbytes / 2**20
    return {"seconds": seconds, "memory": resident("VmHWM") - before, "encoded": encoded}


def resident(key: str) -> float:
    """Return VmRSS, the resident set of this process, or VmHWM, the highest one so far, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{key}:"))


def run(file: Path) -> dict[str, float]:
    """Train on a series in a process of its own."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        words = [*SERIES, *RUN, f"data.file={file}", f"output_dir={folder}"]
        subprocess.run([sys.executable, "-m", "dlrun", *words], check=True, stdout=subprocess.DEVNULL)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"seconds": time.perf_counter() - started, "memory": peak}


if __name__ == "__main__":
    part, place = sys.argv[1], Path(os.path.abspath(sys.argv[2]))
    if part == "make":
        make(place)
    elif part in ("polars", "load"):
        print(json.dumps((polars if part == "polars" else load)(place / "table.csv")))
    else:
        print(json.dumps(run(place / f"{part}.csv")))
