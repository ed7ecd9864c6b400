"""What a command or a simulation changes of the process that runs it is put back."""

import logging

import pytest


@pytest.fixture(autouse=True)
def _logging():
    root = logging.getLogger("lunalog")
    before = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.level, root.propagate = before
