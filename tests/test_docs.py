"""The pages say what the code says: settings, errors, exit codes, commands, messages, rules, links."""

import dataclasses
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lunalog import config
from lunalog.cli import exits
from lunalog.cli.main import root_command
from lunalog.errors import LunalogError
from lunalog.orchestrator.base import LEFT_EXIT_CODE
from lunalog.storage import records
from lunalog.testing import Trial
from lunalog.testing.nemesis import all_kinds
from lunalog.wire import codec, messages

HOME = Path(__file__).resolve().parent.parent
DOCS = HOME / "docs"
PAGES = sorted([*HOME.glob("*.md"), *DOCS.rglob("*.md")])
SOURCES = sorted(
    path
    for room in ("src", "tests", "examples")
    for path in (HOME / room).rglob("*.py")
    if path != Path(__file__).resolve()
)
ERRORS = {
    code: kind
    for code, kind in LunalogError.by_code.items()
    if kind.__module__.startswith("lunalog.")  # tests make errors of their own
}
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
ROLES = {
    "Master": config.MasterConfig,
    "Journal server": config.ServerConfig,
    "Client": config.ClientConfig,
}


def page(name: str) -> str:
    return (DOCS / name).read_text()


def section(text: str, title: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}$", text, re.M)
    assert found, f"no heading {title!r}"
    rest = text[found.end() :]
    following = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.M)
    return rest[: following.start()] if following else rest


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables of a text; `\\|` is no border."""
    found = []
    for line in text.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            found.append([cell.strip() for cell in cells])
    return found


def names(text: str) -> list[str]:
    """The first cells that are code."""
    return [row[0].strip("`") for row in rows(text) if row[0].startswith("`")]


# ------------------------------------------------------------------------- operations.md


def shown(value: object) -> object:
    """What a default of a setting is once it is read from the page."""
    text = str(value).strip("`")
    amount, _, unit = text.partition(" ")
    if unit in UNITS:
        return int(amount) * UNITS[unit]
    return {"empty": "", "none": "None"}.get(text, text)


@pytest.mark.parametrize("role", ROLES)
def test_each_setting_stands_in_operations_with_its_default(role):
    table = rows(section(page("operations.md"), role))
    told = {row[0].strip("`"): shown(row[1]) for row in table if row[0].startswith("`")}
    fields = dataclasses.fields(ROLES[role])
    assert list(told) == [field.name for field in fields]
    for field in fields:
        default = "" if field.default == () else field.default
        assert str(told[field.name]) == str(default), field.name


def test_each_error_stands_in_operations_and_no_other():
    told = names(section(page("operations.md"), "Errors"))
    assert sorted(told) == sorted(ERRORS)


def test_what_is_known_of_the_effect_is_what_the_error_claims():
    for row in rows(section(page("operations.md"), "Errors")):
        if row[0].startswith("`"):
            kind = ERRORS[row[0].strip("`")]
            if kind.maybe_applied:
                assert row[2] == "perhaps", row[0]


def exit_codes() -> set[int]:
    own = {value for name, value in vars(exits).items() if name.isupper() and type(value) is int}
    errors = {kind.exit_code for kind in ERRORS.values()}
    signals = {exits.INTERRUPTED, exits.BROKEN_PIPE}
    return (own | errors | {LEFT_EXIT_CODE}) - signals


@pytest.mark.parametrize("name", ["operations.md", "cli.md"])
def test_each_exit_code_is_told_and_no_other(name):
    table = rows(section(page(name), "Exit codes"))
    told = {int(row[0]) for row in table if row[0].isdigit()}
    assert told == exit_codes()
    last = table[-1]
    assert last[0] == "128 + N"
    assert str(exits.INTERRUPTED) in last[1]
    assert str(exits.BROKEN_PIPE) in last[1]


# --------------------------------------------------------------------------- embedded.md


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_of_embedded_run_as_they_stand(number):
    blocks = re.findall(r"^```python\n(.*?)^```", page("embedded.md"), re.M | re.S)
    assert len(blocks) == 2
    found = subprocess.run([sys.executable, "-c", blocks[number]], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


# ------------------------------------------------------------------------- simulating.md


def test_the_code_of_simulating_is_that_of_the_example():
    blocks = re.findall(r"^```python\n(.*?)^```", page("simulating.md"), re.M | re.S)
    example = (HOME / "examples" / "test_counter.py").read_text()
    assert blocks
    assert all(block in example for block in blocks)


def test_each_option_and_method_of_a_trial_stands_in_simulating_and_no_other():
    options = inspect.signature(Trial).parameters
    told = {row[0].strip("`") for row in rows(section(page("simulating.md"), "Options"))[2:]}
    assert {name for name in told if name.isidentifier()} == {*options, "seeds"} - {"seed"}
    cells = [row[0] for row in rows(section(page("simulating.md"), "What a trial does"))[2:]]
    methods = {found for cell in cells for found in re.findall(r"`(\w+)", cell)}
    assert methods == {name for name in vars(Trial) if not name.startswith("_")}


def test_each_option_of_the_plugin_stands_in_simulating(pytestconfig):
    known = {name for name in vars(pytestconfig.option) if name.startswith("lunalog_")}
    table = section(page("simulating.md"), "Options")
    told = {name.replace("-", "_") for name in re.findall(r"`--(lunalog-[a-z-]+)", table)}
    assert told == known - {"lunalog_trace_to"}  # how the plugin talks to its second run


# -------------------------------------------------------------------------------- cli.md


def commands(group: click.Group, before: str = "") -> Iterator[str]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def commands_told(cell: str, known: set[str]) -> Iterator[str]:
    """Commands of one cell: `dev up`, `down` names two of the group `dev`."""
    group = ""
    for code in re.findall(r"`([^`]+)`", cell):
        words = code.split()
        for command in (" ".join(words[:2]), words[0], f"{group} {words[0]}"):
            if command in known:
                group = words[0] if command == " ".join(words[:2]) else group
                yield command
                break
        else:
            yield code


def test_each_command_stands_in_cli_and_no_other():
    known = set(commands(root_command))
    table = rows(section(page("cli.md"), "Commands"))[2:]
    assert {told for row in table for told in commands_told(row[0], known)} == known


def test_each_option_of_every_command_stands_in_cli():
    table = section(page("cli.md"), "Options of every command")
    for option in root_command.params:
        if option.name not in ("version", "help"):
            assert any(f"`{name}" in table or f" {name}" in table for name in option.opts), option


# ------------------------------------------------------------------------------- wire.md


def structs_of(union: object) -> list[type]:
    return list(typing.get_args(union))


def fields_told(cell: str) -> list[str]:
    """Names at the beginning of each `;` part."""
    return [found[1] for part in cell.split("; ") if (found := re.match(r"`(\w+)`", part))]


@pytest.mark.parametrize("kind", structs_of(messages.Message), ids=lambda kind: kind.__name__)
def test_each_message_stands_in_wire_with_its_tag_and_fields(kind):
    table = {row[1]: row for row in rows(page("wire.md")) if len(row) == 4}
    row = table[f"`{kind.__name__}`"]
    assert row[0] == str(kind.__struct_config__.tag)
    assert fields_told(row[2]) == list(kind.__struct_fields__)


def nested(kinds: list[type]) -> set[type]:
    """Structs without a tag that travel inside others."""
    found: set[type] = set()
    todo: list[object] = list(kinds)
    while todo:
        each = todo.pop()
        todo += typing.get_args(each)
        if isinstance(each, type) and hasattr(each, "__struct_fields__") and each not in found:
            found.add(each)
            todo += typing.get_type_hints(each).values()
    return {kind for kind in found if kind.__struct_config__.tag is None}


def test_each_record_inside_messages_stands_in_wire_with_its_fields():
    text = section(page("wire.md"), "Records inside messages")
    told = {row[0].strip("`"): fields_told(row[1]) for row in rows(text)[2:]}
    inside = nested(structs_of(messages.Message))
    assert told == {kind.__name__: list(kind.__struct_fields__) for kind in inside}


@pytest.mark.parametrize("kind", [*codec.Kind, *codec.ReadStatus], ids=lambda kind: kind.name)
def test_each_kind_and_status_stands_in_wire(kind):
    assert [str(int(kind)), kind.name] in [row[:2] for row in rows(page("wire.md"))]


def test_each_field_of_an_error_stands_in_wire():
    told = {row[0].strip("`"): row[1] for row in rows(section(page("wire.md"), "Errors"))}
    base = {name for name in vars(LunalogError) if not name.startswith("__")}
    for code, kind in ERRORS.items():
        own = {name for name in vars(kind) if not name.startswith("_")} - base
        for name in own - {"check"}:
            assert f"`{name}`" in told.get(code, ""), f"{code}: {name}"


# ---------------------------------------------------------------------------- storage.md


@pytest.mark.parametrize("kind", structs_of(records.ControlRecord), ids=lambda kind: kind.__name__)
def test_each_record_stands_in_storage_with_its_tag_and_fields(kind):
    table = {row[1]: row for row in rows(section(page("storage.md"), "Records"))}
    row = table[f"`{kind.__name__}`"]
    assert row[0] == str(kind.__struct_config__.tag)
    assert row[2].split(", ") == list(kind.__struct_fields__)


# --------------------------------------------------------------------- rules and sections


def citations(pattern: str) -> dict[str, list[str]]:
    """What source and pages cite, and where."""
    found: dict[str, list[str]] = {}
    for path in [*SOURCES, *PAGES]:
        for cited in re.findall(pattern, path.read_text()):
            found.setdefault(cited, []).append(str(path.relative_to(HOME)))
    return found


@pytest.mark.parametrize("letter", "RILZ")
def test_each_rule_that_is_cited_is_a_heading_of_the_protocol(letter):
    known = set(re.findall(rf"^### ({letter}\d+)\. ", page("protocol.md"), re.M))
    cited = citations(rf"(?<![\w.\"'<-])({letter}[0-9]{{1,2}})\b(?![.(])")
    assert known
    assert {rule: where for rule, where in cited.items() if rule not in known} == {}


def test_each_section_of_the_design_that_is_cited_is_there():
    known = set(re.findall(r"^## (\d+)\. ", page("design.md"), re.M))
    cited: dict[str, list[str]] = {}
    for text, where in citations(r"design\.md sections? (\d+(?:(?:, | and )\d+)*)").items():
        for number in re.findall(r"\d+", text):
            cited.setdefault(number, []).extend(where)
    assert cited
    assert {number: where for number, where in cited.items() if number not in known} == {}


def test_each_heading_of_a_page_that_is_cited_is_there():
    for path in [*SOURCES, *PAGES]:
        for name, title in re.findall(r"docs/(\w+\.md) \"([^\"]+)\"", path.read_text()):
            section_at = rf"^#+ (?:\d+\. )?{re.escape(title)}$"
            assert re.search(section_at, page(name), re.M), f"{path.name}: {name} {title!r}"


# --------------------------------------------------------------------------------- links


def anchors(text: str) -> set[str]:
    """Anchors as code hosts make them from headings."""
    found = set()
    for title in re.findall(r"^#+ (.+)$", text, re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        aim = (path.parent / name).resolve() if name else path
        assert aim.exists(), target
        assert aim.is_relative_to(HOME), target
        if anchor and aim.suffix == ".md":
            assert anchor in anchors(aim.read_text()), target


# ------------------------------------------------------------------------- testing.md

SIMULATED = {
    *(f"P{n}" for n in (1, 2, 3, 4)),
    *(f"N{n}" for n in (1, 2, 3, 4, 8)),
    *(f"D{n}" for n in range(5, 14)),
    *("C1", "C2", "M1", "M5", "K1", "K2", "K3", "K5"),
}
"""Faults that the simulator injects; K4 and H6 show in its workload, M2 and M4 come later."""


def test_the_table_of_faults_says_what_the_simulator_injects() -> None:
    table = {
        row[0]: set(re.findall(r"`(\w+)`", row[1]))
        for row in rows(section(page("testing.md"), "Simulated schedules"))
        if re.fullmatch(r"[A-Z]\d+", row[0])
    }
    named: dict[str, set[str]] = {}
    for name, kind in all_kinds().items():
        found = re.match(r"([A-Z]\d+(?:, [A-Z]\d+)*):", kind.__doc__ or "")
        assert found, f"{name} does not say which fault it injects"
        for code in found[1].split(", "):
            named.setdefault(code, set()).add(name)
    assert table == named
    assert set(table) >= SIMULATED
    catalogue = {row[0] for row in rows(section(page("protocol.md"), "Faults"))}
    assert set(table) <= catalogue
