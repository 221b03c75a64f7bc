"""
transformers' own tests, from the sources of the installed version, as the package `transformers_tests`.

The source distribution in the registry has them; it is fetched once and kept in pytest's cache. Only the files at the
top of the tests are in it: `stand_ins.py` has what they import from elsewhere.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
import transformers
from transformers_suite import stand_ins
from transformers_suite.skips import NEEDS, NOT_FOR_HYENADNA, SKIP, reason_in

PACKAGE = "transformers_tests"


def pytest_configure(config):
    for line in ("ignore::pytest.PytestUnknownMarkWarning", "error::DeprecationWarning", "error::FutureWarning"):
        config.addinivalue_line("filterwarnings", line)
    root = config.cache.mkdir(f"transformers-{transformers.__version__}")
    if not (root / PACKAGE).is_dir():
        fetch(root)
    for name, text in stand_ins.FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name, module in stand_ins.MODULES.items():
        sys.modules[f"{PACKAGE}.{name}"] = module
    sys.path.insert(0, str(root))
    os.environ["TRANSFORMERS_TINY_MODEL_PATH"] = str(root)  # where the pipeline tests find models


def fetch(root):
    """Put the tests of the installed transformers into a folder."""
    wanted = f"transformers=={transformers.__version__}"
    with tempfile.TemporaryDirectory(dir=root) as work:
        command = ["pip", "download", "--quiet", "--no-deps", "--no-binary", "transformers", "--dest", work, wanted]
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        if done.returncode:
            raise pytest.UsageError(f"The sources of {wanted} are not to be had from the registry:\n{done.stderr}")
        with tarfile.open(next(Path(work).glob("*.tar.gz"))) as archive:
            tests = archive.next().name.split("/")[0] + "/tests/"
            archive.extractall(work, [m for m in archive.getmembers() if m.name.startswith(tests)], filter="data")
        Path(work, tests).rename(root / PACKAGE)


def pytest_collection_modifyitems(items):
    for item in items:
        reason = reason_in(SKIP, item)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that skips itself fails where skips.py has no reason for it, and one with a reason fails if it runs."""
    report = yield
    item.skipped = getattr(item, "skipped", False) or report.skipped
    problem = None
    if report.skipped and not any(reason_in(table, item) for table in (SKIP, NOT_FOR_HYENADNA, NEEDS)):
        problem = f"was skipped, but skips.py has no reason for it: {report.longrepr[-1]}"
    elif report.when == "call" and report.passed and not item.skipped and reason_in(NOT_FOR_HYENADNA, item):
        problem = f"runs, but skips.py says: {reason_in(NOT_FOR_HYENADNA, item)}"
    if problem is not None:
        report.outcome, report.longrepr = "failed", f"{item.nodeid} {problem}"
    return report
