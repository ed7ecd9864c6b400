"""Throw-away authorities and the files that nodes and clients are given of them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import trustme

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate's files."""

    certificate: str
    key: str

    def options(self, authority: str = "") -> tuple[str, ...]:
        """Those of the command line."""
        found = ("--tls-certificate", self.certificate, "--tls-key", self.key)
        return (*found, "--tls-authority", authority) if authority else found


class Authority:
    """Signs whatever a test wants."""

    def __init__(self, home: Path, name: str = "ca") -> None:
        home.mkdir(exist_ok=True)
        self._home = home
        self._ca = trustme.CA()
        self.file = str(home / f"{name}.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def issue(
        self, *hosts: str, name: str = "node", ends: datetime.datetime | None = None
    ) -> Issued:
        """Make a certificate for some hosts (names or IP addresses) and write it to files."""
        made = self._ca.issue_cert(*hosts, not_after=ends)
        found = Issued(str(self._home / f"{name}.pem"), str(self._home / f"{name}.key"))
        Path(found.certificate).write_bytes(b"".join(p.bytes() for p in made.cert_chain_pems))
        made.private_key_pem.write_to_path(found.key)
        return found

    def expired(self, *hosts: str) -> Issued:
        """Make one that was valid until yesterday."""
        return self.issue(*hosts, name="expired", ends=NOW - DAY)
