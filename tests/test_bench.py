"""The benchmark still runs: small and short, its figures mean nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from servers import ROOT, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
ROWS = {
    "send",
    "check, 1 new",
    "check_many, 100 channels, nothing new",
    "memory",
    "one giant channel",
    "the daemon",
    "waiting",
    "archive",
}


def test_every_row_has_a_figure(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n")
    options = ["--quick", "--engine", "valkey", "--json", str(tmp_path / "results.json"), "--readme", str(readme)]
    done = run("tests/bench/run.py", *options, folder=ROOT)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "results.json").read_text())["figures"]
    (found,) = figures.values()
    assert {figure["row"] for figure in found} >= ROWS
    shown = readme.read_text()
    assert shown.startswith("before\n<!-- bench -->\ndate ")
    assert shown.endswith("|\n<!-- /bench -->\nafter\n")
