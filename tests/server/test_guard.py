"""On loopback, web pages of other sites don't spend the upstream's key."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from honestproxy.server.access.guard import Guard, is_loopback
from honestproxy.settings import Settings
from tests.proxy import ask, proxy, script

HERE = ["127.0.0.1:8400", "localhost", "[::1]:8400", "proxy.localhost:1", "127.1.2.3", "testserver"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_for_another_hosts_name_is_refused(method: str) -> None:
    async with proxy(script()) as on:
        path = "/models" if method == "GET" else "/chat/completions"
        headers = {"Host": "evil.example", "Content-Type": "application/json"}
        body = None if method == "GET" else b"{}"
        async with on.session.request(method, on.url + path, data=body, headers=headers) as got:
            assert got.status == 403
            assert "allowed_hosts" in (await got.json())["error"]["message"]
    assert on.upstream.seen == []


@pytest.mark.parametrize("path", ["/chat/completions", "/files", "/embeddings", "/responses"])
async def test_a_foreign_page_is_refused_whatever_it_asks(path: str) -> None:
    async with proxy(script()) as on:
        headers = {"Origin": "https://evil.example"}
        async with on.session.post(on.url + path, data=b"{}", headers=headers) as got:
            assert got.status == 403
    assert on.upstream.seen == []


async def test_our_own_page_and_allowed_sites_may_ask() -> None:
    async with proxy(script(), allowed_hosts=("app.example",)) as on:
        for origin in (on.url.removesuffix("/v1"), "https://app.example", "http://localhost:3000"):
            status, _, _ = await on.post(ask(), Origin=origin)
            assert status == 200
        status, _, _ = await on.post(ask(), Host="app.example:8400")
        assert status == 200


@pytest.mark.parametrize("host", HERE)
def test_this_machines_own_names_are_known(host: str) -> None:
    headers = [(b"host", host.encode())]
    scope = {"method": "GET", "client": ("127.0.0.1", 1), "headers": headers}
    assert Guard("127.0.0.1", ()).refusal(scope) is None


def test_a_host_may_be_allowed_as_it_is_written_elsewhere() -> None:
    hosts = {
        "https://app.example": "app.example",
        "proxy.example:8443": "proxy.example",
        "[fd00::1]:8400": "fd00::1",
        "2001:db8::1": "2001:db8::1",
        "::ffff:10.0.0.1": "::ffff:10.0.0.1",
        "Plain.Example": "plain.example",
        "_srv.example": "_srv.example",
    }
    settings = Settings(upstream="x:y", allowed_hosts=tuple(hosts))
    assert settings.allowed_hosts == tuple(hosts.values())


async def test_a_request_that_names_two_hosts_is_refused() -> None:
    async with proxy(script()) as on:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(on.url).port)
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nHost: localhost\r\n\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()


def test_where_others_may_reach_it_their_names_for_it_count() -> None:
    scope = {"method": "GET", "client": ("10.0.0.1", 1), "headers": [(b"host", b"proxy.lan")]}
    assert Guard("0.0.0.0", ()).refusal(scope) is None
    assert Guard("127.0.0.1", ()).refusal(scope) is not None


def test_loopback_is_told_from_the_rest() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "", "192.168.1.2", "example.org"]))
