"""The example's page in a real browser: two people in a room."""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from lab import Lab
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from redis import Redis
from servers import ROOT, Program, Server, eventually, free_port, run

from tasks.cleaning import clean_backlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

expect.set_options(timeout=30_000)  # of a busy machine
pytestmark = [pytest.mark.slow, pytest.mark.any_engine, pytest.mark.xdist_group("example")]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def running(server: Server, folder: Path) -> Iterator[str]:
    """Start the example; return where it is."""
    port = free_port()
    environment = {"REDIS_URL": server.url, "EXAMPLE_PORT": str(port)}
    program = Program("example", [str(ROOT / "deploy/example/app.py")], environment, folder).start()
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: answers(url))
        yield url
    finally:
        program.stop()


@pytest.fixture
def site(server: Server, redis: Redis, tmp_path: Path) -> Iterator[str]:
    """An example of the test's own: it goes on for a while for people who have closed their page."""
    assert not redis.dbsize()
    with running(server, tmp_path) as url:
        yield url


@pytest.fixture(scope="module")
def shared(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An example for requests that nobody waits for."""
    with running(server, tmp_path_factory.mktemp("example")) as url:
        yield url


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def enter(browser: Browser, site: str) -> Iterator[Callable[..., Page]]:
    pages: list[Page] = []

    def enter(name: str, *, wait: bool = True, script: str = "", **options: Any) -> Page:
        page = browser.new_page(**options)
        pages.append(page)
        page.add_init_script(script)
        page.goto(site)
        expect(page.locator("#say")).to_be_hidden()
        page.locator("#wait").set_checked(wait)
        page.fill("#name", name)
        page.click("text=Enter")
        expect(page.locator("#here")).to_contain_text(name)
        return page

    yield enter
    for page in pages:
        page.close()


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


@pytest.mark.parametrize("wait", [True, False])
def test_what_one_says_the_other_reads_once(enter: Callable[..., Page], *, wait: bool) -> None:
    alice, bob = enter("alice", wait=wait), enter("bob", wait=wait)
    for page in (alice, bob):
        expect(page.locator("#here")).to_have_text("2 here: alice, bob")
    say(alice, "hi <b>bob</b>")
    say(bob, "hi alice")
    for page in (alice, bob):
        expect(page.locator("#log li")).to_have_count(2)
        expect(page.locator("#log")).to_contain_text("alice hi <b>bob</b>")
        expect(page.locator("#log")).to_contain_text("bob hi alice")


def test_a_lost_response_loses_nothing_and_shows_nothing_twice(enter: Callable[..., Page]) -> None:
    alice, bob = enter("alice"), enter("bob", wait=False)
    lost: list[int] = []

    def lose(route: Route) -> None:
        """Let the server answer, and lose what it said."""
        found: Any = route.fetch().json()
        if found["messages"] and not lost:
            lost.append(len(found["messages"]))
            route.abort()
        else:
            route.fulfill(json=found)

    bob.route("**/check", lose)
    say(alice, "one")
    expect(bob.locator("#log li")).to_have_count(1)
    assert lost == [1]
    say(alice, "two")
    expect(bob.locator("#log li")).to_have_count(2)


def test_what_was_cleaned_away_unread_is_shown_as_a_gap(enter: Callable[..., Page], server: Server) -> None:
    bob = enter("bob", wait=False)
    bob.context.set_offline(True)
    with Redis(port=server.port) as redis:
        lab = Lab(redis)
        for number in range(15):
            lab.send("lobby", {"from": "alice", "text": f"m{number}"})
        clean_backlog(redis, backlog=3)
    bob.context.set_offline(False)
    expect(bob.locator("#log li.gap")).to_have_text("12 messages were cleaned away before you read them")
    expect(bob.locator("#log li")).to_have_count(4)


def test_one_message_that_was_cleaned_away_is_said_in_the_singular(enter: Callable[..., Page], server: Server) -> None:
    bob = enter("bob", wait=False)
    bob.context.set_offline(True)
    with Redis(port=server.port) as redis:
        Lab(redis).send_all("lobby", 2)
        clean_backlog(redis, backlog=1)
    bob.context.set_offline(False)
    expect(bob.locator("#log li.gap")).to_have_text("1 message was cleaned away before you read it")


@pytest.mark.parametrize("field", ["name", "room"])
def test_a_name_of_blanks_is_not_entered(browser: Browser, site: str, field: str) -> None:
    page = browser.new_page()
    page.goto(site)
    page.fill("#name", "bob")
    page.fill(f"#{field}", "   ")
    page.click("text=Enter")
    expect(page.locator(f"#{field}:invalid")).to_have_count(1)
    expect(page.locator("#say")).to_be_hidden()
    page.fill(f"#{field}", " b ")
    page.click("text=Enter")
    expect(page.locator("#say")).to_be_visible()
    page.close()


def test_who_closes_the_page_leaves(enter: Callable[..., Page]) -> None:
    alice, bob = enter("alice"), enter("bob")
    expect(alice.locator("#here")).to_have_text("2 here: alice, bob")
    bob.close(run_before_unload=True)
    expect(alice.locator("#here")).to_have_text("1 here: alice")


def test_a_body_of_any_kind_is_shown(enter: Callable[..., Page], server: Server, tmp_path: Path) -> None:
    assert run("-m", "chat", "send", "lobby", "hi", folder=tmp_path, REDIS_URL=server.url).stdout == "1\n"
    bodies = [7, None, [1], {"from": "eve"}, {"from": 1, "text": "x"}, {"id": 0, "at": "never"}, "half a \ud83d pair"]
    with Redis(port=server.port) as redis:
        lab = Lab(redis)
        for body in bodies:
            lab.send("lobby", body)
    bob = enter("bob")
    expect(bob.locator("#log li")).to_have_count(1 + len(bodies))
    shown = ["hi", "7", "null", "[1]", '{"from":"eve"}', '{"from":1,"text":"x"}', '{"id":0,"at":"never"}']
    for line, text in enumerate(shown):
        expect(bob.locator("#log li").nth(line).locator("bdi")).to_have_text(text)
    say(bob, "hello")
    expect(bob.locator("#log li.mine")).to_contain_text("bob hello")


def test_a_refused_message_comes_back_with_the_reason(enter: Callable[..., Page]) -> None:
    bob = enter("bob")
    say(bob, "x" * 70_000)
    expect(bob.locator("#sending")).to_contain_text("not sent: the body is")
    assert bob.input_value("#text") == "x" * 70_000
    say(bob, "short")
    expect(bob.locator("#log li")).to_have_count(1)
    expect(bob.locator("#sending")).to_be_empty()
    expect(bob.locator("#text")).to_have_value("")


def test_a_message_that_is_lost_for_long_comes_back_and_is_stored_once(enter: Callable[..., Page]) -> None:
    bob = enter("bob", wait=False)
    lost: list[int] = []

    def lose(route: Route) -> None:
        lost.append(route.fetch().status)
        route.abort()

    bob.route("**/send", lose)
    bob.clock.install()
    say(bob, "are you there?")
    for attempt in range(1, 5):
        expect(bob.locator("#sending")).to_contain_text("trying again")
        eventually(lambda attempt=attempt: bob.evaluate("0") == 0 and len(lost) >= attempt)
        bob.clock.run_for(4000)
    expect(bob.locator("#sending")).to_have_text(re.compile("not sent: .*[^n]$"))
    expect(bob.locator("#text")).to_have_value("are you there?")
    bob.unroute("**/send")
    bob.press("#text", "Enter")
    expect(bob.locator("#text")).to_have_value("")
    expect(bob.locator("#sending")).to_be_empty()
    bob.clock.resume()
    say(bob, "yes")
    expect(bob.locator("#log li")).to_have_count(2)
    assert lost == [200] * 5


def test_many_people_with_long_names_leave_room_for_the_log_on_a_phone(
    enter: Callable[..., Page], server: Server
) -> None:
    with Redis(port=server.port) as redis:
        lab = Lab(redis)
        for number in range(60):
            lab.chat.check_messages(f"{number:02} with a name as long as it may be"[:40], "lobby")
        for number in range(30):
            lab.send("lobby", {"from": "alice", "text": f"m{number}"})
    bob = enter("bob", viewport={"width": 390, "height": 844})
    expect(bob.locator("#here bdi")).to_have_count(61)
    expect(bob.locator("#log li").last).to_be_in_viewport()
    log, box = bob.locator("#log").bounding_box(), bob.locator("#text").bounding_box()
    assert log
    assert box
    assert log["height"] > 300
    assert box["y"] + box["height"] <= 844
    assert bob.evaluate("document.documentElement.scrollHeight <= innerHeight")
    assert bob.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_names_and_texts_of_either_direction_are_kept_apart(enter: Callable[..., Page]) -> None:
    dana = enter("\u05d3\u05e0\u05d4")
    say(dana, "\u202eabc")
    expect(dana.locator("#log li > b > bdi")).to_have_text("\u05d3\u05e0\u05d4")
    expect(dana.locator("#log li > bdi")).to_have_count(1)
    expect(dana.locator("#here > bdi")).to_have_count(1)


def test_a_page_on_plain_http_can_send(enter: Callable[..., Page]) -> None:
    bob = enter("bob", script="delete Crypto.prototype.randomUUID")
    say(bob, "hi")
    expect(bob.locator("#log li")).to_have_count(1)


def test_who_reads_further_up_is_left_there(enter: Callable[..., Page]) -> None:
    alice, bob = enter("alice"), enter("bob")
    for number in range(40):
        say(alice, f"m{number}")
        expect(alice.locator("#text")).to_have_value("")
    expect(bob.locator("#log li")).to_have_count(40)
    expect(bob.locator("#log li").last).to_be_in_viewport()
    expect(bob.locator("#below")).to_be_hidden()
    bob.evaluate("document.getElementById('log').scrollTop = 0")
    say(alice, "news")
    expect(bob.locator("#log li")).to_have_count(41)
    assert bob.evaluate("document.getElementById('log').scrollTop") == 0
    bob.click("#below")
    expect(bob.locator("#log li").last).to_be_in_viewport()
    expect(bob.locator("#below")).to_be_hidden()


def test_who_is_here_is_announced_when_it_changes_only(enter: Callable[..., Page]) -> None:
    bob = enter("bob")
    bob.evaluate("""() => { window.changes = 0; new MutationObserver(() => window.changes++).observe(
        document.getElementById("here"), { childList: true, subtree: true, characterData: true }) }""")
    for _ in range(2):
        with bob.expect_response("**/here**"):
            pass
    assert bob.evaluate("window.changes") == 0
    enter("alice")
    expect(bob.locator("#here")).to_have_text("2 here: alice, bob")
    assert bob.evaluate("window.changes") == 1


def test_the_page_asks_for_nothing_that_is_not_there(shared: str) -> None:
    assert '<link rel="icon" href="data:,">' in httpx.get(shared).text


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b""])
@pytest.mark.parametrize("path", ["/send", "/check", "/leave"])
def test_what_is_no_request_is_one_line(shared: str, path: str, body: bytes) -> None:
    response = httpx.post(shared + path, content=body)
    assert response.status_code == 400
    assert response.json() == {"error": "the request is something else, must be a JSON object"}


def test_a_full_redis_is_no_refusal_for_good(shared: str, redis: Redis) -> None:
    redis.config_set("maxmemory", "1")
    try:
        response = httpx.post(shared + "/send", json={"name": "bob", "room": "lobby", "text": "hi", "key": "k"})
    finally:
        redis.config_set("maxmemory", "0")
    assert response.status_code == 503
    assert response.json()["error"].startswith("Redis is out of memory")


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/send", {"name": "bob", "room": "", "text": "hi", "key": "k"}, "channel name is 0 characters long, must be"),
        ("/check", {"name": "bob", "room": "lobby", "cursor": "x"}, "after is 'x', must be the cursor of an earlier"),
        ("/check", {"name": "bob"}, "'room' is missing"),
    ],
)
def test_bad_input_is_one_line(shared: str, path: str, body: dict[str, Any], says: str) -> None:
    response = httpx.post(shared + path, json=body)
    assert response.status_code == 400
    assert response.json()["error"].startswith(says)
