"""`dl-runs ui` in a real browser: Chromium, if there is one, driven by playwright."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from run_files import write_run
from test_ui import write_sweep

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
HOSTILE = "<img src=x onerror=document.title='owned'><b>bold"
MANY = 2000


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """2,000 runs, of which the newest has hostile names; run number i has seed i."""
    base = tmp_path_factory.mktemp("outputs")
    for i in range(MANY):
        name = HOSTILE if i == MANY - 1 else f"12-00-00_mlp_digits_{i}"
        best = {"metric": "val/loss", "value": ((i * 7) % MANY) / MANY, "epoch": 3}
        folder = write_run(base / f"2026-11-{1 + i // 100:02}" / name, seed=i, best=best, model=f"model{i % 2}")
        os.utime(folder / ".hydra" / "overrides.yaml", (1.7e9 + i, 1.7e9 + i))
    (folder / "plots").mkdir()
    from PIL import Image

    Image.new("RGB", (300, 200), "red").save(folder / "plots" / "loss.png")
    return base


@pytest.fixture(scope="module")
def address(base):
    command = [sys.executable, "-m", "dlrun.runs.cli", "ui", "--port", "0", "--output-dir", str(base)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, address):
    """A new window that has opened the address. Errors of its scripts and requests elsewhere fail the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    found, errors = context.new_page(), []
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.on(
        "console",
        lambda message: errors.append(message.text) if message.type == "error" and "404" not in message.text else None,
    )
    found.on(
        "request",
        lambda request: None if request.url.startswith((address[:17], "data:")) else errors.append(request.url),
    )
    found.goto(address)
    found.wait_for_selector("#runs tbody tr[data-id]")
    while found.evaluate("state.runs.size") < MANY:
        found.wait_for_timeout(50)
    yield found
    assert not errors, errors
    context.close()


def shown(page, column):
    """The texts of a column of the table, of the visible rows and those near them."""
    index = page.evaluate("name => COLUMNS.findIndex(c => c[0] === name)", column) + 2
    return page.locator(f"#runs tbody tr[data-id] td:nth-child({index})").all_inner_texts()


def test_first_paint_is_within_a_second(page, browser, address):
    assert page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") < 1000
    assert page.locator("#runs tbody tr").count() < 100  # only rows that can be seen
    assert page.url == address.partition("?")[0] + "#curves"  # the address no longer holds the token


def test_sorting_and_filtering(page):
    assert shown(page, "seed")[:3] == ["1999", "1998", "1997"]
    page.locator("th[data-name=best]").click()
    assert shown(page, "best")[0] == f"loss {(MANY - 1) / MANY:.4f}"
    page.locator("th[data-name=best]").click()
    assert shown(page, "best")[:2] == ["loss 0", f"loss {1 / MANY:.4f}".replace("0.0005", "5.00e-4")]
    page.fill("#filter", "model=model1 seed<20")
    assert sorted(map(int, shown(page, "seed"))) == list(range(1, 20, 2))
    assert page.inner_text("#counts") == "10 of 2,000 runs"
    page.fill("#filter", "digits_19?* run=*99")
    assert page.inner_text("#counts").startswith("0 of")


def test_curves_of_chosen_runs(page):
    page.fill("#filter", "seed>=1990 seed<1993")
    for i in range(3):
        page.locator("#runs tbody tr[data-id]").nth(i).click()
    page.wait_for_selector(".panel .main-svg", state="attached", timeout=60_000)
    page.wait_for_timeout(500)
    assert page.evaluate("document.querySelector('.panel').data.length") == 6  # val and train
    assert page.evaluate("document.querySelector('.panel').data[0].y") == [2, 1, 2 / 3, 0.5]
    page.locator("#log").click()
    page.evaluate("$('smoothing').value = 0.5; $('smoothing').dispatchEvent(new Event('input'))")
    page.wait_for_timeout(500)
    panel = page.evaluate("(p => [p.layout.yaxis.type, p.data.length, p.data[1].y])(document.querySelector('.panel'))")
    smooth = [2, (2 * 0.5**2 + 1 * 0.5) / 0.75]  # the mean, weighted with powers of 1/2
    assert panel[:2] == ["log", 12] and panel[2][:2] == pytest.approx(smooth)
    page.reload()
    page.wait_for_selector("#runs tbody tr.on")
    assert page.inner_text("#chosen") == "3 chosen"


def test_hostile_names_are_text(page):
    page.locator("#runs tbody tr[data-id]").first.click()
    page.wait_for_selector(".panel .main-svg", state="attached", timeout=60_000)
    page.locator("[data-tab=configs]").click()
    page.wait_for_selector("#configs .error")  # the config is not dl-run's: reported, not hidden
    page.locator("[data-tab=images]").click()
    page.wait_for_selector("#images img")
    while page.evaluate("document.querySelector('#images img').naturalWidth") != 300:
        page.wait_for_timeout(50)
    assert HOSTILE in page.inner_text("#images h3")
    page.locator("[data-tab=logs]").click()
    page.wait_for_selector("#logs pre")
    assert page.title() == "dl-runs" and page.locator("img[src=x], b").count() == 0


def test_the_page_follows_the_files(page, base):
    folder = write_run(base / "2026-11-28" / "live", 1, status="running", seed=4711)
    page.wait_for_timeout(100)
    cell = page.locator("#runs tbody tr[data-id]", has_text="live")
    cell.wait_for(timeout=30_000)
    assert "killed" in cell.inner_text()  # no process holds the lock
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"status": "finished"}))
    page.locator("#runs tbody tr[data-id]", has_text="live").filter(has_text="finished").wait_for(timeout=30_000)
    shutil.rmtree(folder)


def test_a_sweep_is_shown_with_parallel_coordinates(page, base):
    """In a frame without origin, whose script runs but cannot request anything."""
    folder = write_sweep(base / "2026-11-28" / "13-00-00_sweep")
    page.locator("#sweeps option").nth(1).wait_for(state="attached", timeout=30_000)
    page.select_option("#sweeps", index=1)
    frame = page.frame_locator("#sweep iframe")
    frame.locator("#parallel .job").first.wait_for(state="attached", timeout=30_000)
    assert frame.locator("#parallel .job").count() == 4
    assert len(shown(page, "seed")) == 4 and page.inner_text("#counts").startswith("4 of")
    shutil.rmtree(folder)
