"""A master and servers as processes, started one by one, and what a client finds on them."""

from __future__ import annotations

import asyncio
import json
import subprocess

from command import Command

from lunalog import SingleWriteJournal
from lunalog.config import ClientConfig
from ports import free_port
from processes import PATIENCE_S, until

CONFIG = ClientConfig(
    connect_timeout_ms=80_000, operation_timeout_ms=80_000, leader_stall_ms=80_000
)


class Cluster:
    """A master and servers, started by hand as an operator does; all are killed at the end."""

    def __init__(self, home):
        self.home = home
        self.command = Command()
        self.processes = {}
        self.ports = {}

    def start(self, name, *more):
        """Start the master or a server on its own directory and port, again or for the first time."""
        port = str(self.ports.setdefault(name, free_port()))
        arguments = ["--data", str(self.home / name), "--port", port, *more]
        if name == "master":
            arguments = ["master", *arguments]
        else:
            arguments = ["server", "--name", name, "--masters", self.masters, *arguments]
        log = (self.home / f"{name}.log").open("ab")
        with log:
            child = self.command.start(*arguments, stdin=subprocess.DEVNULL, stderr=log)
        child.stdout.close()
        self.processes[name] = child
        return child

    @property
    def masters(self):
        return f"127.0.0.1:{self.ports['master']}"

    @property
    def url(self):
        return f"lunalog://{self.masters}"

    def connect(self, peer):
        return SingleWriteJournal.connect(self.url, peer=peer, config=CONFIG)

    def up(self, servers=3):
        """Start all, and wait until the master answers and has so many servers."""
        self.start("master")
        for n in range(1, servers + 1):
            self.start(f"s{n}")
        self.command.url = self.url
        self.until_alive(servers)
        return self

    def until_alive(self, count):
        def are_alive():
            rows = self.servers()
            return rows is not None and sum(row["state"] == "alive" for row in rows) >= count

        until(are_alive)

    def servers(self):
        """What the master knows of them; none while it does not answer."""
        done = self.command.run("servers", "ls", "-o", "json")
        return json.loads(done.out) if done.code == 0 else None

    def stop(self, name):
        """End one in an orderly way."""
        self.processes[name].terminate()
        assert self.processes[name].wait(PATIENCE_S) == 0, self.log(name)

    def kill(self, name):
        self.processes[name].kill()
        self.processes[name].wait(PATIENCE_S)

    def log(self, name):
        return (self.home / f"{name}.log").read_text()

    def end(self):
        for child in self.processes.values():
            child.kill()
            child.wait(PATIENCE_S)


async def read_all(journal, stream):
    events = [e async for e in journal.read(stream, start=0, linearizable=True)]
    assert [e.sequence for e in events] == list(range(len(events)))
    return [e.payload for e in events]


async def append_for(writer, acknowledged, wanted):
    """Append `wanted` more events, a few in flight, and note the payload of each that is acked."""
    pending = []
    end = len(acknowledged) + wanted
    number = len(acknowledged)
    while len(acknowledged) < end:
        while len(pending) < 64 and number < end:
            payload = b"%d" % number
            pending.append((payload, writer.append_soon(payload)))
            number += 1
        payload, future = pending.pop(0)
        await future
        acknowledged.append(payload)


async def follow(journal, moments):
    """Follow the stream "s", and at each count of events (in order) do something; returns the last."""
    following, seen = journal.read("s", start=0, follow=True), 0
    async for _ in following:
        seen += 1
        if seen in moments:
            moments[seen]()
        if seen == max(moments):
            break
    await following.aclose()
    return seen


async def next_leads(journal, seen):
    """Lead "s" behind one that appended its numbers and died: what was seen is kept, and it goes on."""
    async with journal.lead("s", timeout=PATIENCE_S) as writer:
        tail = writer.tail
        assert tail >= seen
        assert await writer.append(b"next") == tail
    assert await read_all(journal, "s") == [b"%d" % n for n in range(tail)] + [b"next"]


async def grown(acknowledged, count):
    """Wait until so many are acknowledged."""
    async with asyncio.timeout(PATIENCE_S):
        while len(acknowledged) < count:
            await asyncio.sleep(0.001)


def refused(cluster, *arguments, **more):
    """Run a node that must not start; returns its code and its one line of error."""
    done = cluster.command.run(*arguments, **more)
    assert "Traceback" not in done.err
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done
    return done.code, errors[0]
