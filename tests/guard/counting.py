"""Count instead of timing: calls, instructions, blocks of memory, bytes at the peak.

A count is the same on every machine, however busy it is; what a timer adds to one round is left out by
taking the least of several.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import lunalog

SOURCE = str(Path(lunalog.__file__).parent)
WIRE_IN_MEMORY = str(Path(SOURCE) / "wire" / "memory.py")
ROUNDS = 3


TOOL = 4
"""A free number among those that watch an interpreter."""


def _is_ours(code: CodeType) -> bool:
    name = code.co_filename
    return name.startswith(SOURCE) and name != WIRE_IN_MEMORY


def planted(source: str, name: str, **names: Any) -> Any:
    """Return the function `name` of some code that counts as the package's own: for slowdowns."""
    space = dict(names)
    exec(compile(source, str(Path(SOURCE) / "planted.py"), "exec"), space)
    return space[name]


class Calls:
    """`with Calls() as calls`: what the package calls meanwhile, of itself and of others.

    A call is one entry of a Python function, or of a function written in C that Python code calls;
    what the latter does inside (`map(len, ...)`) costs none.  The network in memory, which stands in
    for sockets, does not count.
    """

    def __init__(self) -> None:
        self.by_name: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self.by_name.total()

    def __enter__(self) -> Calls:
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _seen(self, frame: FrameType, event: str, what: Any) -> None:
        if event == "call":
            caller = frame.f_back
            if _is_ours(frame.f_code) or (caller is not None and _is_ours(caller.f_code)):
                self.by_name[frame.f_code.co_qualname] += 1
        elif event == "c_call" and _is_ours(frame.f_code):
            self.by_name[what.__qualname__] += 1


class Instructions:
    """`with Instructions() as steps`: bytecode instructions that the package executes meanwhile.

    A loop that calls nothing shows here, and only here.
    """

    def __init__(self) -> None:
        self.total = 0

    def __enter__(self) -> Instructions:
        if sys.version_info >= (3, 12):  # tracers no longer hear of every instruction
            monitoring = sys.monitoring
            monitoring.use_tool_id(TOOL, "guards")
            monitoring.register_callback(TOOL, monitoring.events.INSTRUCTION, self._monitored)
            monitoring.restart_events()
            monitoring.set_events(TOOL, monitoring.events.INSTRUCTION)
        else:
            self._before = sys.gettrace()
            sys.settrace(self._entered)
        return self

    def __exit__(self, *_: object) -> None:
        if sys.version_info >= (3, 12):
            sys.monitoring.set_events(TOOL, 0)
            sys.monitoring.free_tool_id(TOOL)
        else:
            sys.settrace(self._before)

    def _monitored(self, code: CodeType, offset: int) -> Any:
        if not _is_ours(code):
            return sys.monitoring.DISABLE  # type: ignore[attr-defined]
        self.total += 1
        return None

    def _entered(self, frame: FrameType, event: str, what: Any) -> Any:
        if not _is_ours(frame.f_code):
            return None
        frame.f_trace_opcodes = True
        return self._stepped

    def _stepped(self, frame: FrameType, event: str, what: Any) -> Any:
        self.total += event == "opcode"
        return self._stepped


async def least(
    kind: type[Calls] | type[Instructions],
    once: Callable[..., Awaitable[object]],
    prepare: Callable[[], object] = lambda: None,
) -> int:
    """Count `once(prepare())`, the least of a few rounds behind one that is not counted."""
    await once(prepare())
    found = []
    for _ in range(ROUNDS):
        prepared = prepare()
        with kind() as counted:
            await once(prepared)
        found.append(counted.total)
    return min(found)


class Held:
    """`with Held() as held`: blocks of Python's allocator, with the collector at rest."""

    def __enter__(self) -> Held:
        gc.collect()
        gc.disable()
        self._before = sys.getallocatedblocks()
        return self

    def __exit__(self, *_: object) -> None:
        gc.enable()

    @property
    def blocks(self) -> int:
        """Held now beyond those at the start."""
        return sys.getallocatedblocks() - self._before


class Traced:
    """`with Traced() as traced`: bytes allocated within; what is held still, and the most at once."""

    held = 0
    peak = 0

    def __enter__(self) -> Traced:
        gc.collect()
        tracemalloc.start(1)
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    def now(self) -> int:
        """Bytes held now."""
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self._before

    def __exit__(self, *_: object) -> None:
        self.peak = tracemalloc.get_traced_memory()[1] - self._before
        self.held = self.now()
        tracemalloc.stop()
