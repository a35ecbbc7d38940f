"""The wheel beside a project that has modules of the same names as the checkout: neither disturbs the other."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from typing import TYPE_CHECKING

import pytest
from guard import forget, watch
from lab import Lab
from redis import Redis
from servers import ROOT, STEERS, Server, eventually, every

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.any_engine, pytest.mark.xdist_group("wheel")]

BUILD = "import sys; from hatchling import build; print(getattr(build, f'build_{sys.argv[1]}')(sys.argv[2]))"
MODULES = ("chat", "tasks", "celeryconfig")
OURS = (ROOT / "celeryconfig.py", *(ROOT / "chat").rglob("*"), *(ROOT / "tasks").rglob("*"))
NAMED = re.compile(r"""-A tasks|-m chat|["'](?:chat|tasks|celeryconfig)(?:\.(?!clean_|py\b)\w+)+(?::\w+)?["']""")

# A project with modules of its own: an app that reads its own celeryconfig, and one that adds our tasks to its own.
PROJECT = {
    "chat/__init__.py": "rooms = ['kitchen']\n",
    "celeryconfig.py": """
import os

broker_url = result_backend = os.environ["REDIS_URL"]
task_default_queue = "shop"
""",
    "tasks.py": """
from celery import Celery
import chat

app = Celery("shop", config_source="celeryconfig")

@app.task(name="shop.rooms")
def rooms():
    return chat.rooms
""",
    "both.py": """
import os
from celery import Celery
from pollchat.tasks import beat_schedule
from pollchat.tasks.settings import Settings

app = Celery("both", broker=os.environ["REDIS_URL"], include=["tasks", "pollchat.tasks.periodic"])
app.conf.task_default_queue = "both"
app.conf.beat_schedule = beat_schedule(Settings.from_env())
""",
}


def build(target: str, folder: Path, root: Path = ROOT) -> Path:
    """Build a wheel, an sdist or an editable wheel as pip does; return its file."""
    words = [sys.executable, "-c", BUILD, target, str(folder)]
    return folder / subprocess.run(words, cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def read(wheel: Path) -> dict[str, str]:
    """Return the texts of a wheel by their path."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def files(wheel: Path) -> dict[str, str]:
    return read(wheel)


class Project:
    """An environment with the wheel, and a folder to run its programs in."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith((*STEERS, "PYTHON"))
        }
        self.running: list[subprocess.Popen[bytes]] = []

    def run(self, program: str, *words: str) -> str:
        command = [self.programs / program, *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=110, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *words: str) -> None:
        with (self.folder / f"{words[0]} {words[1]}.log").open("wb") as log:
            command = [self.programs / "celery", "-A", *words, "--loglevel=INFO"]
            started = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        watch(started)
        self.running.append(started)

    def stop(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait(60)
            forget(process)


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with the wheel; of this one's packages it has all but the editable project."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))  # a folder's own .pth files are not read
    celery = "import sys; from celery.__main__ import main; sys.exit(main())"
    (folder / "bin" / "celery").write_text(f"#!{python}\n{celery}\n")
    (folder / "bin" / "celery").chmod(0o755)
    return python.parent


@pytest.fixture
def project(programs: Path, server: Server, redis: Redis, tmp_path: Path) -> Iterator[Project]:
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    project = Project(programs, tmp_path)
    project.environment |= {"REDIS_URL": server.url, "CHAT_HEARTBEAT_DIR": str(tmp_path)} | every(0.5)
    try:
        yield project
    finally:
        project.stop()
        redis.flushdb()


def test_the_wheel_is_one_package_and_holds_the_product_only(files: dict[str, str]) -> None:
    assert {name.split("/")[0] for name in files if ".dist-info/" not in name} == {"pollchat"}
    shipped = {path.relative_to(ROOT) for path in OURS if path.suffix in {".py", ".lua", ".typed"}}
    places = {path if path.parts[0] != "chat" else path.relative_to("chat") for path in shipped}
    assert {name for name in files if ".dist-info/" not in name} == {f"pollchat/{place}" for place in places}
    assert "pollchat/py.typed" in files


def test_no_module_of_the_wheel_names_one_of_the_checkout(files: dict[str, str]) -> None:
    sources = {name: text for name, text in files.items() if name.endswith(".py")}
    for name, text in sources.items():
        imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
        modules = [node.module or "" for node in imports if isinstance(node, ast.ImportFrom)]
        modules += [alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names]
        assert [module for module in modules if module.split(".")[0] in MODULES] == [], name
        assert NAMED.findall(text) == [], name


def test_commands_and_plug_ins_are_found_in_the_package(files: dict[str, str]) -> None:
    (points,) = [text for name, text in files.items() if name.endswith("entry_points.txt")]
    assert set(re.findall(r"= (\w+)\.", points)) == {"pollchat"}


def test_a_wheel_from_the_sdist_is_the_same(files: dict[str, str], tmp_path: Path) -> None:
    sdist = build("sdist", tmp_path)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(sdist)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert read(wheel) == files


def test_an_editable_installation_keeps_the_names_of_the_checkout(tmp_path: Path) -> None:
    files = read(build("editable", tmp_path))
    assert [text for name, text in files.items() if name.endswith(".pth")] == [str(ROOT)]
    (points,) = [text for name, text in files.items() if name.endswith("entry_points.txt")]
    assert set(re.findall(r"= (\w+)\.", points)) == {"chat", "tasks"}


def test_the_names_stay_free_for_others(programs: Path, tmp_path: Path) -> None:
    find = f"from importlib.util import find_spec; print([find_spec(name) for name in {MODULES}])"
    project = Project(programs, tmp_path)
    assert project.run("python", "-c", find) == "[None, None, None]\n"  # `manage.py startapp chat` asks just so
    assert project.run("python", "-c", "import pollchat; print(pollchat.Chat.__name__)") == "Chat\n"


def test_a_chat_is_talked_to_beside_the_projects_own_modules(project: Project) -> None:
    program = (
        "import chat\n"
        "from pollchat import Chat\n"
        "with Chat.from_env() as talk:\n"
        "    talk.check_messages('bob', 'lobby')\n"
        "    print(chat.rooms, talk.send_message('lobby', 'hi').id)\n"
    )
    assert project.run("python", "-c", program) == "['kitchen'] 1\n"
    assert project.run("chat", "send", "lobby", "ho") == "2\n"
    assert project.run("chat", "check", "bob", "lobby", "--limit", "1").endswith("  hi\n")
    assert project.run("python", "-m", "pollchat", "check", "bob", "lobby").endswith("  ho\n")


def test_worker_beat_and_commands_clean_beside_the_projects_own_tasks(project: Project) -> None:
    lab = Lab(Redis.from_url(project.environment["REDIS_URL"]))
    project.start("pollchat.tasks", "worker", "--concurrency=1")
    project.start("pollchat.tasks", "beat", "--pidfile=")
    lab.send("old", "hi")
    lab.idle("old", 901)
    eventually(lambda: not lab.traces("old"))
    assert project.run("celery", "-A", "pollchat.tasks", "clean", "all", "--json").count('"sweep"') == 3
    assert project.run("celery", "-A", "pollchat.tasks", "health", "worker").endswith(" is alive\n")
    assert "celery -A pollchat.tasks clean all" in project.run("celery", "-A", "pollchat.tasks", "clean", "--help")
    lab.redis.close()


def test_the_projects_own_app_runs_its_own_tasks_by_its_own_settings(project: Project) -> None:
    project.start("tasks", "worker", "--concurrency=1")
    task = project.run("celery", "-A", "tasks", "call", "shop.rooms").strip()
    assert project.run("celery", "-A", "tasks", "result", task) == "['kitchen']\n"
    assert "task_default_queue: 'shop'" in project.run("celery", "-A", "tasks", "report")


def test_the_projects_own_app_cleans_when_it_includes_the_tasks(project: Project) -> None:
    lab = Lab(Redis.from_url(project.environment["REDIS_URL"]))
    project.start("both", "worker", "--concurrency=1", "--beat", "--schedule", str(project.folder / "schedule"))
    lab.send("old", "hi")
    lab.idle("old", 901)
    eventually(lambda: not lab.traces("old"))
    assert "shop.rooms" in project.run("celery", "-A", "both", "inspect", "registered")
    lab.redis.close()
