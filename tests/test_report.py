"""A small evaluation as a whole: its report in a browser, its curves in TensorBoard."""

import html
import json
import os
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request

import pytest
from tensorboard import program

from meta_rules import saved_rules
from meta_rules.evaluation import comparison
from meta_rules.evaluation.curves import Curves
from meta_rules.evaluation.evaluation_run import Evaluation
from meta_rules.evaluation.protocol import Protocol
from meta_rules.evaluation.sweeps import Sweep
from meta_rules.rules import DefaultRule

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    rule = DefaultRule(hidden=4, error_channels=2, factors=2)
    saved_rules.save_rule(folder / "rule", rule, {"meta_steps": 3, "trained_on": ["<digits> & more"]})
    protocol = Protocol(hidden=(12, 6), batch_size=16, shots=(1, 10), draws=2, query=10, validation=10)
    evaluation = Evaluation(
        str(folder / "rule"),
        ("digits",),
        str(folder / "report"),
        protocol,
        ("learned", "untrained", "raw", "pca", "rule:/no/such/rule"),
        ("ridge", "knn"),
        Curves(points=(0, 10, 100), horizon=10, networks=2),
        True,
        (
            Sweep(
                "activation",
                ("relu", "none"),
                ("untrained",),
                protocol={"draws": 2, "shots": (10,)},
            ),
        ),
    )
    # The default applications would take longer than the rest of the test.
    evaluation._method("learned").applications = (10,)
    return folder / "report", evaluation.run()


def test_the_directory_holds_what_the_documentation_says(finished):
    folder, rows = finished
    assert json.loads((folder / "results.json").read_text()) == rows
    assert all(set(comparison.COLUMNS) <= set(row) for row in rows)
    failed = {(row["method"], row.get("value")) for row in rows if row["error"]}
    assert failed == {("rule:/no/such/rule", None), ("untrained", "none")}
    plots = {os.path.splitext(name) for name in os.listdir(folder / "plots")}
    names = {"digits-order", "digits-shots", "digits-curve", "digits-receptive-fields", "digits-features"}
    names.add("sweep-0-activation-digits")
    assert plots == {(name, kind) for name in names for kind in (".png", ".svg")}
    page = (folder / "report.html").read_text()
    assert "&lt;digits&gt; &amp; more" in page and "<digits>" not in page
    markdown = (folder / "report.md").read_text()
    assert "| **learned** |" in markdown
    for name in re.findall(r"\]\((plots/[^)]+)\)", markdown):
        assert (folder / name).is_file()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_renders_in_a_browser_without_errors(finished, tmp_path):
    folder, _ = finished
    # The page reports on itself: what a reader would see, and whatever it asked the network for.
    script = """<script>
      const wrong = []; window.onerror = text => { wrong.push(text) };
      window.onload = () => { const list = document.createElement('pre'); list.id = 'found';
        list.textContent = JSON.stringify({ wrong,
          pictures: [...document.images].map(i => ({ width: i.naturalWidth, shown: i.clientWidth, alt: i.alt })),
          asked: performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:')),
          tables: document.querySelectorAll('table').length, title: document.title,
          wide: document.documentElement.scrollWidth > window.innerWidth });
        document.body.append(list); };</script></head>"""
    copy = tmp_path / "copy.html"
    copy.write_text((folder / "report.html").read_text().replace("</head>", script))
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1000,800",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", copy.as_uri(),
        ],
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S).group(1)))
    assert found["wrong"] == [] and found["asked"] == [] and not found["wide"]
    assert len(found["pictures"]) == 6 and found["tables"] == 4
    for picture in found["pictures"]:
        assert picture["width"] > 300 and picture["shown"] > 300
        assert len(picture["alt"]) > 20


def test_tensorboard_shows_the_curves_and_the_pictures(finished):
    folder, _ = finished
    board = program.TensorBoard()
    board.configure(argv=[None, "--logdir", str(folder), "--port", "0", "--load_fast", "false"])
    address = board.launch()

    def ask(path, **query):
        with urllib.request.urlopen(
            f"{address}data/plugin/{path}?{urllib.parse.urlencode(query)}", timeout=30
        ) as answer:
            return answer.read()

    give_up = time.monotonic() + 60
    while not (tags := json.loads(ask("scalars/tags"))) and time.monotonic() < give_up:
        time.sleep(0.5)
    ((run, names),) = tags.items()
    assert {"digits/learned_accuracy", "digits/learned_meta_loss"} <= set(names)
    points = json.loads(ask("scalars/scalars", run=run, tag="digits/learned_accuracy"))
    assert [point[1] for point in points] == [0, 10, 100]
    cell = next(name for name in os.listdir(folder / "cells") if "curve" in name)
    content = json.loads((folder / "cells" / cell).read_text())["content"]
    means = [sum(values) / len(values) for values in content["accuracy"]]
    assert [point[2] for point in points] == pytest.approx(means)
    pictures = json.loads(ask("images/tags"))[run]
    assert "digits-order" in pictures and "digits-receptive-fields" in pictures
    shown = json.loads(ask("images/images", run=run, tag="digits-order", sample=0))
    data = ask("images/individualImage", blob_key=shown[0]["blob_key"]) if "blob_key" in shown[0] else None
    data = data or ask("images/individualImage?" + shown[0]["query"])
    assert data.startswith(b"\x89PNG")
