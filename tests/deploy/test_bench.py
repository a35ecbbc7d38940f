"""The benchmark still runs: small and short, its figures mean nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from servers import ROOT, Server, run

if TYPE_CHECKING:
    from collections.abc import Callable
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


def test_the_slow_log_is_emptied_before_the_seeding_and_never_between_it_and_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "bench"))
    import sweeps  # noqa: PLC0415  the benchmark's folder comes into the path above
    from figures import Bench  # noqa: PLC0415

    done: list[str] = []
    for where, name in ((sweeps, "seed"), (sweeps, "seed_giant"), (Redis, "slowlog_reset")):
        monkeypatch.setattr(where, name, _noting(getattr(where, name), done))
    server = Server("valkey", tmp_path).start()
    try:
        bench = Bench(server, tmp_path, quick=True)
        sweeps.sweeps(bench)
        sweeps.giants(bench)
    finally:
        server.stop()
    assert done == ["slowlog_reset", "seed"] * 2 + ["slowlog_reset", "seed_giant"] * 3


def _noting(call: Callable[..., Any], done: list[str]) -> Callable[..., Any]:
    def noted(*args: Any, **options: Any) -> Any:
        done.append(call.__name__)
        return call(*args, **options)

    return noted
