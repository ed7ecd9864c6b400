"""Drives Redis by bare sockets: HOST:PORT STREAM WARM SECONDS.

What is sent is made once, what comes back is parsed by hiredis: no client spends less.  A round on a
connection is many XADD and one WAIT, which answers when a replica has them all; Redis reads only some
16 KiB of a connection at a time and syncs once a turn, so it takes many connections to fill a turn.
"""

from __future__ import annotations

import selectors
import socket

import hiredis
import work

CONNECTIONS = 32
PER_ROUND = {100: 200, 1024: 50}


def command(*words: bytes) -> bytes:
    """A command as it travels."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


class Connection:
    """One connection with one round in flight."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = hiredis.Reader()

    def send(self, sent: bytes, replies: int) -> None:
        """Send what will be answered by so many replies."""
        self.left = replies
        self.socket.sendall(sent)

    def receive(self) -> bool:
        """Take what has come; true when the round is complete."""
        got = self.socket.recv(1 << 16)
        if not got:
            raise SystemExit("the server has closed a connection")
        self.reader.feed(got)
        while self.left and (reply := self.reader.gets()) is not False:
            if isinstance(reply, Exception):
                raise SystemExit(f"refused: {reply}")
            self.left -= 1
            if not self.left and reply < 1:  # the last one is WAIT's
                raise SystemExit("no replica has it")
        return not self.left

    def ask(self, sent: bytes) -> None:
        """Send a round and wait for it."""
        self.send(sent, 2)
        while not self.receive():
            pass


def window(address: tuple[str, int], stream: bytes, size: int, spans: work.Spans) -> int:
    """Keep every connection busy."""
    clock, acked, many = work.Window(size, spans), 0, PER_ROUND[size]
    sent = command(b"XADD", stream, b"*", b"e", work.event(size)) * many
    sent += command(b"WAIT", b"1", b"0")
    with selectors.DefaultSelector() as selector:
        busy = [Connection(address) for _ in range(CONNECTIONS)]
        for connection in busy:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(sent, many + 1)
        in_flight = len(busy)
        while in_flight:
            for key, _ in selector.select():
                connection = key.data
                if not connection.receive():
                    continue
                acked += many
                clock.tick(acked)
                if clock.goes_on:
                    connection.send(sent, many + 1)
                else:
                    in_flight -= 1
        for connection in busy:
            connection.socket.close()
    clock.show()
    return acked


def main() -> None:
    where, name, spans, _ = work.words()
    host, port = where.split(":")
    address, stream = (host, int(port)), name.encode()
    one, lone = Connection(address), work.Lone(spans)
    append = command(b"XADD", stream, b"*", b"e", work.event(work.LONE_BYTES))
    append += command(b"WAIT", b"1", b"0")
    while lone.goes_on:
        one.ask(append)
        lone.done()
    acked = lone.show()
    for size in work.SIZES:
        acked += window(address, stream, size, spans)
    one.socket.sendall(command(b"XLEN", stream))
    while (held := one.reader.gets()) is False:
        one.reader.feed(one.socket.recv(1 << 16))
    work.row(test="kept", acked=acked, held=held)


if __name__ == "__main__":
    main()
