"""A chat room on a web page: plain polling, or one request that waits. Start it with ./deploy/up --example.

An example, in one file and one page: names are whatever a browser says, nobody is authenticated.
The page keeps the cursor of the last response that reached it and gives it back, so a lost response loses nothing.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from chat import AsyncChat, ChatError, ChatFullError, InvalidArgumentError

PAGE = Path(__file__).with_name("index.html")
HISTORY = 20  # messages that a newcomer gets
WAIT = 25.0  # seconds


class Answer(JSONResponse):
    """JSON in ASCII: a message may hold half a surrogate pair, which UTF-8 cannot say."""

    def render(self, content: Any) -> bytes:
        """Return it as it is sent."""
        return json.dumps(content).encode()


async def page(_: Request) -> Response:
    """Give the page."""
    return FileResponse(PAGE)


async def send(request: Request) -> Response:
    """Store a message; the page's own retry has the same key, and stores nothing more."""
    said = await asked_of(request)
    body = {"from": said["name"], "text": said["text"]}
    message = await request.app.state.chat.send_message(said["room"], body, key=said["key"])
    return Answer({"id": message.id})


async def check(request: Request) -> Response:
    """Give what is new; with `wait` as soon as there is something, unless the browser goes away before."""
    asked = await asked_of(request)
    seconds = WAIT if asked.get("wait") else 0
    checking = request.app.state.chat.check_messages(
        asked["name"], asked["room"], after=asked.get("cursor"), history=HISTORY, wait=seconds
    )
    found = await unless_gone(request, checking)
    if found is None:
        return Response(status_code=204)
    messages = [{"id": one.id, "at": one.sent_at.isoformat(), "body": one.body} for one in found]
    return Answer({"messages": messages, "missed": found.missed, "new": found.new, "cursor": found.cursor})


async def here(request: Request) -> Response:
    """Name who is in a room."""
    clients = request.app.state.chat.clients(request.query_params["room"])
    return Answer(sorted([presence.client async for presence in clients]))


async def leave(request: Request) -> Response:
    """Forget who closes the page."""
    left = await asked_of(request)
    await request.app.state.chat.leave_channel(left["name"], left["room"])
    return Response(status_code=204)


async def asked_of(request: Request) -> dict[str, Any]:
    """Return the object that a request holds."""
    with suppress(ValueError):
        if isinstance(asked := await request.json(), dict):
            return asked
    message = "the request is something else, must be a JSON object"
    raise InvalidArgumentError(message)


async def unless_gone(request: Request, work: Awaitable[Any]) -> Any:
    """Do some work, and give it up when the browser goes away: a check that waits on would connect it again."""
    working = asyncio.ensure_future(work)
    gone = asyncio.create_task(until_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        working.cancel()
        gone.cancel()


async def until_gone(request: Request) -> None:
    """Return when the browser has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def answer(status: int) -> Callable[[Request, Exception], Response]:
    """Return what tells an error to the page in one line: below 500 it is refused for good."""
    return lambda _, error: Answer({"error": str(error)}, status_code=status)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Connect, and close what was opened."""
    async with AsyncChat.from_env() as app.state.chat:
        yield


app = Starlette(
    routes=[
        Route("/", page),
        Route("/send", send, methods=["POST"]),
        Route("/check", check, methods=["POST"]),
        Route("/here", here),
        Route("/leave", leave, methods=["POST"]),
    ],
    exception_handlers={
        ChatError: answer(400),
        KeyError: lambda _, error: Answer({"error": f"{error} is missing"}, status_code=400),
        ChatFullError: answer(503),
        RedisError: answer(503),
    },
    lifespan=lifespan,
)


if __name__ == "__main__":
    port = int(os.environ.get("EXAMPLE_PORT", "8000"))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1)
