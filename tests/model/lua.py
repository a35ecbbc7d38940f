"""The scripts in Lua 5.1, as a server runs them, on the store."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from lupa.lua51 import LuaRuntime, lua_type

from tests.model.store import COMMANDS, ReplyError, Status, Store

# A call comes back as its kind and its values: 0 error, 1 one value, 2 array, 3 status, 4 cursor and array.
PRELUDE = """
local execute, sha1hex = ...

local function shape(raises, kind, first, ...)
  if kind == 1 then return first end
  if kind == 2 then return { first, ... } end
  if kind == 3 then return { ok = first } end
  if kind == 4 then return { first, { ... } } end
  if raises then error({ err = first }, 0) end
  return { err = first }
end

local redis = {
  call = function(...) return shape(true, execute(...)) end,
  pcall = function(...) return shape(false, execute(...)) end,
  sha1hex = function(text) return sha1hex(text) end,
  error_reply = function(text) return { err = text } end,
  status_reply = function(text) return { ok = text } end,
}
local globals = { redis = redis }
for _, name in ipairs({
  'assert', 'error', 'getmetatable', 'ipairs', 'math', 'next', 'pairs', 'rawget', 'rawset', 'select', 'setmetatable',
  'string', 'table', 'tonumber', 'tostring', 'type', 'unpack', 'xpcall',
}) do globals[name] = _G[name] end

local function caught(done, why, ...)
  if not done and type(why) == 'table' and type(why.err) == 'string' then return false, why.err end
  return done, why, ...
end
function globals.pcall(...) return caught(pcall(...)) end -- since Redis 7, an error that is caught is its text

local function none(_, name) error('Script attempted to access nonexistent global variable ' .. tostring(name), 2) end
setmetatable(globals, { __index = none })
local environment = setmetatable({}, { __index = globals, __newindex = none })

local function compile(source)
  local chunk, why = loadstring(source, '@user_script')
  if not chunk then error(why) end
  return setfenv(chunk, environment)
end

local function run(chunk, keys, count, args, more)
  globals.KEYS, globals.ARGV = keys, args
  local done, reply = pcall(chunk)
  if done then return reply end
  return { err = type(reply) == 'table' and reply.err or 'ERR ' .. tostring(reply) }
end

return compile, run
"""


@dataclass(frozen=True)
class Compiled:
    """A script that was loaded.

    Attributes:
        chunk: the Lua function.
        writes: whether it may write.
        when_full: whether it may run while the server is out of memory.
    """

    chunk: Any
    writes: bool
    when_full: bool


class Lua:
    """One interpreter, and the store that its scripts work on for the moment."""

    def __init__(self) -> None:
        self._runtime = LuaRuntime(encoding=None, unpack_returned_tuples=True, register_eval=False)
        execute, sha1hex = self._execute, lambda text: hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
        self._compile, self._run = self._runtime.eval(f"(function(...) {PRELUDE} end)")(execute, sha1hex)
        self._store: Store | None = None
        self._keys: tuple[bytes, ...] = ()
        self._failed: Exception | None = None
        self._writes = True

    @functools.cache  # noqa: B019  one interpreter a process
    def compile(self, source: str) -> Compiled:
        first, rest = source.split("\n", 1)
        return Compiled(self._compile(f"\n{rest}".encode()), "no-writes" not in first, "flags=" in first)

    def run(self, script: Compiled, store: Store, keys: tuple[bytes, ...], args: tuple[bytes, ...]) -> Any:
        """Run a script; return its reply, in which an error is a `ReplyError`."""
        self._store, self._keys, self._failed, self._writes = store, keys, None, script.writes
        table = self._runtime.table_from
        reply = self._run(script.chunk, table(keys), len(keys), table(args), len(args))
        if self._failed:
            raise self._failed
        return _decoded(reply)

    def _execute(self, name: bytes, *words: Any) -> tuple[Any, ...]:
        try:
            if COMMANDS[name][1] and not self._writes:
                return 0, b"ERR Write commands are not allowed from read-only scripts."
            args = tuple(word if type(word) is bytes else _text(word) for word in words)
            if name != b"TIME":
                self._confirm_declared(name, args)
            reply = self._store.execute(name, *args)
        except ReplyError as error:
            return 0, str(error).encode()
        except Exception as error:  # also where the script would go on after an error
            self._failed = self._failed or error
            raise
        if type(reply) is list:
            if reply and type(reply[-1]) is list:
                return 4, reply[0], *reply[1]
            return 2, *(False if item is None else item for item in reply)
        return (3 if type(reply) is Status else 1), (False if reply is None else reply)

    def _confirm_declared(self, name: bytes, args: tuple[bytes, ...]) -> None:
        touched = args if name in {b"UNLINK", b"DEL", b"EXISTS"} else args[:1]
        for key in touched:
            if key not in self._keys:
                problem = f"{name!r} touches {key!r}, which is not among KEYS"
                raise AssertionError(problem)


def _text(word: Any) -> bytes:
    if type(word) is int:
        return b"%d" % word
    if type(word) is float:
        return b"%.17g" % word
    problem = "ERR Lua redis lib command arguments must be strings or integers"
    raise ReplyError(problem)


def _decoded(reply: Any) -> Any:
    """Return what a server makes of the value that a script returns."""
    if reply is None or type(reply) is bytes:
        return reply
    if lua_type(reply) != "table":
        return (1 if reply else None) if type(reply) is bool else int(reply)
    if (error := reply[b"err"]) is not None:
        return ReplyError(error.decode())
    if (status := reply[b"ok"]) is not None:
        return status
    items = []
    while (item := reply[len(items) + 1]) is not None:
        items.append(_decoded(item))
    return items


def words_in(source: str) -> set[str]:
    """Return the quoted words of capitals in a script: its commands, and options of them."""
    code = re.sub(r"--[^\n]*", "", source)
    return set(re.findall(r"'([A-Z]{2,})'", code))
