"""lunalog: a replicated single-write journal."""

__version__ = "0.1.0"
