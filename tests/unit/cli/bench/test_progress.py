"""What is to be seen while a bench runs."""

from lunalog.cli.bench.progress import Progress
from lunalog.cli.bench.recorder import Part


def part():
    found = Part("append", size=100, seconds=5.0)
    found.start(0.0)
    return found


def test_without_a_terminal_it_is_a_line_a_second(capsys):
    progress, append = Progress(), part()
    progress.start()
    for n in range(1, 31):
        append.note(n / 10, 100, 0.002)
        progress.show("write", [append], n / 10)
    progress.stop()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[-1] == "   3.0 s  write  append 3,000  1,000/s  p50 2.00 ms  p99 2.00 ms"


def test_on_a_terminal_one_line_changes_and_goes_away(monkeypatch):
    import io
    import sys

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    progress, append = Progress(), part()
    progress.start()
    append.note(2.5, 100, 0.002)
    progress.show("write", [append], 2.5)
    progress.stop()
    progress.stop()
    assert "[######......]" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()


def test_only_what_has_a_known_end_has_a_bar(monkeypatch):
    progress = Progress()
    monkeypatch.setattr(progress, "_live", object())
    back = Part("read back")
    back.start(0.0)
    back.note(1.0, 500)
    assert progress._line("verifying", back, 1.0) == "   1.0 s  read back 500  500/s"
    assert progress._line("write", part(), 1.0).startswith("[##..........]    1.0 s  append 0  0/s")
