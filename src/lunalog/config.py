"""Settings of each role: one frozen dataclass, checked as a whole.

Values come from defaults, then a TOML file, then `LUNALOG_*`, then flags; unknown keys are errors.
Each setting stands in docs/operations.md.  Units last in each name.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lunalog import limits
from lunalog.errors import UsageError

C = TypeVar("C", "ClientConfig", "ServerConfig", "MasterConfig")
ROLES = ("client", "server", "master")
"""Tables of a file."""
ABOVE_ZERO = ("heartbeat_ms", "connections_max", "connect_timeout_ms", "operation_timeout_ms")
"""Settings that may not be 0; `validate` tells what else bounds a number."""
TYPES = {
    "int": "whole number",
    "int | None": "whole number",
    "float": "number",
    "str": "text",
    "tuple[str, ...]": "list of texts",
}
"""Types of settings, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """One `SingleWriteJournal`."""

    heartbeat_ms: int = 500
    lease_fraction: float = 0.8
    """Of the lease that the master grants, what the holder counts on, from before it asked (R15)."""
    loop_stall_ms: int = 30_000
    """A loop without a turn for this long gets no renewal."""
    leader_stall_ms: int = 10_000
    """A leader that cannot open its segment or reach A for this long releases (N2)."""
    in_flight_bytes_max: int = 64 * limits.MIB
    """Unacknowledged bytes a writer; also how far a replica may lag before it is rolled out."""
    batch_bytes_max: int = 256 * limits.KIB
    """A busy writer closes a frame at about this size, one of several `append_many` at twice; more
    than 4 MiB counts as that, which 2^20 empty events take."""
    read_ahead_bytes: int = 4 * limits.MIB
    commit_mark_ms: int = 1
    """How long after the last append the committed sequence is told to idle replicas."""
    roll_ack_timeout_ms: int = 250
    """No acks from A of the set for this long: urgent roll; longer once that was too short (R11)."""
    planned_roll_gap_ms: int = 2_000
    """Planned rolls are at least this far apart."""
    connect_timeout_ms: int = 5_000
    operation_timeout_ms: int = 10_000
    """Control operations without a `timeout=` of their own."""
    read_wait_ms: int = 1_000
    """Long poll of a following reader at one replica."""
    retry_ms_max: int = 1_000
    """Cap of the jittered backoff between attempts."""

    def validate(self) -> None:
        """Raise `UsageError` if the settings do not fit each other."""
        _require_numbers(self)
        _require(
            0 < self.lease_fraction <= 1,
            f"lease_fraction is a part above 0 and at most 1, not {self.lease_fraction}",
        )
        _require(
            limits.PAYLOAD_BYTES_MAX <= self.in_flight_bytes_max <= limits.SEND_QUEUE_BYTES_MAX,
            f"in_flight_bytes_max is at least {limits.PAYLOAD_BYTES_MAX} (one event) and at most "
            f"{limits.SEND_QUEUE_BYTES_MAX} (a send queue), not {self.in_flight_bytes_max}",
        )
        _require(
            1 <= self.batch_bytes_max <= limits.FRAME_BYTES_MAX - 4 * limits.KIB,
            f"batch_bytes_max is at least 1 and at most {limits.FRAME_BYTES_MAX - 4 * limits.KIB} "
            f"(a frame), not {self.batch_bytes_max}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """One journal server."""

    host: str = "127.0.0.1"
    port: int = 0
    name: str = ""
    """Empty: drawn at the first start and kept in the data directory."""
    labels: tuple[str, ...] = ()
    """`key=value`, such as `host=a`, `rack=7`; placement spreads over them."""
    heartbeat_ms: int = 500
    extent_bytes: int = 128 * limits.MIB
    wal_queue_bytes_max: int = 64 * limits.MIB
    """Bound of what waits for the disk; behind it a fence never waits longer (R5)."""
    idle_batch_ms: int = 20
    """After this much idle time an empty batch attests the last one (R17)."""
    inline_sync_ms_max: int = 5
    """A lone frame is committed on the loop while the last syncs took less than this; 0: never."""
    tail_cache_bytes: int = 64 * limits.MIB
    """Recent frames kept in memory for readers, all segments together."""
    read_bytes_max: int = 4 * limits.MIB
    """One reply to a read; a larger frame is sent alone."""
    reserve_bytes: int = 64 * limits.MIB
    """Free space below which appends are refused and fences still work (D3)."""
    connections_max: int = 10_000
    tls_certificate: str = ""
    """File of this node's certificate and its chain; with it all connections are under TLS."""
    tls_key: str = ""
    """File of its key; empty: in the file of the certificate."""
    tls_authority: str = ""
    """File of who signs the certificates of the cluster; empty: the system's trust store."""

    def validate(self) -> None:
        """Raise `UsageError` if the settings do not fit each other."""
        _require_numbers(self)
        _require(
            self.extent_bytes >= 2 * limits.MESSAGE_BYTES_MAX,
            f"extent_bytes is at least {2 * limits.MESSAGE_BYTES_MAX} (two of the largest frames), "
            f"not {self.extent_bytes}",
        )
        _require(
            self.wal_queue_bytes_max >= limits.MESSAGE_BYTES_MAX,
            f"wal_queue_bytes_max is at least {limits.MESSAGE_BYTES_MAX} (the largest frame), "
            f"not {self.wal_queue_bytes_max}",
        )
        _require_tls_whole(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterConfig:
    """The master."""

    host: str = "127.0.0.1"
    port: int = 7600
    lease_ms: int = 2_000
    heartbeat_ms: int = 500
    """What clients and servers are told to use."""
    session_grace_ms: int = 250
    """A closed session is over when the same incarnation has not come back by then."""
    server_lost_ms: int = 3_000
    connections_max: int = 10_000
    servers: int | None = None
    """Wanted journal servers for the local orchestrator; none: nobody is provisioned."""
    tls_certificate: str = ""
    """File of this node's certificate and its chain; with it all connections are under TLS."""
    tls_key: str = ""
    """File of its key; empty: in the file of the certificate."""
    tls_authority: str = ""
    """File of who signs the certificates of the cluster; empty: the system's trust store."""

    def validate(self) -> None:
        """Raise `UsageError` if the settings do not fit each other."""
        _require_numbers(self)
        for name in ("lease_ms", "server_lost_ms"):
            _require(
                self.heartbeat_ms * 3 <= getattr(self, name),
                f"{name} is at least three times heartbeat_ms ({self.heartbeat_ms}), "
                f"not {getattr(self, name)}",
            )
        _require_tls_whole(self)


def _require_numbers(config: ClientConfig | ServerConfig | MasterConfig) -> None:
    """Raise `UsageError` for a number that no time, size or port can be."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, int):
            least = 1 if field.name in ABOVE_ZERO else 0
            _require(value >= least, f"{field.name} is {least} or more, not {value}")
        if field.name == "port":
            _require(value <= limits.PORT_MAX, f"port is at most {limits.PORT_MAX}, not {value}")


def _require_tls_whole(config: ServerConfig | MasterConfig) -> None:
    _require(
        bool(config.tls_certificate) or not (config.tls_key or config.tls_authority),
        "tls_key and tls_authority need a tls_certificate: a node speaks TLS with all, or with nobody",
    )


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)


def load(
    kind: type[C],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> C:
    """Build settings from a TOML file, `LUNALOG_<ROLE>_<NAME>` variables, and flags, in that order.

    Raises `UsageError` for an unknown key, a wrong type, or settings that do not fit each other.
    Flags that are None are left out.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}
    role = kind.__name__.removesuffix("Config").lower()
    found: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if file is not None:
        found = dict(_from_file(file, role))
        sources = dict.fromkeys(found, str(file))
    prefix = f"LUNALOG_{role.upper()}_"
    for name, text in sorted((environment or {}).items()):
        if name.startswith(prefix):
            key = name.removeprefix(prefix).lower()
            sources[key] = name
            found[key] = _from_text(text, fields[key]) if key in fields else text
    given = {k: v for k, v in (flags or {}).items() if v is not None}
    found.update(given)
    sources.update(dict.fromkeys(given, "an option"))
    if unknown := sorted(set(found) - set(fields)):
        told = [f"{key} ({sources[key]}{_near(key, fields)})" for key in unknown]
        raise UsageError(f"unknown {role} setting: {', '.join(told)}")
    try:
        config = msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise UsageError(_misfit(kind, role, found, sources)) from error
    try:
        config.validate()
    except UsageError as error:
        raise UsageError(f"{role} settings: {error}") from error
    return config


def _near(key: str, fields: Iterable[str]) -> str:
    import difflib

    return "".join(f"; did you mean {n}?" for n in difflib.get_close_matches(key, fields, n=1))


def _misfit(kind: type[C], role: str, found: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    """Return which setting is not of its type, where it stands, and what it may be."""
    said = []
    for field in dataclasses.fields(kind):
        try:
            msgspec.convert({k: v for k, v in found.items() if k == field.name}, kind)
        except msgspec.ValidationError:
            value, wanted = found[field.name], TYPES[str(field.type)]
            where = sources[field.name]
            said.append(f"{role} setting {field.name}: {value!r} is no {wanted} ({where})")
    return "; ".join(said)


def _from_file(file: Path, role: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(file.read_text())
    except OSError as error:
        raise UsageError(f"cannot read settings from {file}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"cannot read settings from {file}: {error}") from error
    unknown = sorted(set(tables) - set(ROLES))
    if unknown:
        raise UsageError(
            f"cannot read settings from {file}: unknown {', '.join(unknown)}; it has a table for "
            f"each role: {', '.join(f'[{name}]' for name in ROLES)}"
        )
    section = tables.get(role, {})
    if not isinstance(section, dict):
        raise UsageError(f"cannot read settings from {file}: [{role}] is not a table")
    return section


def _from_text(text: str, field: dataclasses.Field[Any]) -> Any:
    """Read a value of the environment; returns the text itself where it cannot be one."""
    default = field.default
    try:
        if isinstance(default, tuple):
            return tuple(filter(None, text.split(",")))
        if isinstance(default, float):
            return float(text)
        if isinstance(default, int) or default is None:
            return int(text)
    except ValueError:
        return text
    return text
