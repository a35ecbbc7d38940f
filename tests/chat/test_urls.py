from __future__ import annotations

import string
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import run

from chat import AsyncChat, Chat, InvalidArgumentError, Settings, SettingsError
from chat.store.urls import parse_place, redact_url

if TYPE_CHECKING:
    from collections.abc import Callable

ALLOWED = (
    "redis://host:port/db, rediss://host:port/db, unix:///path?db=0, redis+sentinel://host:port,host:port/service/db "
    "or redis+cluster://host:port,host:port"
)

# A password between two marks that nothing else in a URL holds: not the smallest part of it may be shown.
passwords = st.text(string.ascii_uppercase + string.punctuation + " é\n", max_size=12).map(lambda text: f"Q{text}Q")
LOGINS = [
    "redis://{name}:{password}@host:1/0",
    "redis://:{password}@host:1/0",
    "redis://{password}@host:1/0",
    "rediss://:{password}@host/0?ssl_cert_reqs=none",
    "unix://{name}:{password}@/run/redis.sock?db=1",
    "redis+sentinel://{name}:{password}@a:1,b:2/chat/0",
    "rediss+cluster://{name}:{password}@a:1,[::1]:2?ssl_ca_certs=/ca.pem",
    "sentinel://{name}:{password}@a:1/0;sentinel://{name}:{password}@b:1/0",
    "http://{name}:{password}@host/0",
    "{name}:{password}@host:1",
]
PARAMETERS = [
    "rediss://host/0?ssl_password={password}",
    "rediss://host/0?ssl_password={password}&ssl_cert_reqs=none",
    "rediss+cluster://a,b?ssl_cert_reqs=none&ssl_password={password}",
    "redis+sentinel://a,b/chat?sentinel_username={name}&sentinel_password={password}",
    "redis://host/0?password={password}&token={password}&secret={password}",
    "unix:///run/redis.sock?db=1&password={password}",
]


@given(st.sampled_from(LOGINS + PARAMETERS), passwords, st.sampled_from([str, quote]))
def test_no_part_of_a_secret_is_shown_in_any_form_of_url(
    form: str, password: str, encode: Callable[[str], str]
) -> None:
    url = form.format(name="Z", password=encode(password))
    assert not {"Q", "Z"} & set(redact_url(url))


@pytest.mark.parametrize(
    "url", ["rediss://me:secret@a?ssl_password=secret", "redis+sentinel://me:secret@a/chat?sentinel_password=secret"]
)
def test_no_password_is_shown_where_settings_are_printed(url: str) -> None:
    assert "secret" not in f"{Settings(redis_url=url)!r} {parse_place(url)!r}"
    report = run("-m", "celery", "-A", "tasks", "report", REDIS_URL=url)
    assert report.returncode == 0
    assert "redis_url='redis" in report.stdout
    assert "secret" not in report.stdout + report.stderr


@given(st.sampled_from(LOGINS + PARAMETERS), passwords)
def test_a_url_is_refused_in_one_line_without_its_secrets(form: str, password: str) -> None:
    url = form.format(name="Z", password=password) + "#nonsense"
    with pytest.raises(InvalidArgumentError) as refused:
        parse_place(url)
    with pytest.raises(SettingsError) as setting:
        Settings(redis_url=url)
    assert not {"Q", "Z", "\n"} & set(f"{refused.value} {setting.value}")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:1/0", "redis://host:1/0"),
        ("redis://me:secret@host:1/0", "redis://...@host:1/0"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("redis+sentinel://me:secret@a:1,b:2/chat/0", "redis+sentinel://...@a:1,b:2/chat/0"),
        ("redis+sentinel://a/chat?sentinel_password=s%40t", "redis+sentinel://a/chat?sentinel_password=..."),
        ("redis+sentinel://a/chat?sentinel_password=s@t", "redis+sentinel://..."),
        ("rediss://host?ssl_cert_reqs=none&ssl_password=s", "rediss://host?ssl_cert_reqs=none&ssl_password=..."),
        ("rediss://host?ssl_password=s&t", "rediss://host?ssl_password=...&..."),
        ("rediss://host?ssl%5Fpassword=s", "rediss://host?..."),
        ("me:secret@localhost:6379", "...@localhost:6379"),
    ],
)
def test_what_is_no_secret_is_shown(url: str, shown: str) -> None:
    assert redact_url(url) == shown


def test_a_setting_with_a_special_character_in_its_password_is_told_how_to_write_it() -> None:
    with pytest.raises(SettingsError, match=r"write @ / \? # & in a password as %40 %2F %3F %23 %26$") as caught:
        Settings(redis_url="redis://:pa/ss@host/0")
    assert str(caught.value).startswith("REDIS_URL is 'redis://...@host/0', must be redis://host:port/db")
    assert Settings(redis_url="redis://:pa%2Fss@host/0")


@pytest.mark.parametrize("face", [Chat, AsyncChat])
@pytest.mark.parametrize(
    ("url", "was"),
    [
        ("localhost:6379", "'localhost:6379'"),
        ("", "''"),
        ("http://localhost", "'http://localhost'"),
        ("redis://localhost:port", "'redis://localhost:port'"),
        ("redis://me:12#34@localhost/0", "'redis://...@localhost/0'"),
        ("redis+cluster://a,b#c", "'redis+cluster://a,b#c'"),
        ("REDIS://localhost/0", "'REDIS://localhost/0'"),
        ("Unix:///run/redis.sock", "'Unix:///run/redis.sock'"),
        (" redis://localhost", "' redis://localhost'"),
        ("redis://localhost ", "'redis://localhost '"),
        ("redis://local\thost", "'redis://local\\thost'"),
        ("redis+cluster://a, b", "'redis+cluster://a, b'"),
        (None, "of type NoneType"),
        (6379, "of type int"),
    ],
)
def test_a_url_of_no_known_form_is_told_the_forms(face: type[Chat | AsyncChat], url: str, was: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        face.from_url(url)
    encoded = "; write @ / ? # & in a password as %40 %2F %3F %23 %26" if "@" in was else ""
    assert str(caught.value) == f"the URL is {was}, must be {ALLOWED}{encoded}"
