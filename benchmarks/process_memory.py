"""Memory of this process, in bytes (Linux)."""

import resource
from pathlib import Path


def held():
    """What it holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def most_held():
    """The most it has held, or its parent had when it began."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
