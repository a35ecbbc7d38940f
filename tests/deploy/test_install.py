"""deploy/install in a folder of its own, with a project of a few lines: real environments, no network."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from guard import watch
from servers import ROOT, eventually

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("install")]  # they share an environment

FOLDER = "it's 50 % größer"
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "hello"
version = "1"
dependencies = []

[project.optional-dependencies]
up = []
example = []
bad = ["no-such-package-at-all"]
"""
# Builds the wheel of an editable installation: a command, and a file that says it was built once more.
BACKEND = """
import os, time, zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    with open("built", "a") as built:
        built.write("x")
    while os.path.exists("wait"):
        time.sleep(0.01)
    name = "hello-1-py3-none-any.whl"
    info = "hello-1.dist-info/"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        wheel.writestr("hello.py", "def main(): print('hello')")
        extras = "".join(f"Provides-Extra: {extra}\\n" for extra in ("up", "example", "bad"))
        needs = "Requires-Dist: no-such-package-at-all; extra == 'bad'\\n"
        wheel.writestr(info + "METADATA", f"Metadata-Version: 2.1\\nName: hello\\nVersion: 1\\n{extras}{needs}")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "entry_points.txt", "[console_scripts]\\nhello = hello:main\\n")
        wheel.writestr(info + "RECORD", "")
    return name
"""


class Checkout:
    def __init__(self, folder: Path) -> None:
        (folder / "deploy").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "deploy" / "install", folder / "deploy")
        (folder / "pyproject.toml").write_text(PROJECT)
        (folder / "backend.py").write_text(BACKEND)
        self.folder = folder

    @property
    def built(self) -> int:
        """How often pip was at work."""
        built = self.folder / "built"
        return len(built.read_text()) if built.exists() else 0

    @property
    def python(self) -> Path:
        return self.folder / ".venv/bin/python"

    @property
    def said(self) -> str:
        return f"installing into {self.folder}/.venv (once; a minute or so)\n"

    def start(self, extra: str = "up", **environment: str) -> subprocess.Popen[str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        ours |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "TMPDIR": str(self.folder.parent)}
        process = subprocess.Popen(
            [environment.get("PYTHON", sys.executable), str(self.folder / "deploy" / "install"), extra, "./deploy/up"],
            env=ours | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        watch(process)
        return process

    def install(self, extra: str = "up", **environment: str) -> tuple[int, str]:
        """Return its exit code, and what it said."""
        process = self.start(extra, **environment)
        stdout, stderr = process.communicate(timeout=100)
        return process.returncode, stdout + stderr

    def command(self, name: str, *arguments: str) -> str:
        words = [self.folder / ".venv/bin" / name, *arguments]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / FOLDER)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with an environment, and a copy of it: making one takes seconds."""
    folder, copy = tmp_path_factory.mktemp("made") / FOLDER, tmp_path_factory.mktemp("copy") / "copy"
    assert Checkout(folder).install()[0] == 0
    shutil.copytree(folder, copy, symlinks=True)
    return folder, copy


@pytest.fixture
def installed(made: tuple[Path, Path]) -> Checkout:
    """A checkout that has been installed."""
    folder, copy = made
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(copy, folder, symlinks=True)
    return Checkout(folder)


def test_it_installs_once_and_again_when_the_project_has_changed(checkout: Checkout) -> None:
    assert checkout.install() == (0, checkout.said)
    assert checkout.command("hello") == "hello\n"
    assert checkout.install() == (0, "")
    assert checkout.built == 1
    with (checkout.folder / "pyproject.toml").open("a") as project:
        project.write("# changed\n")
    assert checkout.install() == (0, checkout.said)
    assert checkout.built == 2


def test_a_moved_folder_gets_an_environment_whose_commands_run(installed: Checkout) -> None:
    installed.folder = installed.folder.rename(installed.folder.with_name("moved"))
    assert installed.install() == (0, installed.said)
    assert installed.command("hello") == "hello\n"
    assert installed.command("pip", "--version").startswith("pip ")  # of another package than the project's own


def test_an_environment_whose_interpreter_is_gone_is_made_anew(installed: Checkout) -> None:
    installed.python.unlink()
    installed.python.symlink_to("/nowhere/python3")
    assert installed.install() == (0, installed.said)
    assert installed.command("hello") == "hello\n"


def test_another_interpreter_is_taken_when_it_is_asked_for(installed: Checkout, tmp_path: Path) -> None:
    other = tmp_path / "python-other"
    shutil.copy(Path(sys._base_executable).resolve(), other)  # type: ignore[attr-defined]
    assert installed.install(PYTHON=str(other)) == (0, installed.said)
    assert installed.python.resolve() == other
    assert installed.install(PYTHON=str(other)) == (0, "")
    assert installed.install() == (0, "")  # none is asked for: what there is will do


def test_an_installation_that_was_cut_short_is_made_anew(installed: Checkout) -> None:
    for how in (signal.SIGKILL, signal.SIGINT):
        with (installed.folder / "pyproject.toml").open("a") as project:
            project.write("# changed\n")
        (installed.folder / "wait").touch()
        built = installed.built
        process = installed.start()
        eventually(lambda: installed.built > built, 60)  # noqa: B023  called at once
        os.killpg(process.pid, how)
        said = process.communicate(timeout=30)[1]
        assert (process.returncode, said) == (130 if how == signal.SIGINT else -how, installed.said)
    (installed.folder / "wait").unlink()
    (installed.folder / ".venv" / "half").touch()
    assert installed.install() == (0, installed.said)
    assert not (installed.folder / ".venv" / "half").exists()
    assert installed.command("hello") == "hello\n"


def test_two_at_once_install_once(checkout: Checkout) -> None:
    (checkout.folder / "wait").touch()
    both = [checkout.start(), checkout.start()]
    eventually(lambda: checkout.built, 60)
    (checkout.folder / "wait").unlink()
    said = sorted(process.communicate(timeout=100)[1] for process in both)
    assert ([process.returncode for process in both], said) == ([0, 0], ["", checkout.said])
    assert checkout.built == 1


def test_a_python_that_is_too_old_is_one_line_unless_there_is_an_environment(
    checkout: Checkout, installed: Checkout
) -> None:
    version = sys.version.split()[0]
    said = f"./deploy/up: Python {version} is too old, must be 3.11 or newer: set PYTHON=python3.12, say\n"
    for folder, result in ((checkout, (1, said)), (installed, (0, ""))):
        script = folder.folder / "deploy" / "install"
        script.write_text(script.read_text().replace("OLDEST = (3, 11)", "OLDEST = (99, 0)"))
        assert folder.install() == result


def test_without_a_network_it_is_one_line(checkout: Checkout) -> None:
    project = checkout.folder / "pyproject.toml"
    project.write_text(project.read_text().replace("requires = []", 'requires = ["hatchling"]'))
    away = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    said = "./deploy/up: the packages cannot be fetched: is there a network?\n"
    assert checkout.install(**away) == (1, checkout.said + said)


def test_what_pip_refuses_is_shown_and_breaks_nothing(installed: Checkout) -> None:
    code, said = installed.install("bad")
    assert (code, "no-such-package-at-all" in said) == (1, True)
    assert installed.install() == (0, "")
    assert installed.command("hello") == "hello\n"
