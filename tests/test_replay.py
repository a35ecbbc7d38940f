from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from servers import BINARIES, ROOT, clean_environment

if TYPE_CHECKING:
    from pathlib import Path

SERVERS = {"valkey": "embedded", "redis": "redis-server"}


def replay(log: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tests" / "replay.py"), str(log), *arguments]
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=110, check=False)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A generated day: 8 channels, 40 people, 4,000 messages in busy and quiet hours."""
    dice = random.Random(1)
    minutes = sorted(min(1439, int(dice.gauss(720, 300)) % 1440) for _ in range(4000))
    entries = [
        {
            "channel": f"room {dice.randrange(8)}",
            "minute": minute,
            "sender": f"person {dice.randrange(40)}",
            "text": "word " * dice.randrange(1, 30),
        }
        for minute in minutes
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, entries)))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("engine", BINARIES)
def test_a_replayed_day_keeps_every_promise(log: Path, engine: str) -> None:
    result = replay(log, "--speed", "7200", "--server", SERVERS[engine])
    assert result.returncode == 0, result.stdout + result.stderr
    assert "every invariant held" in result.stdout


@pytest.mark.parametrize(
    ("text", "says"),
    [(None, "No such file"), ("", "no message"), ('{"channel": "a"}', "line 1 must be"), ("[", "line 1 must be")],
)
def test_a_log_that_is_none_is_one_line(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "bad.jsonl"
    if text is not None:
        path.write_text(text)
    result = replay(path)
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert says in result.stderr
