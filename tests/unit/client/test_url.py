"""URLs: what is accepted, and an error that says so for everything else."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunalog.client.url import ClusterUrl, FileUrl, MemoryUrl, find, parse
from lunalog.errors import BadAddressError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("memory://test", MemoryUrl("test")),
        ("memory://a.b_c-1", MemoryUrl("a.b_c-1")),
        ("file:///var/lib/x", FileUrl("/var/lib/x")),
        ("file://localhost/x", FileUrl("/x")),
        ("file:///a%20b", FileUrl("/a b")),
        ("lunalog://h:1", ClusterUrl((("h", 1),))),
        ("lunalog://h", ClusterUrl((("h", 7600),))),
        ("lunalog://h:1/", ClusterUrl((("h", 1),))),
        ("lunalog://a:1,b:2,c", ClusterUrl((("a", 1), ("b", 2), ("c", 7600)))),
        ("lunalog://[::1]:7600", ClusterUrl((("::1", 7600),))),
        ("lunalogs://h:1", ClusterUrl((("h", 1),), is_secure=True)),
        ("lunalogs://a,b:2/", ClusterUrl((("a", 7600), ("b", 2)), is_secure=True)),
        ("lunalogs://h:1?ca=/etc/ca.pem", ClusterUrl((("h", 1),), True, "/etc/ca.pem")),
        ("lunalogs://h:1/?ca=a%20b%26c", ClusterUrl((("h", 1),), True, "a b&c")),
    ],
)
def test_accepted(url, expected):
    assert parse(url) == expected


@pytest.mark.parametrize("url", ["memory://test", "file:///a%20b/c"])
def test_an_embedded_url_is_shown_as_it_is_written(url):
    assert str(parse(url)) == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "no scheme"),
        ("localhost:7600", "no scheme"),
        ("http://h:1", "unknown scheme 'http'"),
        ("memory://", "takes a name"),
        ("memory://a/b", "takes a name"),
        ("file://relative/x", "three slashes"),
        ("file://", "three slashes"),
        ("file:///", "three slashes"),
        ("file:///x?y=1", "no options"),
        ("file://[", "Invalid IPv6"),
        ("lunalog://", "names no master"),
        ("lunalog://h:x", "lunalog://HOST:PORT"),
        ("lunalog://h:0", "not HOST:PORT"),
        ("lunalog://h:99999", "lunalog://HOST:PORT"),
        ("lunalog://a:1,,b:2", "not HOST:PORT"),
        ("lunalog://h:1/path", "not HOST:PORT"),
        ("lunalog://u@h:1", "not HOST:PORT"),
        ("lunalog://h:1?lease=3", "unknown option 'lease'"),
        ("lunalogs://", "names no master"),
        ("lunalogs://h:1?lease=3", "unknown option 'lease'"),
        ("lunalogs://h:1?ca=", "ca= takes one file"),
        ("lunalogs://h:1?ca", "ca= takes one file"),
        ("lunalogs://h:1?ca=a&ca=b", "ca= takes one file"),
        ("lunalogs://h:1?ca=%00", "ca= takes one file"),
        ("lunalog://h:1?ca=/etc/ca.pem", "an authority is for TLS: use lunalogs://"),
        (b"memory://x", "a string, not bytes"),
    ],
)
def test_refused_with_what_to_do(url, message):
    with pytest.raises(BadAddressError) as caught:
        parse(url)
    assert message in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text):
    for prefix in ("", "lunalog://", "lunalogs://h?ca=", "file://", "memory://"):
        with contextlib.suppress(BadAddressError):
            parse(prefix + text)


def test_without_a_url_the_environment_names_one():
    assert find(None, {"LUNALOG_URL": "memory://x"}) == "memory://x"
    assert find("memory://y", {"LUNALOG_URL": "memory://x"}) == "memory://y"
    with pytest.raises(BadAddressError, match="LUNALOG_URL is not set"):
        find(None, {})
