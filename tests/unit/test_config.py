"""Settings: defaults, then file, then environment, then flags; checked as a whole."""

import dataclasses

import pytest

from lunalog import config, limits
from lunalog.config import ClientConfig, MasterConfig, ServerConfig, load
from lunalog.errors import UsageError

KINDS = (ClientConfig, ServerConfig, MasterConfig)


@pytest.mark.parametrize("kind", KINDS)
def test_the_defaults_fit_each_other(kind):
    load(kind).validate()


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_can_come_from_the_environment(kind):
    """As text, with the type of its default."""
    role = kind.__name__.removesuffix("Config").upper()
    for field in dataclasses.fields(kind):
        default = getattr(kind(), field.name)
        if isinstance(default, tuple):
            continue
        text = "3" if default is None else str(default)
        found = load(kind, environment={f"LUNALOG_{role}_{field.name.upper()}": text})
        assert getattr(found, field.name) == (3 if default is None else default)


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path):
    file = tmp_path / "lunalog.toml"
    file.write_text("[master]\nport = 1\nlease_ms = 9000\nservers = 3\n[client]\nnonsense = 1\n")
    environment = {"LUNALOG_MASTER_PORT": "2", "LUNALOG_MASTER_LEASE_MS": "8000", "OTHER": "x"}
    found = load(
        MasterConfig, file=file, environment=environment, flags={"port": 5, "servers": None}
    )
    assert (found.port, found.lease_ms, found.servers) == (5, 8000, 3)


def test_lists(tmp_path):
    file = tmp_path / "lunalog.toml"
    file.write_text('[server]\nlabels = ["rack=1", "host=a"]\n')
    assert load(ServerConfig, file=file).labels == ("rack=1", "host=a")
    found = load(ServerConfig, environment={"LUNALOG_SERVER_LABELS": "rack=2,host=b"})
    assert found.labels == ("rack=2", "host=b")


def test_an_unknown_setting_is_an_error():
    with pytest.raises(UsageError) as found:
        load(ClientConfig, environment={"LUNALOG_CLIENT_SPEED": "9"})
    assert str(found.value) == "unknown client setting: speed (LUNALOG_CLIENT_SPEED)"


def test_of_a_misspelt_setting_is_told_where_it_stands_and_what_was_meant(tmp_path):
    file = tmp_path / "lunalog.toml"
    file.write_text("[client]\nretry_ms = 1\n")
    with pytest.raises(UsageError) as found:
        load(ClientConfig, file=file)
    told = f"unknown client setting: retry_ms ({file}; did you mean retry_ms_max?)"
    assert str(found.value) == told


def test_all_unknown_settings_are_told_each_with_where_it_stands(tmp_path):
    file = tmp_path / "lunalog.toml"
    file.write_text("[client]\nspeed = 1\nheight = 2\n")
    with pytest.raises(UsageError) as found:
        load(
            ClientConfig,
            file=file,
            environment={"LUNALOG_CLIENT_SPEED": "9", "LUNALOG_CLIENT_DEPTH": "3"},
            flags={"width": 4, "height": None},
        )
    told = (
        "unknown client setting: depth (LUNALOG_CLIENT_DEPTH), "
        f"height ({file}), speed (LUNALOG_CLIENT_SPEED), width (an option)"
    )
    assert str(found.value) == told


@pytest.mark.parametrize("text", ["speed = 9", "[mastr]\nport = 1"])
def test_so_is_what_stands_in_no_role_s_table(tmp_path, text):
    file = tmp_path / "lunalog.toml"
    file.write_text(text)
    unknown = r"unknown (speed|mastr); it has a table for each role: \[client\], \[server\], "
    with pytest.raises(UsageError, match=unknown):
        load(MasterConfig, file=file)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(
        UsageError, match=r"cannot read settings from .*: No such file or directory$"
    ):
        load(ClientConfig, file=tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("= x")
    with pytest.raises(UsageError, match="cannot read settings"):
        load(ClientConfig, file=broken)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (MasterConfig, "master = 3", r"\[master\] is not a table"),
        (
            MasterConfig,
            '[master]\nlease_ms = "long"',
            "setting lease_ms: 'long' is no whole number",
        ),
        (MasterConfig, "[master]\nlease_ms = true", "setting lease_ms: True is no whole number"),
        (MasterConfig, "[master]\nservers = 1.5", "setting servers: 1.5 is no whole number"),
        (MasterConfig, "[master]\nhost = 3", "master setting host: 3 is no text"),
        (ServerConfig, '[server]\nlabels = "rack=1"', "labels: 'rack=1' is no list of texts"),
        (ServerConfig, "[server]\nlabels = [1]", r"labels: \[1\] is no list of texts"),
    ],
)
def test_a_setting_of_the_wrong_type_is_an_error(tmp_path, kind, text, message):
    file = tmp_path / "lunalog.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message) as found:
        load(kind, file=file)
    assert str(file) in str(found.value)


def test_a_whole_number_will_do_for_a_fraction(tmp_path):
    file = tmp_path / "lunalog.toml"
    file.write_text("[client]\nlease_fraction = 1\n")
    assert load(ClientConfig, file=file).lease_fraction == 1.0


def test_a_number_that_is_none_is_an_error():
    told = r"heartbeat_ms: 'fast' is no whole number \(LUNALOG_CLIENT_HEARTBEAT_MS\)"
    with pytest.raises(UsageError, match=told):
        load(ClientConfig, environment={"LUNALOG_CLIENT_HEARTBEAT_MS": "fast"})
    with pytest.raises(UsageError, match="lease_fraction: 'all' is no number"):
        load(ClientConfig, environment={"LUNALOG_CLIENT_LEASE_FRACTION": "all"})


def test_of_a_flag_is_not_told_where_a_value_stands_that_it_overrides(tmp_path):
    file = tmp_path / "lunalog.toml"
    file.write_text("[master]\nport = 1\nlease_ms = true\n")
    with pytest.raises(UsageError) as found:
        load(MasterConfig, file=file, flags={"port": "http", "lease_ms": None})
    told = (
        "master setting port: 'http' is no whole number (an option); "
        f"master setting lease_ms: True is no whole number ({file})"
    )
    assert str(found.value) == told


def test_of_settings_that_do_not_fit_is_told_whose_they_are_and_what_they_are():
    with pytest.raises(UsageError) as found:
        load(MasterConfig, environment={"LUNALOG_MASTER_LEASE_MS": "1"})
    told = "master settings: lease_ms is at least three times heartbeat_ms (500), not 1"
    assert str(found.value) == told


def test_every_type_of_a_setting_has_a_name_for_people():
    types = {field.type for kind in KINDS for field in dataclasses.fields(kind)}
    assert types == set(config.TYPES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ClientConfig(heartbeat_ms=0), "heartbeat_ms"),
        (ClientConfig(lease_fraction=1.1), "lease_fraction"),
        (ClientConfig(in_flight_bytes_max=1), "in_flight_bytes_max"),
        (ClientConfig(batch_bytes_max=limits.FRAME_BYTES_MAX), "batch_bytes_max"),
        (ServerConfig(heartbeat_ms=0), "heartbeat_ms"),
        (ServerConfig(extent_bytes=limits.MIB), "extent_bytes"),
        (ServerConfig(wal_queue_bytes_max=1), "wal_queue_bytes_max"),
        (MasterConfig(heartbeat_ms=1000), "lease_ms"),
        (MasterConfig(server_lost_ms=1000), "server_lost_ms"),
        (MasterConfig(servers=-1), "servers"),
        (MasterConfig(port=65536), "port is at most 65535, not 65536"),
        (MasterConfig(connections_max=0), "connections_max is 1 or more, not 0"),
        (ServerConfig(port=-1), "port is 0 or more, not -1"),
        (ClientConfig(retry_ms_max=-1), "retry_ms_max is 0 or more, not -1"),
        (ClientConfig(connect_timeout_ms=0), "connect_timeout_ms is 1 or more, not 0"),
        (MasterConfig(tls_key="k"), "tls_certificate"),
        (ServerConfig(tls_authority="ca"), "with all, or with nobody"),
    ],
)
def test_settings_that_do_not_fit_each_other(settings, message):
    with pytest.raises(UsageError, match=message):
        settings.validate()
