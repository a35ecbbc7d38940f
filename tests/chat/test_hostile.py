"""Input that means harm: names, bodies, and messages in the queue that are no tasks."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import inspect
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab import Lab, bodies
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from servers import Program, Server, eventually, worker

from chat import AsyncChat, Chat, InvalidArgumentError, SettingsError
from tasks import cleaning
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ANY = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)
NASTY = st.text(st.sampled_from("{}:*?[]\\\n\r\0 \"'log😀é\ud800\udfff"), max_size=12)
NAMES = (ANY | NASTY).filter(bool)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | ANY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY, inner, max_size=4),
    max_leaves=12,
)
FUZZ = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(channels=st.lists(NAMES, min_size=2, max_size=4, unique=True), clients=st.lists(NAMES, min_size=2, unique=True))
def test_names_of_any_kind_neither_collide_nor_escape_their_shard(
    lab: Lab, channels: list[str], clients: list[str]
) -> None:
    lab.redis.flushdb()
    for channel in channels:
        for client in clients[:3]:
            assert lab.check(client, channel).new
        lab.send(channel, channel)
    for channel in channels:
        for client in clients[:3]:
            assert bodies(lab.check(client, channel)) == [channel]
    known = {lab.key(channel, kind).encode("utf-8", "surrogatepass") for channel in channels for kind in KINDS}
    assert {key for key in lab.redis.keys() if key != b"chat:shards" and b"}:sent:" not in key[:16]} <= known
    assert cleaning.clean_channels(lab.redis, channel_timeout=0).channels == len(channels)
    assert cleaning.clean_clients(lab.redis, client_timeout=0).clients == len(channels) * len(clients[:3])
    assert [key for key in lab.redis.keys() if b":log:" in key or b":seen:" in key or b":read:" in key] == []


KINDS = ("log:", "seen:", "read:", "updated", "sizes", "heads", "polled", "trimmed", "meta")


@FUZZ
@given(body=JSON, key=st.none() | NAMES)
def test_bodies_of_any_content_come_back_equal(lab: Lab, body: Any, key: str | None) -> None:
    lab.redis.flushdb()
    lab.check("bob", "lobby")
    sent = lab.send("lobby", body, key=key)
    (received,) = lab.check("bob", "lobby")
    assert received == sent
    assert type(received.body) is type(body)
    if key:
        assert lab.send("lobby", body, key=key) == sent


@FUZZ
@given(after=ANY)
def test_no_text_is_taken_for_a_cursor(lab: Lab, after: str) -> None:
    with pytest.raises(InvalidArgumentError, match="must be the cursor of an earlier check"):
        lab.check("bob", "lobby", after=after)


@FUZZ
@given(value=JSON | st.floats())
def test_no_value_but_a_span_of_time_cleans(lab: Lab, value: Any) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return
    if value is not None:
        with pytest.raises(InvalidArgumentError):
            cleaning.clean_channels(lab.redis, channel_timeout=value)


HUGE = 10**5000  # more digits than Python prints, and more than hiredis survives


@pytest.mark.parametrize(
    "call",
    [
        lambda chat, huge: chat.send_message(huge, "x"),
        lambda chat, huge: chat.send_message("lobby", "x", key=huge),
        lambda chat, huge: chat.send_message("lobby", [huge]),
        lambda chat, huge: chat.check_messages(huge, "lobby"),
        lambda chat, huge: chat.check_messages("bob", huge),
        lambda chat, huge: chat.check_messages("bob", "lobby", limit=huge),
        lambda chat, huge: chat.check_messages("bob", "lobby", history=huge),
        lambda chat, huge: chat.check_messages("bob", "lobby", after=huge),
        lambda chat, huge: chat.check_messages("bob", "lobby", wait=huge),
        lambda chat, huge: chat.check_many("bob", huge),
        lambda chat, huge: chat.check_many("bob", [huge]),
        lambda chat, huge: chat.check_many("bob", ["lobby"], limit=huge),
        lambda chat, huge: chat.check_many("bob", ["lobby"], history=huge),
        lambda chat, huge: chat.check_many("bob", {"lobby": huge}),
        lambda chat, huge: chat.listen("bob", "lobby", history=huge),
        lambda chat, huge: chat.read_history("lobby", limit=huge),
        lambda chat, huge: chat.read_history("lobby", before=huge),
        lambda chat, huge: chat.clients(huge),
        lambda chat, huge: chat.leave_channel(huge, "lobby"),
    ],
)
@pytest.mark.parametrize("huge", [HUGE, -HUGE, [HUGE], float("nan")], ids=["huge", "negative", "inside", "nan"])
@pytest.mark.parametrize("face", [Chat, AsyncChat])
def test_a_number_of_any_size_is_refused_in_one_line_before_redis_is_touched(face: Any, call: Any, huge: Any) -> None:
    async def ask() -> None:
        answer = call(AsyncChat(AsyncRedis(port=1)), huge)
        await (answer if inspect.isawaitable(answer) else anext(answer))

    with pytest.raises(InvalidArgumentError) as caught:
        call(Chat(Redis(port=1)), huge) if face is Chat else asyncio.run(ask())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("override", ["backlog", "message_timeout", "time_budget", "shards", "dry_run"])
def test_no_limit_of_a_sweep_is_too_large_to_be_refused(override: str) -> None:
    for huge in (HUGE, [HUGE], float("nan")):
        with pytest.raises(InvalidArgumentError):
            cleaning.clean_backlog(Redis(port=1), **{override: huge})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Settings)])
@pytest.mark.parametrize("huge", [HUGE, -HUGE, 1e308, float("nan")], ids=["huge", "negative", "float", "nan"])
def test_no_setting_takes_a_number_of_any_size(name: str, huge: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**{name: huge})
    assert len(str(caught.value)) < 400
    environment = next(field for field in dataclasses.fields(Settings) if field.name == name).metadata["name"]
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({environment: "1" * 5000 if huge == HUGE else "\0" + "-" * 5000})
    assert len(str(caught.value)) < 400


def task_message(body: bytes, *, headers: Any = None, content_type: str = "application/json", **changes: Any) -> str:
    """Return what Celery would put into the queue, with something wrong about it."""
    plain = {"task": "tasks.clean_clients", "id": "poison", "lang": "py", "argsrepr": "()", "kwargsrepr": "{}"}
    properties = {
        "correlation_id": "poison",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "pollchat"},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": os.urandom(8).hex(),
    }
    message = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": content_type,
        "headers": plain if headers is None else headers,
        "properties": properties,
    }
    return json.dumps(message | changes)


PLAIN = {"task": "tasks.clean_clients", "id": "poison"}
POISON = {
    "no JSON": "this is no JSON",
    "not even text": b"\xff\xfe\x00",
    "an empty object": "{}",
    "a number": "42",
    "null": "null",
    "a list": "[]",
    "deeply nested": "[" * 100_000,
    "no properties": json.dumps({"body": "", "headers": {}}),
    "no headers": task_message(b"[[], {}, {}]", headers={}),
    "headers without an id": task_message(b"[[], {}, {}]", headers={"task": "nosuch.task"}),
    "headers that are a list": task_message(b"[[], {}, {}]", headers=[1]),
    "an unknown task": task_message(b"[[], {}, {}]", headers=PLAIN | {"task": "os.system"}),
    "a pickle": task_message(b"\x80\x04.", content_type="application/x-python-serialize"),
    "yaml": task_message(b"[[], {}, {}]", content_type="application/x-yaml"),
    "a body that is no text": task_message(b"\xff\xfe{"),
    "a body that is an object": task_message(b'{"a": 1}'),
    "arguments that are no list": task_message(b'["x", {}, null]'),
    "keywords that are no mapping": task_message(b"[[], 7, null]"),
    "an expiry that is no time": task_message(b"[[], {}, {}]", headers=PLAIN | {"expires": "never"}),
    "an ETA that is no time": task_message(b"[[], {}, {}]", headers=PLAIN | {"eta": [1]}),
    "a time limit that is none": task_message(b"[[], {}, {}]", headers=PLAIN | {"timelimit": "soon"}),
}


@pytest.fixture(scope="module")
def consumer(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    environment = {"REDIS_URL": server.url, "CHAT_PREFIX": "hostile"}
    consumer = worker(tmp_path_factory.mktemp("hostile"), environment).start()
    eventually(lambda: "ready." in consumer.output)
    yield consumer
    consumer.stop()


@pytest.mark.slow
@pytest.mark.parametrize("kind", POISON)
def test_a_poisoned_message_is_dropped_and_the_worker_goes_on(server: Server, consumer: Program, kind: str) -> None:
    with Redis(port=server.port) as redis:
        before = len(consumer.output)
        redis.lpush("hostile:celery:pollchat", POISON[kind])
        healthy = json.loads(task_message(b"[[], {}, {}]", headers=PLAIN | {"id": os.urandom(8).hex()}))
        redis.lpush("hostile:celery:pollchat", json.dumps(healthy))
        eventually(lambda: f"tasks.clean_clients[{healthy['headers']['id']}] succeeded" in consumer.output[before:])
        eventually(lambda: not redis.exists("hostile:celery:unacked"))
        assert redis.llen("hostile:celery:pollchat") == 0
    logged = consumer.output[before:]
    assert "Traceback" not in logged.replace("\\n", " ").split("WARNING")[0]
    assert consumer.process
    assert consumer.process.poll() is None
    assert len([line for line in logged.splitlines() if "poison" in line or "ERROR" in line]) <= 3
