"""Measure the chat: against bare commands, against the design of 2011, against a peer from PyPI.

Examples:
  python tests/bench/run.py                       all rows on every engine, in some minutes
  python tests/bench/run.py --quick               a smoke test: small, short, its figures mean nothing
  python tests/bench/run.py send check --engine redis
  cd tests/bench && python run.py --json results/results.json --plots results --readme README.md
"""

# ruff: noqa: E402  the folders above come into the path first
from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
sys.path.insert(0, str(HERE.parent.parent))  # it also runs where nothing is installed

from calls import check, check_many, cpu, pollers, send, senders
from daemon import fleet, tick_to_report
from figures import Bench, Figure
from memory import memory
from report import as_json, paste, plots, table
from servers import BINARIES, STEERS, Server
from sweeps import archive, giants, latency, sweeps
from waiting import wake

ROWS = {
    "send": send,
    "check": check,
    "many": check_many,
    "senders": senders,
    "pollers": pollers,
    "cpu": cpu,
    "waiting": wake,
    "memory": memory,
    "giants": giants,
    "latency": latency,
    "sweeps": sweeps,
    "archive": archive,
    "tick": tick_to_report,
    "fleet": fleet,
}
PACKAGES = ("redis", "hiredis", "celery", "channels_redis")


def main() -> None:
    options = parsed()
    for name in [name for name in os.environ if name.startswith(STEERS)]:
        del os.environ[name]  # no setting of this machine steers a figure
    engines = list(BINARIES) if options.engine == "both" else [options.engine]
    machine = described(quick=options.quick)
    results: dict[str, list[Figure]] = {}
    for engine in engines:
        with tempfile.TemporaryDirectory() as folder:
            server = Server(engine, Path(folder), {"maxclients": "1000"}).start()
            try:
                bench = Bench(server, Path(folder), options.quick)
                name = named(bench)
                for row in options.rows or ROWS:
                    start = time.monotonic()
                    ROWS[row](bench)
                    sys.stderr.write(f"{name}: {row}, {time.monotonic() - start:.0f} s\n")
                results[name] = bench.figures
            finally:
                server.stop()
    text = table(results, machine)
    sys.stdout.write(text + "\n")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(as_json(results, machine), "utf-8")
    if options.plots:
        plots(results, machine, options.plots)
    if options.readme:
        paste(options.readme, text)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], metavar="row", help=", ".join(ROWS))
    parser.add_argument("--engine", choices=[*BINARIES, "both"], default="both")
    parser.add_argument("--quick", action="store_true", help="small and short, for a smoke test")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="needs matplotlib")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="put the table between the markers in it")
    return parser.parse_args()


def named(bench: Bench) -> str:
    with bench.client() as redis:
        info = redis.info("server")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


def described(*, quick: bool) -> dict[str, str]:
    """Return what the figures depend on."""
    found = {"date": datetime.now(UTC).date().isoformat(), "cores": f"{os.cpu_count()} shared"}
    found |= {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found | ({"quick run": "its figures mean nothing"} if quick else {})


if __name__ == "__main__":
    main()
