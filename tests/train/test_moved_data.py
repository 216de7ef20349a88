"""Runs whose data is moved, of every kind of file: evaluated from any folder, and at a new place once it is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import command

import dlrun
from dlrun.cli import main as dl_run
from dlrun.runs.cli import main as dl_runs

SMALL = ["trainer.epochs=1", "trainer.device=cpu"]


def lines(place: Path, start: str, row: Callable[[int], str], count: int = 60) -> None:
    place.write_text(start + "\n" + "".join(f"{row(i)}\n" for i in range(count)))


def write_table(place: Path, shift: int) -> None:
    lines(place, "u,v,y", lambda i: f"{i * i % 17},{'pq'[i % 2]},{'no yes'.split()[(i + shift) // 7 % 2]}")


def write_series(place: Path, shift: int) -> None:
    lines(place, "t,v", lambda i: f"{i},{np.sin(i / 5 + shift):.4f}", 120)


def write_arrays(place: Path, shift: int) -> None:
    np.savez(place, x=np.arange(180, dtype=np.float32).reshape(60, 3) % (7 + shift), y=np.arange(60) % 2)


def pixels(*shape: int, of: int, shift: int) -> Image.Image:
    return Image.fromarray(
        np.random.RandomState(of + 100 * shift).randint(0, 2 + 253 * (len(shape) > 2), shape, np.uint8)
    )


def write_images(place: Path, shift: int) -> None:
    for i in range(24):
        (place / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        pixels(8, 8, 3, of=i, shift=shift).save(place / "ab"[i % 2] / f"{i}.png")


def write_texts(place: Path, shift: int) -> None:
    for i in range(24):
        (place / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (place / "ab"[i % 2] / f"{i}.txt").write_text(f"word{i % 5 + shift} and {'ab'[i % 2]}")


def write_masks(place: Path, shift: int) -> None:
    for part, shape in (("images", (16, 16, 3)), ("masks", (16, 16))):
        (place / part).mkdir(parents=True)
        for i in range(12):
            pixels(*shape, of=i, shift=shift).save(place / part / f"{i}.png")


KINDS = {  # the config key of the place, its name, how it is written, and the run
    "table": ("data.file", "t.csv", write_table, ["model=linear", "data.target=y"]),
    "series": ("data.file", "s.csv", write_series, ["model=linear", "data.target=v", "data.window=8"]),
    "arrays": ("data.file", "a.npz", write_arrays, ["model=linear"]),
    "image_folder": ("data.root", "images", write_images, ["model=linear", "data.spec.shape=[3,8,8]"]),
    "text_folder": ("data.root", "t", write_texts, ["model=bag_of_words", "data.length=5", "data.vocab=40"]),
    "mask_folder": ("data.root", "m", write_masks, ["model=unet", "model.width=2", "data.spec.shape=[3,16,16]",
                                                            "data.batch_size=4"]),
}  # fmt: skip


FAST = ("table",)


@pytest.mark.parametrize(
    "data", [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.thorough) for kind in KINDS]
)
def test_the_new_place_is_taken_if_the_data_is_the_same(data, tmp_path, monkeypatch, capsys):
    key, name, write, words = KINDS[data]
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    write(here / name, 0)
    write(there / f"other_{name}", 1)
    train, after = (command(monkeypatch, capsys, main, main.__module__) for main in (dl_run, dl_runs))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    folder, sub = tmp_path / "run", f"./{name}"
    monkeypatch.chdir(here)
    code, *output = train(
        f"data={data}", f"{key}={sub}", *words, *SMALL, f"data_dir={tmp_path}/store", f"run_dir={folder}"
    )
    assert code == 0, output

    monkeypatch.chdir(there)
    code, out, _ = after("evaluate", folder)
    assert code == 0 and out[-1] == "reproduced exactly", "the path was stored as an absolute one"
    (here / name).rename(there / name)
    code, _, err = after("evaluate", folder)
    assert code == 2 and f"dl-run resume={folder} {key}=<place>" in err
    before = (folder / ".hydra" / "config.yaml").read_text()
    code, _, err = train(f"resume={folder}", f"{key}=./other_{name}")
    assert code == 2 and "the data has changed" in err
    assert (folder / ".hydra" / "config.yaml").read_text() == before
    code, out, err = train(f"resume={folder}", f"{key}={sub}")
    assert code == 0 and "its data is unchanged at the new place" in out[-1], err
    monkeypatch.chdir(tmp_path)
    if data == "table":  # from Python, too
        (there / name).rename(there / "again.csv")
        dlrun.resume(folder, f"{key}=there/again.csv")
        (there / "again.csv").rename(there / name)
        dlrun.resume(folder, f"{key}=there/{name}")
    code, out, _ = after("evaluate", folder)
    assert code == 0 and out[-1] == "reproduced exactly"
    code, _, err = train(f"resume={folder}", "trainer.epochs=2")
    assert code == 0, err
    assert after("report", folder)[0] == 0 and after("predict", folder, there / name)[0] == 0
