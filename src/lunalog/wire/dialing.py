"""Making connections: by dialling, or by accepting who dials.

Source: docs/wire.md; N5, H1.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

from lunalog.errors import (
    AvailabilityError,
    CorruptFrameError,
    ServerUnavailableError,
    TlsMismatchError,
    UsageError,
)
from lunalog.runtime import Address, Runtime
from lunalog.wire.connection import HANDSHAKE_TIMEOUT_S, Connection, Handler
from lunalog.wire.messages import Hello, Welcome
from lunalog.wire.room import Room
from lunalog.wording import plainly, shown


async def dial(
    runtime: Runtime,
    address: Address,
    hello: Hello,
    handler: Handler,
    *,
    timeout: float = HANDSHAKE_TIMEOUT_S,
    unreachable: type[AvailabilityError] = ServerUnavailableError,
) -> Connection:
    """Connect to `address` and shake hands.

    Raises:
        AvailabilityError: Of type `unreachable`: nobody answers there, or not in `timeout` seconds.
        LunalogError: What the other side refused us with (wrong cluster, version, ...).
    """
    connection = Connection(runtime, handler, greet=lambda: hello, unreachable=unreachable)
    opened = connection.opened = asyncio.get_running_loop().create_future()
    try:
        async with asyncio.timeout(timeout):
            await runtime.network.connect(lambda: connection, address)
            await opened
    except TimeoutError:
        connection.abort()
        raise unreachable(f"no answer from {shown(address)} within {timeout:g} s") from None
    except OSError as error:
        raise unreachable(f"cannot reach {shown(address)}: {plainly(error)}") from error
    except CorruptFrameError as error:
        raise CorruptFrameError(
            f"what answers at {shown(address)} does not speak lunalog ({error}); "
            "nothing was changed: check the address"
        ) from error
    except TlsMismatchError as error:
        raise TlsMismatchError(f"{shown(address)}: {error}") from error
    except asyncio.CancelledError:
        connection.abort()
        raise
    finally:
        if opened.done() and not opened.cancelled():
            opened.exception()  # seen
    return connection


def cannot_listen(address: Address, error: OSError) -> UsageError:
    """Say that nobody may listen there, and what to try."""
    instead = (
        "choose another --port, or end the process that listens there"
        if error.errno == errno.EADDRINUSE
        else "choose another --host or --port"
    )
    return UsageError(
        f"cannot listen on {shown(address)}: {plainly(error)}; nothing was started; {instead}"
    )


def acceptor(
    runtime: Runtime, welcome: Callable[[Hello], tuple[Welcome, Handler]]
) -> Callable[[], Connection]:
    """Return a factory for `Network.listen`, whose connections share the room for large messages.

    `welcome` looks at the dialler's Hello and returns the answer and who handles the connection, or
    raises the `LunalogError` to refuse it with.
    """
    room = Room()

    def make() -> Connection:
        return Connection(runtime, Handler(), welcome=welcome, room=room)

    return make
