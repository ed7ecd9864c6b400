"""A cluster under TLS, as processes: all passes, faults lose nothing, and what is wrong is told."""

import asyncio
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from clusters import Cluster, append_for, follow, next_leads, read_all, refused
from command import Command

from certificates import Authority
from lunalog import LunalogError, SingleWriteJournal
from lunalog.errors import AvailabilityError
from lunalog.orchestrator.process import live_owner
from lunalog.runtime import SystemRuntime, TcpNetwork
from lunalog.wire import codec
from lunalog.wire.certificates import client_contexts
from lunalog.wire.connection import Handler
from lunalog.wire.dialing import dial
from lunalog.wire.messages import DescribeServer, Hello
from lunalog.wire.tls import TlsNetwork
from ports import free_port
from processes import PATIENCE_S, until
from required import cannot_run

pytestmark = pytest.mark.slow

HOST = "127.0.0.1"
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


class TlsCluster(Cluster):
    """All nodes with a certificate; `options` is what each is started with."""

    def __init__(self, home, authority, options):
        super().__init__(home)
        self.authority = authority
        self.options = options

    def start(self, name, *more):
        return super().start(name, *self.options, *more)

    @property
    def url(self):
        return f"lunalogs://{self.masters}?ca={self.authority.file}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def issued(authority):
    return authority.issue(HOST, "localhost")


@pytest.fixture
def cluster(tmp_path, authority, issued):
    found = TlsCluster(tmp_path, authority, issued.options(authority.file))
    yield found
    found.end()


# ----------------------------------------------------------------------------- what passes


async def test_kills_of_a_server_and_of_the_leader_lose_nothing(cluster):
    cluster.up(3)
    cluster.command.ok("create", "s", "--replicas", "3", "--ack-quorum", "2")
    feed = cluster.home / "lines"
    feed.write_bytes(b"".join(b"%d\n" % n for n in range(1_000_000)))
    with feed.open("rb") as given:
        first = cluster.command.start("append", "s", "--peer", "first", stdin=given)
    async with cluster.connect("second") as journal:
        seen = await follow(journal, {2000: lambda: cluster.kill("s1"), 20_000: first.kill})
        first.communicate()
        assert first.returncode == -signal.SIGKILL, "it had not finished"
        await next_leads(journal, seen)


async def test_a_server_that_was_away_is_completed_by_the_others(cluster):
    """Which it dials itself, under TLS."""
    cluster.up(3)
    acknowledged = []
    async with cluster.connect("a") as journal:
        await journal.create_stream("s", replicas=3, ack_quorum=2)
        async with journal.lead("s", timeout=PATIENCE_S) as writer:
            await append_for(writer, acknowledged, 100)
            cluster.kill("s1")
            await append_for(writer, acknowledged, 3000)
        cluster.start("s1")
        while not (facts := await held_by(cluster, "s1")) or facts[0].state != "complete":
            await asyncio.sleep(0.1)
        assert facts[0].end >= 3000
        for name in ("s2", "s3"):
            cluster.kill(name)
        first = []
        async for event in journal.read("s"):
            first.append(event.payload)
            if len(first) == facts[0].end:
                break
    assert first == acknowledged[: facts[0].end]
    assert "handshake_failed" not in cluster.log("s1") + cluster.log("s2") + cluster.log("s3")


async def held_by(cluster, name):
    """What a server says that it holds."""
    network = TlsNetwork(TcpNetwork(), client_contexts(cluster.authority.file))
    hello = Hello(codec.VERSION_MIN, codec.VERSION_MAX, "", "client", "test", bytes(16), bytes(16))
    address = (HOST, cluster.ports[name])
    try:
        connection = await dial(SystemRuntime(network), address, hello, Handler())
        try:
            return (await connection.request(DescribeServer(), timeout=PATIENCE_S)).facts
        finally:
            connection.close()
    except AvailabilityError:
        return ()  # it starts


def test_servers_that_the_master_runs_are_under_tls_and_change_over_with_it(cluster):
    cluster.start("master", "--servers", "2")
    cluster.command.url = cluster.url
    cluster.until_alive(2)
    pids = {row["name"]: row["pid"] for row in cluster.servers()}
    cluster.kill("master")
    cluster.start("master", "--servers", "2")
    cluster.until_alive(2)
    # Adopted as they are; a server may register before its process is found.
    until(lambda: {row["name"]: row["pid"] for row in cluster.servers()} == pids)
    cluster.command.ok("create", "s", "--replicas", "2", "--ack-quorum", "2")
    cluster.command.ok("append", "s", given=b"mine\n")

    cluster.stop("master")
    plain = Cluster(cluster.home)
    plain.ports = cluster.ports
    try:
        plain.start("master", "--servers", "2")
        plain.command.url = plain.url
        plain.until_alive(2)
        assert plain.command.ok("read", "s") == b"mine\n"
        assert not set(pids.values()) & {row["pid"] for row in plain.servers()}
    finally:
        plain.command.run("servers", "scale", "0")
        plain.end()
        for pid_file in (cluster.home / "master" / "servers").glob("*/server.pid"):
            kill_owner(pid_file)


def kill_owner(pid_file):
    owner = live_owner(pid_file)
    if owner is not None:
        owner.send(signal.SIGKILL)


async def test_handshakes_that_never_come_are_ended_and_nobody_waits_for_them(cluster):
    cluster.up(1)
    ports = [cluster.ports["s1"], cluster.ports["master"]]
    idle = [await asyncio.open_connection(HOST, port) for port in ports * 20]
    acknowledged = []
    async with cluster.connect("a") as journal:
        await journal.create_stream("s", replicas=1, ack_quorum=1)
        async with journal.lead("s", timeout=PATIENCE_S) as writer:
            await append_for(writer, acknowledged, 1000)
        assert await read_all(journal, "s") == acknowledged
    for reader, writer in idle:
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        writer.close()
    assert "no TLS handshake within 5 s" in cluster.log("s1")


def test_the_certificates_that_operations_makes_are_taken(cluster, monkeypatch):
    if shutil.which("openssl") is None:
        cannot_run("there is no openssl")
    block = re.search(r"^```sh\n(.*?openssl.*?)^```", OPERATIONS.read_text(), re.M | re.S)
    subprocess.run(["sh", "-ec", block[1]], cwd=cluster.home, check=True, capture_output=True)
    monkeypatch.chdir(cluster.home)
    cluster.options = ("--tls-certificate", "node.pem", "--tls-key", "node.key")
    cluster.options += ("--tls-authority", "ca.pem")
    cluster.start("master")
    cluster.command.url = f"lunalogs://localhost:{cluster.ports['master']}?ca=ca.pem"
    until(lambda: cluster.command.run("ls").code == 0)


# -------------------------------------------------------------------- clients that are refused


async def code_of(url, **options):
    with pytest.raises(LunalogError) as caught:
        await SingleWriteJournal.connect(url, **options)
    return caught.value.code, str(caught.value)


async def test_what_is_wrong_between_a_client_and_a_cluster_is_told(cluster, tmp_path, monkeypatch):
    cluster.up(0)
    where = cluster.masters

    assert (await code_of(f"lunalog://{where}"))[0] == "tls_mismatch"
    code, why = await code_of(f"lunalogs://{where}")
    assert (code, "the system's trust store" in why) == ("untrusted_peer", True)
    other = Authority(tmp_path / "other")
    code, why = await code_of(f"lunalogs://{where}?ca={other.file}")
    assert (code, other.file in why) == ("untrusted_peer", True)
    code, why = await code_of(f"lunalogs://localhost.localdomain:1,{where}?ca=none.pem")
    assert (code, "none.pem" in why) == ("bad_certificate", True)

    monkeypatch.setenv("LUNALOG_CA", cluster.authority.file)
    async with SingleWriteJournal.connect(f"lunalogs://{where}") as journal:
        assert [s async for s in journal.list_streams()] == []

    done = Command(f"lunalog://{where}").run("ls", "-o", "json")
    assert (done.code, json.loads(done.err)["error"]) == (1, "tls_mismatch")
    assert "Traceback" not in cluster.log("master")


async def test_a_name_that_the_certificate_does_not_have_is_told(tmp_path, authority):
    elsewhere = authority.issue("journal.example", name="elsewhere")
    cluster = TlsCluster(tmp_path, authority, elsewhere.options(authority.file))
    try:
        cluster.start("master")  # which may be dialled by another name than its `host`
        code, why = await wait_for(cluster, "untrusted_peer")
        assert (code, f"is not for {HOST}" in why) == ("untrusted_peer", True)
    finally:
        cluster.end()


async def wait_for(cluster, code):
    async with asyncio.timeout(PATIENCE_S):
        while (found := await code_of(cluster.url, timeout=1))[0] != code:
            await asyncio.sleep(0.1)
    return found


async def test_a_certificate_that_expired_while_its_node_ran_is_told(authority):
    """Played by another program's TLS, which starts with such a thing."""
    old = authority.expired(HOST)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(old.certificate, old.key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), HOST, 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    code, why = await code_of(f"lunalogs://{HOST}:{port}?ca={authority.file}")
    server.close()
    assert (code, "has expired" in why) == ("untrusted_peer", True)


async def test_a_plain_cluster_tells_a_tls_client(tmp_path, authority):
    plain = Cluster(tmp_path)
    try:
        plain.up(0)
        code, why = await code_of(f"lunalogs://{plain.masters}?ca={authority.file}")
        assert (code, "use lunalog://" in why) == ("tls_mismatch", True)
    finally:
        plain.end()


def test_another_program_can_talk_to_a_node(cluster):
    """The bytes are those of docs/wire.md, under anybody's TLS."""
    cluster.up(0)
    context = ssl.create_default_context(cafile=cluster.authority.file)
    with (
        socket.create_connection((HOST, cluster.ports["master"])) as raw,
        context.wrap_socket(raw, server_hostname=HOST, suppress_ragged_eofs=False) as link,
    ):
        assert link.version() == "TLSv1.3"
        link.sendall(b"GET / HTTP/1.1\r\n\r\n")
        answer = link.recv(4096)
        assert codec.parse_envelope(answer, 0, is_open=True)[1] == codec.Kind.ERROR
        assert b"corrupt_frame" in answer
        assert link.recv(4096) == b"", "the end is told, too"


# ---------------------------------------------------------------------- nodes that do not start


def test_what_keeps_a_node_under_tls_from_starting_is_told(cluster, tmp_path, authority, issued):
    server = ("server", "--data", str(tmp_path / "data"), "--masters", f"{HOST}:{free_port()}")
    master = ("master", "--data", str(tmp_path / "data"), "--port", str(free_port()))
    other, old = authority.issue(HOST, name="other"), authority.expired(HOST)
    elsewhere = authority.issue("journal.example", name="elsewhere")
    stranger = Authority(tmp_path / "stranger").file
    for node in (server, master):
        for options, words in (
            (("--tls-certificate", "/none/c.pem"), "cannot read the certificate '/none/c.pem'"),
            ((*issued.options(), "--tls-authority", "/none/ca"), "the authority '/none/ca'"),
            (("--tls-key", issued.key), "need a tls_certificate"),
            (("--tls-certificate", issued.certificate, "--tls-key", other.key), "belong together"),
            (old.options(authority.file), "has expired"),
            (issued.options(stranger), "is not signed by who is trusted here"),
        ):
            code, why = refused(cluster, *node, *options)
            assert (code, words in why) == (2, True), why
    code, why = refused(cluster, *server, *elsewhere.options(authority.file))
    assert (code, f"is not for {HOST}" in why) == (2, True), why
    assert not (tmp_path / "data").exists(), "nothing was started"


def test_a_server_and_a_master_of_different_kinds_keep_telling(cluster, tmp_path):
    """Nothing falls back, and once both are of one kind they find each other."""
    cluster.ports["master"] = free_port()
    cluster.start("s1")
    Cluster.start(cluster, "master")  # in plain
    until(lambda: "does not speak TLS" in cluster.log("s1"))
    cluster.kill("master")
    cluster.start("master")
    cluster.command.url = cluster.url
    cluster.until_alive(1)
    plain = Cluster(cluster.home)
    plain.ports = cluster.ports
    try:
        plain.start("s2")
        until(lambda: "this port speaks TLS only" in cluster.log("s2"))
    finally:
        plain.end()
