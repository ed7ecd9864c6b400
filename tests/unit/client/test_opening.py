"""Which network a URL asks for, and whom it trusts there."""

import pytest
from tests.certificates import Authority

from lunalog.client import url
from lunalog.client.ending import JournalRuntime
from lunalog.client.journal import SingleWriteJournal
from lunalog.client.opening import runtime_to
from lunalog.errors import BadAddressError, BadCertificateError
from lunalog.runtime import SystemRuntime, TcpNetwork
from lunalog.wire.tls import TlsNetwork


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    home = tmp_path_factory.mktemp("authorities")
    return [Authority(home, name).file for name in ("first", "second")]


async def authority_of(text):
    runtime = await runtime_to(url.parse(text), None)
    assert isinstance(runtime, JournalRuntime)
    assert isinstance(runtime.network, TlsNetwork)
    return runtime.network._contexts.authority


async def test_the_authority_is_that_of_the_url_then_of_the_environment_then_the_system(
    authorities, monkeypatch
):
    first, second = authorities
    monkeypatch.delenv("LUNALOG_CA", raising=False)
    assert await authority_of("lunalogs://h") == "the system's trust store"
    monkeypatch.setenv("LUNALOG_CA", second)
    assert await authority_of("lunalogs://h") == second
    assert await authority_of(f"lunalogs://h?ca={first}") == first


async def test_a_plain_url_has_nothing_to_do_with_tls(monkeypatch):
    monkeypatch.setenv("LUNALOG_CA", "/none/ca.pem")
    given = SystemRuntime()
    assert isinstance((await runtime_to(url.parse("lunalog://h"), None)).network, TcpNetwork)
    assert await runtime_to(url.parse("lunalog://h"), given) is given


async def test_an_authority_that_is_not_there_ends_the_opening():
    with pytest.raises(BadCertificateError, match=r"/none/ca\.pem"):
        await SingleWriteJournal.connect("lunalogs://h?ca=/none/ca.pem")


async def test_a_runtime_of_ones_own_is_never_taken_for_a_secure_one():
    with pytest.raises(BadAddressError, match="brings its own"):
        await SingleWriteJournal.connect("lunalogs://h", runtime=SystemRuntime())
