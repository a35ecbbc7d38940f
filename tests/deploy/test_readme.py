"""The pages: what they show is run as it stands, what they name exists, and what exists is named."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from codeop import compile_command
from dataclasses import fields
from typing import TYPE_CHECKING, NamedTuple

import click
import pytest
import yaml
from celery.bin.celery import celery
from servers import ROOT, Server, clean_environment, eventually, run, worker

from chat.store import keys
from tasks.metrics import NAMES
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chat.store.nodes import Client

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("[a-z]*/README.md")), ROOT / "tests/bench/README.md"]
TEXTS = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in PAGES}
TEXT = "\n".join(TEXTS.values())
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
KINDS = {"python", "console", "sh", "text", ""}  # run, run, only looked at, recorded output, a drawing
OPERATE = ("clean", "health", "restore", "stats")  # of `celery -A tasks`
ALIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE  # a column is as wide as the longest time in it
VARYING = [(r"\d\d:\d\d:\d\d", "hh:mm:ss"), (r"\d+\.\d+ s", "n.nn s")]


def blocks(page: str, kind: str) -> list[str]:
    return [text for found, text in BLOCK.findall(TEXTS[page]) if found == kind]


SESSIONS = [page for page in TEXTS if any(">>>" in block for block in blocks(page, "python"))]
SNIPPETS = [block for page in TEXTS for block in blocks(page, "python") if ">>>" not in block]
CONSOLES = [page for page in TEXTS if blocks(page, "console")]


# What is shown runs.


@pytest.mark.parametrize("page", SESSIONS)
def test_every_python_session_runs(
    page: str, redis: Client, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not redis.dbsize()
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.chdir(tmp_path)  # no .env of a developer's
    result = doctest.testfile(str(ROOT / page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
    assert result.attempted > 5


@pytest.mark.parametrize("page", SESSIONS)
def test_every_python_session_can_be_pasted_into_a_prompt(page: str) -> None:
    for block in blocks(page, "python"):
        source: list[str] = []
        for line in block.splitlines():
            if line.startswith(">>> "):
                assert source == [], f"before {line}: a block needs a line of three dots at its end"
            if line.startswith((">>> ", "...")):
                source.append(line[4:])
            if source and compile_command("\n".join(source)):
                source = []
        assert source == []


class Command(NamedTuple):
    line: str
    output: str  # as shown


def commands(page: str) -> list[Command]:
    """Return what the page's console blocks show, in order."""
    found = []
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            found.append(Command(line, output))
    return found


def console(lines: list[str], folder: Path, environment: dict[str, str]) -> list[tuple[int, str]]:
    """Return the exit code and the output of each command, given to one shell."""
    script = "".join(f"{line}\nprintf '\\036%d\\036' $?\n" for line in lines)
    done = subprocess.run(
        ["bash", "-c", f". .venv/bin/activate\n{script}"],
        cwd=folder,
        env=clean_environment() | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )
    outputs = re.split("\036([0-9]+)\036", done.stdout)
    return [(int(code), output) for output, code in zip(outputs[::2], outputs[1::2], strict=False)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str], Server]]:
    """A folder like a newcomer's, without a .env, with a server and a worker that run."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "deploy").symlink_to(ROOT / "deploy")
    server = Server("valkey", tmp_path_factory.mktemp("server"))
    environment = {"REDIS_URL": server.url}
    one = worker(tmp_path_factory.mktemp("worker"), environment)
    try:
        server.start()
        one.start()
        eventually(lambda: "ready" in one.output)
        yield folder, environment, server
    finally:
        one.stop()
        server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("page", CONSOLES)
def test_every_console_block_runs_and_prints_what_is_shown(
    page: str, checkout: tuple[Path, dict[str, str], Server]
) -> None:
    folder, environment, server = checkout
    with server.client() as redis:
        redis.delete("chat:runs", *redis.scan_iter("chat:{*"))  # the worker's own keys stay
    shown = commands(page)
    done = console([line for line, _ in shown], folder, environment)
    assert [(line, output) for (line, _), (code, output) in zip(shown, done, strict=True) if code] == []
    for (line, expected), (_, output) in zip(shown, done, strict=True):
        for pattern, same in VARYING:
            expected, output = re.sub(pattern, same, expected), re.sub(pattern, same, output)  # noqa: PLW2901
        same_output = doctest.OutputChecker().check_output(expected, output, ALIKE)
        assert not expected or same_output, f"$ {line}\n{output}\nis not\n{expected}"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel brings."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site-packages")
    return folder / "site-packages"


@pytest.mark.parametrize("block", SNIPPETS)
def test_every_python_block_without_a_prompt_runs(block: str, installed: Path) -> None:
    given = "from celery import Celery; app = Celery('yours')\n"  # the reader's
    done = run("-c", given + block, REDIS_URL="redis://127.0.0.1:1", PYTHONPATH=f"{installed}{os.pathsep}{ROOT}")
    assert (done.returncode, done.stderr) == (0, "")


# What is shown and not run: it installs, needs a machine of its own, or does not end.


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert {kind for text in TEXTS.values() for kind, _ in BLOCK.findall(text)} == KINDS
    assert [text for kind, text in BLOCK.findall(TEXT) if kind in {"", "text"} and re.search(r"^(\$|>>>) ", text)] == []
    assert len(re.findall("^```", TEXT, re.MULTILINE)) == 2 * len(BLOCK.findall(TEXT))


def not_run() -> list[str]:
    lines = "".join(text for page in TEXTS for text in blocks(page, "sh")).replace("\\\n", "").splitlines()
    return [line for line in lines if shlex.split(line, comments=True)]


@pytest.mark.parametrize("line", not_run())
def test_a_command_that_is_not_run_has_the_files_options_and_names_that_it_says(line: str) -> None:
    program, *words = shlex.split(line, comments=True)
    paths = [word for word in (program, *words) if re.match(r"(\./)?(chat|deploy|tasks|tests)/", word)]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    units = [word for word in words if re.fullmatch(r"pollchat-\w+", word)]
    assert [name for name in units if not (ROOT / f"deploy/systemd/{name}.service").exists()] == []
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    if program == "celery":
        assert words[:2] == ["-A", "pollchat.tasks"]
        command = celery.commands[words[2]]
        if words[2] != "flower":  # whose options are those of the unit, which are tried
            command.make_parser(click.Context(command)).parse_args(words[3:])
    elif program == "./deploy/up":
        usage = subprocess.run([program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert options <= set(re.findall(r"--\w+", usage))
    elif program == "python":
        assert options <= set(re.findall(r"--\w+", run(words[0], "--help", folder=ROOT).stdout))
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"\w+", words[-1].partition("[")[2])) <= set(extras)
    elif program == "export":
        assert words[0].partition("=")[0] in {*NAMES_OF_SETTINGS, "FLOWER_BASIC_AUTH"}
    else:
        assert program in {"./tests/run", "cp", "docker", "journalctl", "kubectl", "systemctl"}


# What is named exists, and what exists is named.

NAMES_OF_SETTINGS = [field.metadata["name"] for field in fields(Settings)]


def test_the_first_page_is_short() -> None:
    assert len(TEXTS["README.md"].split()) <= 2000


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_leads_somewhere(page: str) -> None:
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        headings = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE) if anchor else []
        if not target.exists() or (anchor and anchor not in map(slug, headings)):
            lost.append(link)
    assert lost == []


def test_every_page_is_reached_from_the_first() -> None:
    assert [page for page in TEXTS if page != "README.md" and f"({page})" not in TEXTS["README.md"]] == []


def test_every_key_is_named() -> None:
    drawn = [line.split()[0].rstrip(",") for line in (keys.__doc__ or "").splitlines() if line.startswith("    chat:")]
    assert len(drawn) == 14
    assert [name for name in drawn if name not in TEXTS["chat/README.md"]] == []


def test_every_setting_has_a_line_in_a_table() -> None:
    assert [name for name in NAMES_OF_SETTINGS if f"\n| `{name}` |" not in TEXT] == []


def test_every_subcommand_of_chat_is_named() -> None:
    usage = run("-m", "chat", "--help").stdout
    found = re.findall(r"^ {2,4}([a-z]+) {2,}\S", usage, re.MULTILINE)
    assert len(found) > 5
    assert [name for name in found if f"`chat {name} " not in TEXT and f"`chat {name}`" not in TEXT] == []


@pytest.mark.parametrize("name", OPERATE)
def test_every_option_of_the_operators_commands_is_named(name: str) -> None:
    assert f"celery -A tasks {name}" in TEXT
    command = celery.commands[name]
    parts = command.commands.values() if isinstance(command, click.Group) else [command]
    options = {tuple(param.opts) for part in parts for param in part.params if isinstance(param, click.Option)}
    assert {opts for opts in options if not any(re.search(rf"`.*{opt}\b.*`", TEXT) for opt in opts)} == set()


def test_every_alert_is_named_with_its_severity() -> None:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"][0]["rules"]
    severities = {rule["alert"]: rule["labels"]["severity"] for rule in rules}
    found = re.findall(r"^### (.*Pollchat.*)", TEXTS["deploy/README.md"], re.MULTILINE)
    said = [part for heading in found for part in re.findall(r"`(\w+)`|(critical|warning)", heading)]
    assert {name for name, _ in said if name} == set(severities)
    assert set(re.findall(r"`(Pollchat\w+)`", TEXT)) == set(severities)
    named: list[str] = []
    for name, severity in said:
        named.append(name)
        if severity:
            assert {severities[one] for one in named if one} == {severity}
            named = []


def test_every_alert_has_its_meaning_impact_diagnosis_and_mitigation() -> None:
    parts = re.split(r"^#+ ", TEXTS["deploy/README.md"], flags=re.MULTILINE)
    words = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    for part in parts:
        if part.startswith("`Pollchat"):
            assert re.findall(r"^- \*\*(\w+):\*\*", part, re.MULTILINE) == words


def test_every_file_that_is_named_exists() -> None:
    named = re.findall(r"`((?:deploy|tests|tasks|chat)/[\w./-]+)`", TEXT)
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert len(named) > 20


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert named - {path.stem for path in (ROOT / "tests").glob("*/test_*.py")} == set()
    assert len(named) > 15


def test_every_metric_is_named() -> None:
    named = set(re.findall(r"`(chat_\w+)`", TEXT))
    assert named == set(NAMES)
