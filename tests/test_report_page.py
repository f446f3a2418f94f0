"""tests: the page of `edgewise report` in headless Chromium: what a reader sees, light and dark, wide and narrow."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from edgewise.bench.energy import Energy
from edgewise.bench.host import Host
from edgewise.tasks.figures import efficiency, figures
from edgewise.tasks.html import page
from edgewise.tasks.journal import Batch
from edgewise.tasks.result import FORMAT, Evaluation, Item

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 90
CONTRAST = 4.5  # of text, WCAG 2.2, level AA
LOOK = """
<script>
const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
const light = text => rgb(text).map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
const ground = getComputedStyle(document.body).backgroundColor;
const ink = each => getComputedStyle(each)[each.closest("svg") ? "fill" : "color"];
const box = each => { const b = each.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
const texts = [...document.querySelectorAll("h1, h2, h3, p, td, th, svg text")].filter(each => each.textContent.trim());
const seen = {
  dark: matchMedia("(prefers-color-scheme: dark)").matches, ground: light(ground),
  wider: document.documentElement.scrollWidth - innerWidth,
  faint: texts.filter(each => contrast(ink(each), ground) < LEAST).map(each => each.textContent),
  plots: [...document.querySelectorAll("svg")].map(svg => ({
    box: box(svg), points: svg.querySelectorAll("circle").length,
    labels: [...svg.querySelectorAll(".label")].map(box), all: [...svg.querySelectorAll("text, circle")].map(box)})),
  loaded: performance.getEntriesByType("resource").length,
};
document.documentElement.dataset.seen = JSON.stringify(seen);
</script>
"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")]


def evaluation(method: str, right: int, tokens: int, seconds: float) -> Evaluation:
    items = tuple(
        Item(id=str(i), kind="answer", right=float(i < right), text=f"{i} <b>is</b> it", tokens=tokens, seconds=seconds)
        for i in range(40)
    )
    batch = Batch(items, (0.01,) * 99, 40 * seconds, Energy(seconds * 400, "rapl"))
    return Evaluation(
        FORMAT, "small.edge", "b" * 64, "tasks.jsonl", "a" * 64, method, {}, Host.here(), 1, figures(items),
        efficiency([batch], None), items,
    )  # fmt: skip


def looked_at(folder: Path, *flags: str) -> dict[str, Any]:
    """What the page is like to a reader."""
    methods = [
        evaluation("greedy", 18, 44, 0.01),
        evaluation("self-consistency, budget 4", 19, 177, 0.02),
        evaluation("self-consistency, budget 16", 23, 706, 0.07),
        evaluation("adaptive-consistency, budget 16", 23, 690, 0.069),
        evaluation("best-of-n, budget 16", 36, 706, 0.08),
    ]
    path = folder / "page.html"
    path.write_text(page(methods).replace("</html>", LOOK.replace("LEAST", str(CONTRAST)) + "</html>"), "utf-8")
    command = [
        str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile", *flags,
        "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, done.stderr
    seen: dict[str, Any] = json.loads(unescape(found[1]))
    return seen


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_can_be_read(dark: bool, width: int, tmp_path: Path) -> None:
    seen = looked_at(tmp_path, f"--window-size={width},1200", *(["--force-dark-mode"] if dark else []))
    assert seen["dark"] == dark
    assert (seen["ground"] < 0.1) == dark
    assert seen["wider"] <= 0
    assert seen["faint"] == []
    assert seen["loaded"] == 0
    assert [plot["points"] for plot in seen["plots"]] == [5, 5, 5]
    for plot in seen["plots"]:
        left, top, right, bottom = plot["box"]
        assert right - left > 300
        for x0, y0, x1, y1 in plot["all"]:
            assert left - 1 <= x0 < x1 <= right + 1
            assert top - 1 <= y0 < y1 <= bottom + 1
        labels = sorted(plot["labels"], key=lambda box: box[1])
        for i, (x0, _, x1, y1) in enumerate(labels):
            for o0, p0, o1, _ in labels[i + 1 :]:
                overlap = min(x1, o1) - max(x0, o0)
                assert overlap <= 0 or p0 >= y1 - 3, "two labels are on each other"
