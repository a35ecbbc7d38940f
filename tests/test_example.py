"""The example's page in a real browser: two people in a room."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from lab import Lab
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from redis import Redis
from servers import ROOT, Program, Server, eventually, free_port

from chat.cleaning import clean_backlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def site(server: Server, redis: Redis, tmp_path: Path) -> Iterator[str]:
    assert not redis.dbsize()
    port = free_port()
    environment = {"REDIS_URL": server.url, "EXAMPLE_PORT": str(port)}
    program = Program("example", [str(ROOT / "deploy/example/app.py")], environment, tmp_path).start()
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: answers(url))
        yield url
    finally:
        program.stop()


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

    def enter(name: str, *, wait: bool = True) -> Page:
        page = browser.new_page()
        pages.append(page)
        page.goto(site)
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
        expect(page.locator("#here")).to_have_text("here: alice, bob")
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


def test_who_closes_the_page_leaves(enter: Callable[..., Page]) -> None:
    alice, bob = enter("alice"), enter("bob")
    expect(alice.locator("#here")).to_have_text("here: alice, bob")
    bob.close(run_before_unload=True)
    expect(alice.locator("#here")).to_have_text("here: alice")


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/send", {"name": "bob", "room": "", "text": "hi", "key": "k"}, "channel name is 0 characters long, must be"),
        ("/check", {"name": "bob", "room": "lobby", "cursor": "x"}, "after is 'x', must be the cursor of an earlier"),
        ("/check", {"name": "bob"}, "'room' is missing"),
    ],
)
def test_bad_input_is_one_line(site: str, path: str, body: dict[str, Any], says: str) -> None:
    response = httpx.post(site + path, json=body)
    assert response.status_code == 400
    assert response.json()["error"].startswith(says)
