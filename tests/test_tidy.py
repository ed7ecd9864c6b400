"""What no linter looks at: sizes, leftovers, and that every room has its tests."""

import ast
import re
import subprocess
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
PACKAGE = HOME / "src" / "lunalog"
UNIT = HOME / "tests" / "unit"
TEXT = {".py", ".md", ".toml", ".txt", ".json", ".sh", ".yml", ".yaml", ".cfg", ""}

FILE_LINES_MAX = 500
TEST_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
TO_SPLIT: dict[str, int] = {}
"""Files past the limit, and what they may have until they are split; none is added here."""
UNTESTED: set[str] = set()
"""Rooms that only tests of whole clusters touch so far; none is added here."""
LEFTOVERS = re.compile(
    r"\b(?:TOD[O]|FIXM[E]|XX[X]|HAC[K])\b"  # the brackets keep this file from finding itself
    r"|^(?:<{7}|>{7}) "
    r"|(?<![\w.])/(?:work|root|home)/"  # somebody's machine
)


def committed() -> list[Path]:
    """Files of the repository; of the rooms, where there is no git."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "-z"], cwd=HOME, capture_output=True, check=True
        )
        names = listed.stdout.decode().split("\0")
        found = [HOME / name for name in names if name]
    except (OSError, subprocess.CalledProcessError):
        found = []
    if not found:
        rooms = ("src", "tests", "docs", "examples", "bench")
        found = [path for room in rooms for path in (HOME / room).rglob("*")]
        found = [path for path in found if "__pycache__" not in path.parts]
    return sorted(path for path in found if path.is_file() and path.suffix in TEXT)


FILES = committed()
SOURCES = [path for path in FILES if path.suffix == ".py" and path.is_relative_to(PACKAGE)]
MODULES = [path for path in FILES if path.suffix == ".py"]
TESTS = [path for path in MODULES if path.name.startswith("test_")]
ROOMS = sorted({path.relative_to(PACKAGE).parts[0] for path in SOURCES})


def short(path: Path) -> str:
    return str(path.relative_to(HOME))


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_there_is_something_to_look_at():
    assert len(SOURCES) > 50
    assert len(TESTS) > 20


def test_no_source_file_is_too_long():
    long = {short(path): lines(path) for path in SOURCES}
    found = {path: n for path, n in long.items() if n > TO_SPLIT.get(path, FILE_LINES_MAX)}
    assert found == {}


def test_no_test_file_is_too_long():
    long = {short(path): lines(path) for path in MODULES if path not in SOURCES}
    found = {path: n for path, n in long.items() if n > TO_SPLIT.get(path, TEST_LINES_MAX)}
    assert found == {}


def test_no_function_of_the_source_is_too_long():
    long = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > FUNCTION_LINES_MAX:
                    long[f"{short(path)}:{node.lineno} {node.name}"] = size
    assert long == {}


def test_nothing_was_left_behind():
    found = [
        f"{short(path)}:{number}: {line.strip()}"
        for path in FILES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if LEFTOVERS.search(line)
    ]
    assert found == []


def test_every_module_says_what_it_is():
    silent = [
        short(path)
        for path in MODULES
        if "yardstick" not in path.parts and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []


def test_every_room_has_unit_tests():
    """A package has a directory of tests, a module of the top a file, or a word why not."""
    elsewhere = {
        "__init__.py": "test_exports.py",
        "__main__.py": "cli/test_main.py",
        "limits.py": "wire/test_codec.py",  # numbers only: tested where they bind
    }
    for room in ROOMS:
        if (PACKAGE / room).is_dir():
            has_tests = any((UNIT / room).glob("test_*.py"))
            assert has_tests or room in UNTESTED, f"no tests of {room}"
        else:
            name = elsewhere.get(room, f"test_{room}")
            assert (UNIT / name).is_file(), f"no tests of {room}"


def test_every_unit_test_is_in_a_room_that_exists():
    for path in TESTS:
        if path.is_relative_to(UNIT) and path.parent != UNIT:
            assert path.relative_to(UNIT).parts[0] in ROOMS, short(path)


def test_every_test_file_has_a_test_and_every_test_is_collected():
    """`test_*.py` holds tests, and no other file does."""
    for path in MODULES:
        if not path.is_relative_to(HOME / "tests"):
            continue
        tree = ast.parse(path.read_text())
        has_tests = any(
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name.startswith("test_")
            for node in ast.walk(tree)
        ) or any(
            isinstance(node, ast.Assign) and ".TestCase" in ast.unparse(node) for node in tree.body
        )
        assert has_tests == path.name.startswith("test_"), short(path)


def test_no_unit_test_sleeps():
    """They wait for events, or on simulated time."""
    slow = []
    for path in MODULES:
        if not path.is_relative_to(HOME / "tests" / "unit"):
            continue
        slow += [
            f"{short(path)}: time.sleep"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep"
        ]
    assert slow == []
