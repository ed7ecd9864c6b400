"""What settings of TLS mean for a node, and for the servers that a master starts."""

from pathlib import Path

import pytest
from tests.certificates import Authority

from lunalog.cli.nodes import network_of, tls_arguments
from lunalog.config import MasterConfig, ServerConfig
from lunalog.errors import BadCertificateError
from lunalog.wire.tls import TlsNetwork

HOST = "127.0.0.1"


def test_without_a_certificate_a_node_is_plain():
    assert network_of(ServerConfig(), HOST) is None
    assert tls_arguments(MasterConfig()) == ()


def test_servers_are_given_the_files_of_their_master_by_paths_good_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = MasterConfig(tls_certificate="c.pem", tls_authority="/etc/ca.pem")
    assert tls_arguments(config) == (
        *("--tls-certificate", str(tmp_path / "c.pem")),
        *("--tls-authority", "/etc/ca.pem"),
    )


def test_what_a_server_was_given_is_what_it_says_it_was_started_with(tmp_path):
    """Or the next master would take it for one that was started otherwise."""
    files = {name: str(tmp_path / name) for name in ("tls_certificate", "tls_key", "tls_authority")}
    assert tls_arguments(ServerConfig(**files)) == tls_arguments(MasterConfig(**files))


def test_with_a_certificate_a_node_speaks_tls_and_it_must_be_for_its_host(tmp_path):
    authority = Authority(tmp_path)
    issued = authority.issue(HOST)
    config = ServerConfig(
        tls_certificate=issued.certificate, tls_key=issued.key, tls_authority=authority.file
    )
    assert isinstance(network_of(config, HOST), TlsNetwork)
    assert isinstance(network_of(config, None), TlsNetwork)
    with pytest.raises(BadCertificateError, match=r"is not for 10\.0\.0\.1"):
        network_of(config, "10.0.0.1")
    Path(issued.key).unlink()
    with pytest.raises(BadCertificateError, match="cannot read the key"):
        network_of(config, HOST)
