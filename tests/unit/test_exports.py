"""The public names: all there, lazily, and `import lunalog` stays cheap."""

import os
import subprocess
import sys

import pytest

import lunalog
from lunalog import errors


def test_every_public_name_can_be_imported():
    for name in lunalog.__all__:
        assert getattr(lunalog, name) is not None
    assert set(lunalog.__all__) <= set(dir(lunalog))
    assert lunalog.__all__ == sorted(lunalog.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = lunalog.Nonsense


def test_public_errors_are_those_of_the_tree():
    names = [name for name in lunalog.__all__ if name.endswith("Error")]
    for name in names:
        assert getattr(lunalog, name) is getattr(errors, name)


def test_importing_the_package_imports_next_to_nothing():
    code = (
        "import sys, lunalog; "
        "print([m for m in sys.modules if m in ('asyncio', 'msgspec', 'click', 'socket')])"
    )
    unmeasured = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    found = subprocess.run(
        [sys.executable, "-c", code], env=unmeasured, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
