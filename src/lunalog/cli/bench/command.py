"""`lunalog bench`: parse, run a session, print its result."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lunalog.cli import exits
from lunalog.cli.bench.plan import (
    READINGS,
    SECONDS,
    STALL_S,
    WAYS,
    WAYS_UNTOLD,
    Plan,
    Size,
)
from lunalog.cli.groups import Group
from lunalog.cli.options import POSITIVE, Number, Settings, shared
from lunalog.cli.render import show_one
from lunalog.cli.running import note, run
from lunalog.errors import UsageError

if TYPE_CHECKING:
    from lunalog.cli.bench.result import Result
    from lunalog.cli.bench.workload import Workload

Option = Callable[[Any], Any]
COUNT = Number(int, above=0)
of_its_own = functools.partial(shared, default_cluster="one of its own")
SERVERS = 3


@click.group("bench", cls=Group, short_help="Measure a cluster with streams of its own.")
@of_its_own
def bench_command() -> None:
    """Measure a cluster: appends, reads, append to follower, failover, many streams.

    Without --cluster and LUNALOG_URL it starts a cluster of its own on this machine and takes it down
    again.  It touches only streams that it makes (bench/...), reads back all that it wrote, compares
    every byte, and deletes them.  Ctrl-C ends it early with what was measured so far.
    """


def counted(name: str, text: str, **more: Any) -> Option:
    """An option that takes a whole number."""
    return click.option(name, type=COUNT, metavar="N", help=text, **more)


SIZE = click.option(
    "--size", type=Size(), default=1024, metavar="BYTES", help="Size of an event.  [default: 1KiB]"
)
FLOW = (
    SIZE,
    click.option(
        "--seconds",
        type=POSITIVE,
        metavar="S",
        help=f"Time to append.  [default: {SECONDS:g}, unless --events]",
    ),
    counted("--events", "Events to append."),
)
"""Of every workload that appends for a while."""
GROUND = (
    counted("--replicas", "Servers that hold a copy.  [default: 3]"),
    counted("--ack-quorum", "Copies before an ack.  [default: 2]"),
    click.option(
        "--stall",
        "stall_s",
        type=POSITIVE,
        default=STALL_S,
        metavar="S",
        help=f"End when nothing gets on for so long.  [default: {STALL_S:g}]",
    ),
    counted(
        "--servers", f"Servers of a cluster of its own.  [default: {SERVERS}]", default=SERVERS
    ),
    click.option(
        "--dir",
        "directory",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where a cluster of its own lies: the disk that is measured.  [default: TMPDIR]",
    ),
    click.option(
        "--html",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Also write a report with plots.",
    ),
)
"""Where a bench takes place, and what it leaves."""


def rate(which: str = "so many events a second are due") -> Option:
    """The option of an open loop."""
    return click.option(
        "--rate",
        type=POSITIVE,
        metavar="N",
        help=f"Open loop: {which}, whatever becomes of them.",
    )


def window(which: str = "so many appends in flight") -> Option:
    """The option of a closed loop."""
    return counted("--window", f"Closed loop: {which}; 1: one at a time.")


BATCH = counted("--batch", "Events in one append (append_many).  [default: 1]", default=1)


def workload(
    name: str, *options: Option, short_help: str | None = None
) -> Callable[[Callable[..., int]], click.Command]:
    """Make a command of the bench: its own options come first, then those that all have."""

    def make(function: Callable[..., int]) -> click.Command:
        command: Any = of_its_own(click.pass_obj(function))
        for option in reversed((*options, *GROUND)):
            command = option(command)
        return bench_command.command(name, short_help=short_help)(command)

    return make


@workload("write", rate(), window(), BATCH, *FLOW)
def write_command(settings: Settings, /, **options: Any) -> int:
    """Append to one stream.

    By default a closed loop with a window that keeps the cluster busy; --window 1 appends one event at a
    time; --rate is an open loop, whose latencies count from the moment an event was due.
    """
    from lunalog.cli.bench.writing import Writing

    return bench(settings, Writing(), options)


@workload(
    "read",
    click.option(
        "--part",
        type=click.Choice(READINGS),
        help="Only this.  [default: one after the other]",
    ),
    window(),
    counted("--batch", "Events in one append.  [default: as many as make 64 KiB]"),
    *FLOW,
    short_help="Catch up with a stream, then read behind its leader.",
)
def read_command(settings: Settings, /, *, part: str | None, **options: Any) -> int:
    """Read a stream from its beginning, then read behind a leader that appends all it can.

    The stream is filled first, for --seconds or with --events.
    """
    from lunalog.cli.bench.reading import Reading, frame_events

    if options["batch"] is None:
        options["batch"] = frame_events(options["size"])
    return bench(settings, Reading((part,) if part else READINGS), options)


@workload("e2e", rate(), window(), BATCH, *FLOW, short_help="From append to a follower.")
def e2e_command(settings: Settings, /, **options: Any) -> int:
    """From append to a follower that reads behind, over two connections of one process.

    By default one event at a time: the next one leaves when it was acknowledged and has arrived.
    """
    from lunalog.cli.bench.following import Following

    if options["rate"] is None and options["window"] is None and options["batch"] == 1:
        options["window"] = 1
    return bench(settings, Following(), options)


@workload(
    "streams",
    counted("--streams", "How many.  [default: 100]", default=100),
    rate("so many events a second are due in all"),
    window("so many appends in flight to each stream"),
    BATCH,
    *FLOW,
    short_help="Append to many streams at once.",
)
def streams_command(settings: Settings, /, **options: Any) -> int:
    """Make many streams, lead them all in one process, and append to all of them at once.

    --rate and --events are of all streams together, --window is of each.  By default all windows
    together are as large as that of one stream would be, but none is smaller than 16.
    """
    from lunalog.cli.bench.many import Streams

    return bench(settings, Streams(), options)


@workload(
    "failover",
    click.option(
        "--how",
        "ways",
        multiple=True,
        type=click.Choice(WAYS),
        help=f"May be repeated.  [default: {', '.join(WAYS_UNTOLD)}]",
    ),
    counted("--rounds", "How often each.  [default: 5]", default=5),
    SIZE,
    short_help="How long nobody can append.",
)
def failover_command(settings: Settings, /, *, ways: tuple[str, ...], **options: Any) -> int:
    """How long nobody can append: from the last ack of one leader to the first of the next.

    The leaders are processes of the bench.  What happens to the one that leads:

    \b
      transfer     it is asked to hand over
      kill         it is killed (-9)
      freeze       it is stopped, so that its lease must lapse
      kill-server  it stays; a journal server is killed (-9)

    A server is killed only when that is asked for, and only one of a cluster of its own or of the one
    that `lunalog dev` runs here.
    """
    from lunalog.cli.bench.failing import Failing
    from lunalog.cli.dev import default_directory

    options["window"] = 1
    found = os.environ.get("LUNALOG_DEV_DIR")
    dev = Path(found) if found else default_directory()
    return bench(settings, Failing(ways, dev.absolute()), options)


def bench(settings: Settings, work: Workload, options: dict[str, Any]) -> int:
    """Run one workload from the options of its command; returns the exit code."""
    from lunalog.cli.bench.ground import Ground
    from lunalog.cli.bench.histogram import new_histogram
    from lunalog.cli.bench.session import Session
    from lunalog.runtime import SystemRuntime

    new_histogram()  # or say at once that it is not installed
    html: Path | None = options.pop("html")
    servers: int = options.pop("servers")
    if "cluster" in settings.given:
        _refuse_own(settings.cluster)
    else:
        _fit(options, servers)
    if html is not None and not os.access(html.parent, os.W_OK):
        raise UsageError(
            f"cannot write {html}: its directory is not there or not writable; nothing was started"
        )
    ground = Ground(settings, servers=servers, directory=options.pop("directory"))
    plan = Plan(**options)
    plan.validate()
    seed = int.from_bytes(SystemRuntime().random_bytes(8), "little")
    session = Session(plan, work, ground, seed)
    settings.has_begun = True
    result = run(settings, session.run())
    publish(settings, result, html)
    return code_of(session.signum, session.error, result)


def _refuse_own(url: str) -> None:
    """Raise `UsageError` for options that only a cluster of its own has a use for."""
    context = click.get_current_context()
    for name, option in (("servers", "--servers"), ("directory", "--dir")):
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise UsageError(
                f"{option} is of a cluster that the bench starts itself, and {url} was named "
                "(--cluster or LUNALOG_URL); nothing was started; leave one of both out"
            )


def _fit(options: dict[str, Any], servers: int) -> None:
    """Have streams that a cluster of so many servers can hold."""
    if options["replicas"] is None and servers < SERVERS:
        options["replicas"] = servers
    if max(options["replicas"] or 0, options["ack_quorum"] or 0) > servers:
        raise UsageError(
            f"a cluster of its own has {servers} servers here, fewer than --replicas or --ack-quorum "
            "want; nothing was started; choose more --servers"
        )


def publish(settings: Settings, result: Result, html: Path | None) -> None:
    """Print the result, and write the report if one is wanted."""
    from lunalog.cli.bench import table

    if settings.is_json:
        show_one(settings, result.row())
    else:
        table.show(result)
    if html is not None:
        from lunalog.cli.bench.report import render

        try:
            html.write_text(render(result.row()))
        except OSError as error:
            raise exits.from_os_error(error, "cannot write the report") from error
        note(f"report: {html}")


def code_of(signum: int | None, error: BaseException | None, result: Result) -> int:
    """Return the exit code; raises what ended the run, for the one place where errors end."""
    from lunalog.cli.bench.result import Ended

    if result.verdict.broken is not None:
        raise exits.CommandError(
            f"what was read back is not what was written: {result.verdict.broken}"
        )
    if signum is not None:
        raise exits.TerminatedError(signum)
    if error is not None:
        raise error
    if result.ended is Ended.STALLED:
        raise exits.CommandError(f"{result.why}; the figures end there", exits.UNAVAILABLE)
    if not result.verdict.is_over:
        raise exits.CommandError(
            f"not all could be read back: {result.verdict.unknown}", exits.UNAVAILABLE
        )
    if result.streams_left:
        raise exits.CommandError(
            f"streams may be left behind: {', '.join(result.streams_left[:3])}", exits.UNAVAILABLE
        )
    return exits.OK
