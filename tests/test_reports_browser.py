"""The pages in a real browser: nothing is asked of a network, no script fails, and they do what they show.

Skipped only where there is no Chromium; never in CI, where `scripts/check` installs it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import browser
import elegan
from elegan.images import save_png
from elegan.training import plan
from test_reports import blobs

pytestmark = pytest.mark.skipif(
    browser.find() is None and os.environ.get("CI") != "true", reason="no Chromium; `apt-get install chromium`"
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """report.html and compare.html of two short runs, whose grids are one grey each, brighter with time."""
    root = tmp_path_factory.mktemp("pages")
    data = blobs(root / "blobs.npz", 12, 12, 3, labelled=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "time_step", lambda step, *_, **__: (step(), 0.01)[1])
        for seed in (0, 1):
            run = elegan.train(
                "tiny", data, root / f"run{seed}", steps=6, batch=8, log_every=1, grids=3, precision="fp32", seed=seed,
                conditional=True, show=False,
            )  # fmt: skip
    for i, path in enumerate(run.folder.grids()):
        save_png(path, np.full((54, 54, 3), 60 * i, np.uint8))
    elegan.report(run, root / "report.html", samples=60)
    elegan.compare([root / "run0", root / "run1"], root / "compare.html", evaluate=False)
    return root


def colour(page: browser.Browser, path: Path) -> tuple[int, ...]:
    """The colour of an image of the sample grid that is shown."""
    box = page.value("(({x, y, width, height}) => ({x, y, width, height}))"
                     "(document.querySelector('.frame.shown img').getBoundingClientRect())")  # fmt: skip
    x, y = box["x"] + 0.4 * box["width"], box["y"] + page.value("scrollY") + 0.4 * box["height"]
    page.picture(path, x=x, y=y, width=3, height=3)
    with Image.open(path) as picture:
        return picture.convert("RGB").getpixel((1, 1))  # type: ignore[return-value]


def test_pages_in_a_browser(pages: Path, tmp_path: Path) -> None:
    with browser.chromium(tmp_path / "profile") as page:
        page.open(pages / "report.html")
        assert page.value("document.querySelectorAll('.frame').length") == 4
        assert colour(page, tmp_path / "last.png") == (180, 180, 180)
        slide = "(() => {const s = document.querySelector('.controls input'); s.value = 1;"
        page.value(slide + "s.dispatchEvent(new Event('input'))})()")
        assert colour(page, tmp_path / "moved.png") == (60, 60, 60)  # the slider changes the picture

        page.value("document.querySelector('.play').click()")
        page.value("new Promise(done => { const t = setInterval(() => { if (!document.querySelector('.play.playing'))"
                   " { clearInterval(t); done(0); } }, 20); })")  # fmt: skip
        assert colour(page, tmp_path / "played.png") == (180, 180, 180)  # it has played to the end

        shown = "getComputedStyle(document.querySelector('.plot.by-{}')).display"
        assert page.value(shown.format("time")) == "none"
        page.value("document.querySelector('#axis-time').click()")
        assert (page.value(shown.format("time")), page.value(shown.format("images"))) == ("block", "none")
        page.value("(() => {const p = document.querySelector('.plot.by-time'); p.focus();"
                   "p.dispatchEvent(new KeyboardEvent('keydown', {key: 'End'}))})()")  # fmt: skip
        told = page.value("document.querySelector('.plot.by-time .values-at').textContent")
        assert "D's loss" in told and "G's loss" in told

        for width, dark in ((390, False), (1280, True)):
            for name in ("report.html", "compare.html"):
                page.open(pages / name, width=width, dark=dark)
                assert page.value("document.documentElement.scrollWidth") <= width, f"{name} is wider than {width}"
                broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth || !i.alt).length"
                assert page.value("document.images.length") > 1 and page.value(broken) == 0
        ground = page.value("getComputedStyle(document.body).backgroundColor")
        assert sum(map(int, ground.strip("rgb()").split(","))) < 150  # dark

        page.open(pages / "report.html", scripts=False)  # without scripts all grids lie in a row
        page.call("Emulation.setScriptExecutionDisabled", value=False)
        assert page.value("[...document.querySelectorAll('.frame')].every(f => f.offsetWidth > 0)")
        assert page.value("document.querySelector('.controls').hidden")
        assert (page.requests, page.errors) == ([], [])

        (tmp_path / "bad.html").write_text("<img src='http://127.0.0.1:9/x.png'><script>nothing()</script>")
        page.open(tmp_path / "bad.html")
        assert page.requests and page.errors  # both would have been noticed
