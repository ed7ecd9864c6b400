"""Certificates, keys and authorities from files, and in words what is wrong with them.

A node looks at its own certificate as its peers will, before it starts: by a handshake with itself.

Source: docs/adr/0011-tls-between-all-parts.md; docs/operations.md "TLS".
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lunalog.errors import BadCertificateError, TlsError, UntrustedPeerError
from lunalog.runtime import Address
from lunalog.wording import shown

OLDEST: Final = ssl.TLSVersion.TLSv1_3
NOT_YET_VALID: Final = 9
EXPIRED: Final = 10
OTHER_NAME: Final = (62, 64)
"""X509_V_ERR_... of OpenSSL, as `SSLCertVerificationError.verify_code` gives them."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """What a node needs to dial, and to listen if it does."""

    dialling: ssl.SSLContext
    authority: str
    """Where `dialling` has it from, for people."""
    accepting: ssl.SSLContext | None = None


def client_contexts(authority: str) -> Contexts:
    """Trust what the certificates in the file `authority` signed, or (empty) what the system trusts.

    Blocks while files are read.  Raises `BadCertificateError`.
    """
    context = _dialling()
    if not authority:
        context.load_default_certs()
        return Contexts(context, "the system's trust store")
    _load_authority(context, authority)
    return Contexts(context, authority)


def node_contexts(certificate: str, key: str, authority: str, host: str | None) -> Contexts:
    """As `client_contexts`, and listen under `certificate`; `key`: empty if it is in the same file.

    Raises `BadCertificateError` also for a certificate that no peer would take: it is not valid now,
    not signed by `authority`, if one is given, or not for `host`, if that is what peers dial.
    """
    found = client_contexts(authority)
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.minimum_version = OLDEST
    accepting.num_tickets = 0  # connections are few and last
    _read("certificate", certificate)
    _read("key", key or certificate)
    try:
        accepting.load_cert_chain(
            certificate, key or certificate, password=_locked(key or certificate)
        )
    except ssl.SSLError as error:
        raise _unfit(error, certificate, key) from error
    trial = found.dialling
    if not authority:  # whom we trust says nothing of who trusts us: only whether it is valid now
        trial = _dialling()
        trial.load_verify_locations(certificate)
        trial.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _try(accepting, trial, host, certificate, authority)
    return Contexts(found.dialling, found.authority, accepting)


def _dialling() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the chain and the host
    context.minimum_version = OLDEST
    return context


def _load_authority(context: ssl.SSLContext, authority: str) -> None:
    _read("authority", authority)
    try:
        context.load_verify_locations(authority)
    except ssl.SSLError as error:
        raise BadCertificateError(
            f"the authority {authority} holds no certificate in PEM form; nothing was sent: name the "
            "file of the certificate that has signed those of the nodes"
        ) from error


def _read(what: str, file: str) -> None:
    """Raise in words what OpenSSL only gives a number for."""
    try:
        Path(file).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadCertificateError(
            f"cannot read the {what} {file!r}: {reason}; nothing was started or sent: check the path "
            "and the rights of this user"
        ) from error


def _locked(key: str) -> Callable[[], str]:
    def ask() -> str:
        raise BadCertificateError(
            f"the key {key} is encrypted, and a node has nobody to ask for the pass phrase; nothing "
            "was started: store it decrypted, readable to this user alone"
        )

    return ask


def _unfit(error: ssl.SSLError, certificate: str, key: str) -> BadCertificateError:
    where = f"{certificate} and the key {key}" if key else certificate
    if reason(error) == "KEY_VALUES_MISMATCH":
        return BadCertificateError(
            f"the certificate {where} do not belong together; nothing was started: name the key that "
            "the certificate was made with, and the node's own certificate first in its file"
        )
    return BadCertificateError(
        f"the certificate {where} cannot be used ({reason(error)}); nothing was started: "
        "both are in PEM form, the node's own certificate first"
    )


def _try(
    accepting: ssl.SSLContext,
    dialling: ssl.SSLContext,
    host: str | None,
    certificate: str,
    authority: str,
) -> None:
    """Shake hands with ourselves in memory: what our peers will check."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    checks_host, dialling.check_hostname = dialling.check_hostname, host is not None
    try:
        client = dialling.wrap_bio(to_client, to_server, server_hostname=host)
        server = accepting.wrap_bio(to_server, to_client, server_side=True)
        for side in (client, server, client):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLError as error:
        why = _verdict(error, host or "", authority)
        raise BadCertificateError(
            f"the certificate {certificate} {why}; nothing was started"
        ) from error
    except (ValueError, TypeError) as error:  # the latter for a null byte
        raise BadCertificateError(
            f"{host!r} is not what a certificate can be for: {error}"
        ) from error
    finally:
        dialling.check_hostname = checks_host


def _verdict(error: ssl.SSLError, host: str, authority: str) -> str:
    code = getattr(error, "verify_code", None)
    if code == EXPIRED:
        return "has expired, or that of its authority has: renew it"
    if code == NOT_YET_VALID:
        return "is not valid yet: look at the clocks of both machines"
    if code in OTHER_NAME:
        return (
            f"is not for {host}: use a name or address that stands in it, or have {host} added to its "
            "subject alternative names (an IP address as such, not as a DNS name)"
        )
    if code is not None:
        return (
            f"is not signed by who is trusted here, {authority} "
            f"({getattr(error, 'verify_message', error)}): name the right authority"
        )
    return f"does not do for TLS 1.3 ({reason(error)})"


def reason(error: Exception) -> str:
    """Return what OpenSSL calls the error, or its text."""
    return getattr(error, "reason", None) or str(error)


def refused(error: ssl.SSLError, address: Address, authority: str) -> TlsError:
    """Put into words why the handshake with what listens at `address` failed."""
    where = shown(address)
    if isinstance(error, ssl.SSLCertVerificationError):
        why = _verdict(error, address[0], authority)
        return UntrustedPeerError(f"the certificate of {where} {why}; nothing was sent")
    return TlsError(
        f"no TLS with {where} ({reason(error)}); nothing was sent: both sides need TLS 1.3; "
        "the log of the other side may say more"
    )
