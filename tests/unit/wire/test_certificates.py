"""Certificates from files: a node looks at its own as its peers will, and says what is wrong."""

import ctypes
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from tests.certificates import Authority

from lunalog.errors import BadCertificateError, TlsError, UntrustedPeerError
from lunalog.wire.certificates import client_contexts, node_contexts, refused

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def issued(authority):
    return authority.issue(HOST, "localhost")


def refusal(*arguments):
    with pytest.raises(BadCertificateError) as caught:
        node_contexts(*arguments)
    assert caught.value.code == "bad_certificate"
    return str(caught.value)


@pytest.mark.parametrize("host", [HOST, "localhost", None])
def test_a_certificate_that_peers_will_take_is_taken(authority, issued, host):
    found = node_contexts(issued.certificate, issued.key, authority.file, host)
    assert found.accepting.minimum_version == ssl.TLSVersion.TLSv1_3
    assert found.dialling.minimum_version == ssl.TLSVersion.TLSv1_3
    assert found.dialling.check_hostname
    assert found.dialling.verify_mode == ssl.CERT_REQUIRED


def test_the_key_may_be_in_the_file_of_the_certificate(authority, issued, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(Path(issued.certificate).read_bytes() + Path(issued.key).read_bytes())
    assert node_contexts(str(both), "", authority.file, HOST).accepting is not None


def test_without_an_authority_a_node_trusts_whom_the_system_trusts(issued):
    found = node_contexts(issued.certificate, issued.key, "", HOST)
    assert found.authority == "the system's trust store"
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(found.dialling, found.accepting)


def shake_hands(dialling, accepting):
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = dialling.wrap_bio(to_client, to_server, server_hostname=HOST)
    server = accepting.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return client.version()


def test_a_client_with_the_authority_comes_in(authority, issued):
    node = node_contexts(issued.certificate, issued.key, authority.file, HOST)
    assert shake_hands(client_contexts(authority.file).dialling, node.accepting) == "TLSv1.3"


def test_files_that_are_not_there_are_named(authority, issued):
    assert "the certificate '/none/c.pem': No such file" in refusal("/none/c.pem", "", "", HOST)
    assert "the key '/none/k'" in refusal(issued.certificate, "/none/k", "", HOST)
    assert "the authority '/none/ca'" in refusal(issued.certificate, issued.key, "/none/ca", HOST)
    with pytest.raises(BadCertificateError, match="the authority '/': Is a directory"):
        client_contexts("/")


LIBC = ctypes.CDLL(None, use_errno=True)
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def like_anybody():
    """Take from root, in the child, the right to read what a mode forbids."""
    for right in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        if os.geteuid() == 0 and LIBC.prctl(PR_CAPBSET_DROP, right, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "cannot give up a capability")


def test_a_key_that_may_not_be_read_is_named(issued, tmp_path):
    key = tmp_path / "secret"
    key.write_bytes(Path(issued.key).read_bytes())
    key.chmod(0)
    program = (
        "import sys\n"
        "from lunalog.errors import BadCertificateError\n"
        "from lunalog.wire.certificates import node_contexts\n"
        "try:\n"
        "    node_contexts(*sys.argv[1:])\n"
        "except BadCertificateError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, issued.certificate, str(key), "", HOST],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=like_anybody,
    )
    assert f"the key {str(key)!r}: Permission denied" in done.stdout


def test_files_that_hold_something_else_are_named(issued, tmp_path):
    text = tmp_path / "text"
    text.write_text("no certificate")
    with pytest.raises(BadCertificateError, match="holds no certificate in PEM form"):
        client_contexts(str(text))
    assert f"the certificate {text}" in refusal(str(text), issued.key, "", HOST)
    assert "cannot be used" in refusal(issued.certificate, str(text), "", HOST)
    assert "cannot be used" in refusal(issued.certificate, "", "", HOST), "it has no key in it"


def test_a_key_of_another_certificate_is_told(authority, issued):
    other = authority.issue(HOST, name="other")
    assert "do not belong together" in refusal(issued.certificate, other.key, "", HOST)


def test_an_encrypted_key_is_told_and_nobody_is_asked(issued, tmp_path):
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(Path(issued.key).read_bytes(), None)
    locked = tmp_path / "locked"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    assert f"the key {locked} is encrypted" in refusal(issued.certificate, str(locked), "", HOST)
    both = tmp_path / "both"
    both.write_bytes(Path(issued.certificate).read_bytes() + locked.read_bytes())
    assert f"the key {both} is encrypted" in refusal(str(both), "", "", HOST)


@pytest.mark.parametrize("has_authority", [True, False])
def test_one_that_has_expired_is_told_at_the_start(authority, has_authority):
    old = authority.expired(HOST)
    why = refusal(old.certificate, old.key, authority.file if has_authority else "", HOST)
    assert "has expired" in why
    assert old.certificate in why


def test_one_of_another_authority_is_told_at_the_start(issued, tmp_path):
    other = Authority(tmp_path, "other")
    why = refusal(issued.certificate, issued.key, other.file, HOST)
    assert "is not signed by who is trusted here" in why
    assert other.file in why


@pytest.mark.parametrize("host", ["10.1.2.3", "journal.example", "0.0.0.0"])
def test_one_for_another_host_is_told_at_the_start(authority, issued, host):
    why = refusal(issued.certificate, issued.key, authority.file, host)
    assert f"is not for {host}" in why
    assert "subject alternative names" in why


@pytest.mark.parametrize("host", ["", ".example", "a\0b"])
def test_a_host_that_no_certificate_can_be_for_is_told(authority, issued, host):
    assert "not what a certificate can be for" in refusal(
        issued.certificate, issued.key, authority.file, host
    )


def test_a_handshake_that_fails_otherwise_is_told_with_its_reason():
    error = ssl.SSLError(1, "[SSL: TLSV1_ALERT_PROTOCOL_VERSION] text")
    found = refused(error, ("h", 1), "ca.pem")
    assert type(found) is TlsError
    assert "h:1" in str(found)
    assert not issubclass(TlsError, UntrustedPeerError)
