"""Where a journal lives, as one string.

    memory://NAME                     in this process and loop, gone with its last journal
    file:///DIRECTORY                 in this process, durable, one server
    lunalog://HOST:PORT,HOST:PORT     a cluster, by its masters
    lunalogs://HOST:PORT?ca=FILE      the same under TLS; the authority is optional

Source: design.md section 8.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from lunalog.errors import BadAddressError
from lunalog.runtime import Address

MASTER_PORT: Final = 7600
URL_VARIABLE: Final = "LUNALOG_URL"
AUTHORITY_VARIABLE: Final = "LUNALOG_CA"
AUTHORITY_OPTION: Final = "ca"
MEMORY_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
ACCEPTED: Final = (
    "use lunalog://HOST:PORT (several masters: lunalog://HOST:PORT,HOST:PORT), "
    "lunalogs://HOST:PORT[?ca=FILE] for TLS, "
    "file:///DIRECTORY, or memory://NAME"
)


@dataclass(frozen=True, slots=True)
class MemoryUrl:
    """A cluster in memory."""

    name: str

    def __str__(self) -> str:
        return f"memory://{self.name}"


@dataclass(frozen=True, slots=True)
class FileUrl:
    """An embedded journal in a directory."""

    directory: str

    def __str__(self) -> str:
        return f"file://{quote(self.directory)}"


@dataclass(frozen=True, slots=True)
class ClusterUrl:
    """A cluster of processes, by the addresses of its masters."""

    masters: tuple[Address, ...]
    is_secure: bool = False
    """TLS, to masters and servers alike."""
    authority: str = ""
    """File of who has signed their certificates; empty: not said here."""


JournalUrl = MemoryUrl | FileUrl | ClusterUrl


def find(url: str | None, environment: Mapping[str, str]) -> str:
    """Return `url`, or what the environment names."""
    found = url if url is not None else environment.get(URL_VARIABLE, "")
    if not found:
        raise BadAddressError(f"no URL was given and {URL_VARIABLE} is not set: {ACCEPTED}")
    return found


def parse(url: str) -> JournalUrl:
    """Read a URL; raises `BadAddressError`, which says what is accepted."""
    if not isinstance(url, str):
        raise BadAddressError(f"a URL is a string, not {type(url).__name__}: {ACCEPTED}")
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise BadAddressError(f"{url!r:.200} has no scheme: {ACCEPTED}")
    if scheme == "memory":
        return _memory(url, rest)
    if scheme == "file":
        return _file(url)
    if scheme in ("lunalog", "lunalogs"):
        return _cluster(url, rest, is_secure=scheme == "lunalogs")
    raise BadAddressError(f"{url!r:.200}: unknown scheme {scheme!r}: {ACCEPTED}")


def _memory(url: str, name: str) -> MemoryUrl:
    if not MEMORY_NAME.fullmatch(name):
        raise BadAddressError(
            f"{url!r:.200}: memory:// takes a name of 1 to 64 letters, digits, '.', '_', '-', "
            "such as memory://test"
        )
    return MemoryUrl(name)


def _file(url: str) -> FileUrl:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadAddressError(f"{url!r:.200}: {error}: {ACCEPTED}") from error
    path = unquote(parts.path)
    if (
        parts.netloc not in ("", "localhost")
        or path[:1] != "/"
        or not path.strip("/")
        or "\0" in path
    ):
        raise BadAddressError(
            f"{url!r:.200}: file:// takes an absolute path with three slashes, such as "
            "file:///var/lib/journal"
        )
    if parts.query or parts.fragment:
        raise BadAddressError(f"{url!r:.200}: file:// takes no options")
    return FileUrl(path)


def _cluster(url: str, rest: str, *, is_secure: bool) -> ClusterUrl:
    hosts, _, options = rest.partition("?")
    authority = _authority(url, options, is_secure=is_secure) if options else ""
    hosts = hosts.removesuffix("/")
    if not hosts:
        raise BadAddressError(f"{url!r:.200} names no master: {ACCEPTED}")
    masters = tuple(_address(url, part) for part in hosts.split(","))
    return ClusterUrl(masters, is_secure, authority)


def _authority(url: str, options: str, *, is_secure: bool) -> str:
    name, _, value = options.partition("=")
    if name != AUTHORITY_OPTION:
        raise BadAddressError(
            f"{url!r:.200}: unknown option {name!r}; settings are passed as "
            "config=ClientConfig(...) or by LUNALOG_CLIENT_* variables"
        )
    if not is_secure:
        raise BadAddressError(
            f"{url!r:.200}: an authority is for TLS: use lunalogs://, or leave {name}= out"
        )
    found = unquote(value)
    if not found or "&" in value or "\0" in found:
        raise BadAddressError(
            f"{url!r:.200}: {name}= takes one file, such as lunalogs://HOST:PORT?ca=/etc/lunalog/ca.pem"
        )
    return found


def _address(url: str, text: str) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadAddressError(f"{url!r:.200}: {text!r:.100}: {error}: {ACCEPTED}") from error
    if not host or parts.path or parts.username is not None or port == 0:
        raise BadAddressError(f"{url!r:.200}: {text!r:.100} is not HOST:PORT: {ACCEPTED}")
    return host, MASTER_PORT if port is None else port
