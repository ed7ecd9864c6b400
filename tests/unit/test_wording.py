"""Why nobody can be reached, and where, in words that people can use."""

import asyncio
import errno
import socket
import ssl

import pytest
import uvloop

from lunalog.runtime import TcpNetwork
from lunalog.wording import plainly, shown


@pytest.mark.parametrize("loop_of", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("127.0.0.1", "nothing listens there"),
        ("localhost", "nothing listens there"),
        ("nobody.invalid", "there is no host of that name|no name server answers"),
    ],
)
def test_why_nobody_can_be_reached_is_said_in_words(loop_of, host, words):
    """Each loop has numbers, brackets and addresses of its own."""

    async def dial():
        listener = await TcpNetwork().listen(asyncio.Protocol, ("127.0.0.1", 0))
        port = listener.address[1]
        await listener.close()
        with pytest.raises(OSError) as refused:  # noqa: PT011  its words are what is looked at
            await TcpNetwork().connect(asyncio.Protocol, (host, port))
        return plainly(refused.value)

    with asyncio.Runner(loop_factory=loop_of) as runner:
        assert runner.run(dial()) in words.split("|")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EACCES, "x", "/var"), "Permission denied"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "the other side broke it off"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 111] C"),
         "nothing listens there"),
        (OSError("Multiple exceptions: [Errno 111] a, [Errno 101] b"),
         "Network is unreachable, nothing listens there"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "no name server answers"),
        (socket.gaierror(socket.EAI_FAMILY, "ai_family not supported"), "ai_family not supported"),
        (OSError("('\\0', 1) is no address"), "('\\0', 1) is no address"),
        (ValueError("as it is"), "as it is"),
        (ssl.SSLError(1, "[SSL: DECRYPTION_FAILED] bad record mac"),
         str(ssl.SSLError(1, "[SSL: DECRYPTION_FAILED] bad record mac"))),
    ],
)  # fmt: skip
def test_errors_of_the_system_are_said_in_words(error, words):
    assert plainly(error) == words


def test_addresses_are_shown_so_that_they_can_be_typed():
    assert shown(("10.0.0.1", 7600)) == "10.0.0.1:7600"
    assert shown(("::1", 7600)) == "[::1]:7600"
