"""What stands in front of a script is what its header, and those of the shared parts, say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from servers import ROOT

from chat.store import scripts
from chat.store.scripts import Script
from tasks.archive import scripts as archive_scripts
from tasks.cleaning import scripts as cleaning_scripts

if TYPE_CHECKING:
    from pathlib import Path

ENDING = {"lease.lua", "joining.lua"}  # parts that may end a script
PACKAGES = {scripts: "chat/store", cleaning_scripts: "tasks/cleaning", archive_scripts: "tasks/archive"}
SHARED = [path for package in PACKAGES.values() for path in sorted((ROOT / package / "lua/shared").glob("*.lua"))]
LOADED = {
    f"{package}/{name}": (script, ROOT / package / "lua")
    for module, package in PACKAGES.items()
    for name, constant in vars(module).items()
    if isinstance(constant, Script)
    for name, script in ((name, constant), (f"{name}, refused", constant._fallback and constant._fallback[1]))
    if isinstance(script, Script)
}


def text_of(path: Path) -> str:
    return path.read_text().partition("\n")[2] if path.read_text().startswith("#!") else path.read_text()


def files_of(script: Script, folder: Path) -> list[Path]:
    """Return the shared parts that stand in front, in order, and the script's own file."""
    (own,) = (path for path in folder.glob("*.lua") if script.source.endswith(text_of(path)) and is_own(script, path))
    parts = [path for path in SHARED if text_of(path) in script.source]
    return [*sorted(parts, key=lambda path: script.source.index(text_of(path))), own]


def is_own(script: Script, path: Path) -> bool:
    return script.source.partition("\n")[0] == path.read_text().partition("\n")[0]


def code(path: Path) -> str:
    return re.sub(r"'[^'\n]*'", "''", re.sub(r"--[^\n]*", "", path.read_text()))


def names(*lists: str) -> set[str]:
    return {name.strip() for names in lists for name in names.split(",")}


def defined(path: Path, script: Script) -> set[str]:
    """Return the names that a part gives to what follows."""
    body = re.search(rf"local function {path.stem}\(\.\.\.\)\n(?:.*\n)*?{re.escape(text_of(path))}", script.source)
    if body:
        return {path.stem}
    found = re.findall(r"^local function (\w+)|^local ([\w, ]+?)(?: =|$)", code(path), re.MULTILINE)
    return names(*(function or variables for function, variables in found))


def used(path: Path) -> set[str]:
    """Return the names that a file uses and does not make itself."""
    text = code(path)
    own = names(*re.findall(r"local function (\w+)", text), *re.findall(r"local ([\w, ]+?)(?: =|\n|$)", text))
    own |= names(*re.findall(r"function ?\w*\(([^)]*)\)", text), *re.findall(r"for ([\w, ]+?) (?:in|=)", text))
    return set(re.findall(r"(?<![\w.:])[A-Za-z_]\w*", text)) - own


def needs(path: Path) -> set[str]:
    """Return the files that a header names; one of several that may stand there counts for itself."""
    header = re.search(r"^-- Needs +((?:.*\.lua.*\n)(?:-- {8,}.*\.lua.*\n)*)", path.read_text(), re.MULTILINE)
    return set(re.findall(r"(?<!of )\b\w+\.lua", header[1])) if header else set()


@pytest.mark.parametrize("name", LOADED)
def test_a_header_names_what_must_stand_in_front(name: str) -> None:
    files = files_of(*LOADED[name])
    script = LOADED[name][0]
    for index, path in enumerate(files):
        front = files[:index]
        found = {part.name for part in front if defined(part, script) & used(path)}
        if path == files[-1]:
            found |= {part.name for part in front if part.name in ENDING}
        others = {f"{part.stem}.lua" for part in SHARED} - {part.name for part in front}
        assert needs(path) - others == found, path.relative_to(ROOT)


@pytest.mark.parametrize("name", LOADED)
def test_all_that_stands_in_front_is_needed(name: str) -> None:
    files = files_of(*LOADED[name])
    assert {path.name for path in files[:-1]} == {part for path in files for part in needs(path)} & {
        path.name for path in files
    }


def test_a_script_is_short() -> None:
    for path in sorted(ROOT.glob("*/**/lua/**/*.lua")):
        assert len([line for line in path.read_text().splitlines() if line and not line.startswith("--")]) <= 40, path
