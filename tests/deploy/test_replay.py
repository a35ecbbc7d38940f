from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING

import pytest
from servers import BINARIES, ROOT, run

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

SERVERS = {"valkey": "embedded", "redis": "redis-server"}


def replay(log: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(str(ROOT / "tests" / "replay.py"), str(log), *arguments)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Forty generated minutes: a channel so busy that its people miss something, and quiet ones with pauses."""
    dice = random.Random(1)
    entries = []
    for minute in range(40):
        said = [("busy", dice.randrange(100)) for _ in range(60)]
        said += [(f"quiet {dice.randrange(6)}", dice.randrange(20)) for _ in range(5) if minute % 30 < 12]
        entries += [
            {"channel": channel, "minute": minute, "sender": f"person {who}", "text": "word " * dice.randrange(1, 30)}
            for channel, who in said
        ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, entries)))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("engine", BINARIES)
def test_a_replayed_day_keeps_every_promise(log: Path, engine: str) -> None:
    result = replay(log, "--speed", "360", "--server", SERVERS[engine])
    assert result.returncode == 0, result.stdout + result.stderr
    assert "every invariant held" in result.stdout
    missed = re.search(r"delivered, ([0-9,]+) missed", result.stdout)
    assert missed
    assert int(missed[1].replace(",", "")) > 0


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
