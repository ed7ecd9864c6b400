"""Which lines of its modules a target executes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.harness import Target

Line = tuple[str, int]


def _files(target: Target) -> dict[str, str]:
    return {str(importlib.import_module(name).__file__): name for name in target.modules}


def lines_of(target: Target, data: bytes) -> set[Line]:
    """The lines that one input reaches; what is wrong with it is for others to say."""
    files, reached = _files(target), set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        name = files.get(frame.f_code.co_filename)
        if name is None:
            return None
        if event == "line":
            reached.add((name, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        target.run(data)
    except AssertionError:
        pass
    finally:
        sys.settrace(before)
    return reached


def cost_of(target: Target, data: bytes) -> int:
    """How many lines of the product one input makes Python execute, each time counted."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if "lunalog" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        target.run(data)
    finally:
        sys.settrace(before)
    return count


def _bodies(code: CodeType) -> Iterable[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_flags & 0x2:  # a function, not a class body
                yield constant
            yield from _bodies(constant)


def measure(target: Target, inputs: Iterable[bytes]) -> tuple[int, int]:
    """Lines reached by `inputs`, of all that the functions of the target's modules have."""
    whole: set[Line] = set()
    for path, name in _files(target).items():
        with open(path) as file:
            module = compile(file.read(), path, "exec")
        for code in _bodies(module):
            firsts = {line for _, _, line in code.co_lines() if line is not None}
            whole |= {(name, line) for line in firsts - {code.co_firstlineno}}
    reached: set[Line] = set()
    for data in inputs:
        reached |= lines_of(target, data)
    return len(reached & whole), len(whole)
