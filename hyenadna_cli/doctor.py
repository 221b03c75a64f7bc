"""`hyenadna doctor`: report versions, devices and missing packages, even if torch is broken."""

import os
import platform
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from .parser import Parser

PACKAGE = "hyenadna_hf"
EXTRAS = ("all", "h5ad", "onnx")  # extras for users, not for development


def parser() -> Parser:
    """Build the argument parser of `hyenadna doctor`."""
    parser = Parser(
        prog="hyenadna doctor",
        description="Print versions and devices, and how to install what is missing.",
        epilog="Example: hyenadna doctor --json",
    )
    parser.add_argument("--json", action="store_true", help="Print the result as one JSON object on stdout.")
    return parser


def main(argv: list[str]) -> dict[str, Any]:
    """Run `hyenadna doctor` with the arguments `argv`."""
    parser().parse_args(argv)
    report = examine()
    print(f"{PACKAGE} {report['version']}, Python {report['python']}, {report['platform']}, {report['cpus']} CPUs")
    print("devices: " + (", ".join(report["devices"]) or "CPU only"))
    print("packages:")
    width = max(map(len, report["packages"]))
    for name, package in report["packages"].items():
        extra = f"  (only for [{package['extra']}])" if package["extra"] else ""
        print(f"  {name:<{width}}  {package['installed'] or 'missing':<10}  {package['required']}{extra}")
    for problem in report["problems"]:
        print(f"problem: {problem}")
    if not report["problems"]:
        print("No problems found.")
    return report


def examine() -> dict[str, Any]:
    """
    Examine the environment.

    Returns:
        A dictionary with `version` of this package, `python`, `platform`, `cpus` (available to this process), `devices`
        (list of accelerators), `packages` (by name: `installed` and `required` version, whether the installed version
        `fits`, and the `extra` that requires it), and `problems` (list of problems with their remedies).
    """
    packages = dict(_packages())
    problems = [
        f"{name} {package['required']} is required, but {package['installed'] or 'none'} is installed; pip install "
        f"'{name}{package['required']}'"
        for name, package in packages.items()
        if not package["fits"] and (package["installed"] or not package["extra"])
    ]
    missing = [name for name, package in packages.items() if package["extra"] == "all" and not package["installed"]]
    if missing:
        problems.append(f"{', '.join(missing)}: missing, some commands do not work; pip install '{PACKAGE}[all]'")
    devices, device_problems = _find_devices()
    return {
        "version": version(PACKAGE),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": devices,
        "packages": packages,
        "problems": problems + device_problems,
    }


def _packages() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name, and required and installed version, of each required package once, mandatory packages first."""
    from packaging.requirements import Requirement

    seen = set()
    for extra in ("", *EXTRAS):
        for requirement in map(Requirement, requires(PACKAGE) or ()):
            is_of_extra = requirement.marker is not None and requirement.marker.evaluate({"extra": extra})
            if requirement.name in seen or not (is_of_extra if extra else requirement.marker is None):
                continue
            seen.add(requirement.name)
            try:
                installed = version(requirement.name)
            except PackageNotFoundError:
                installed = None
            fits = installed is not None and requirement.specifier.contains(installed, prereleases=True)
            yield (
                requirement.name,
                {"installed": installed, "required": str(requirement.specifier), "extra": extra, "fits": fits},
            )


def _find_devices() -> tuple[list[str], list[str]]:
    """Return the accelerators that torch can use, and problems with them."""
    try:
        import torch
    except Exception as error:  # a broken installation fails in many ways
        reason = re.sub(r"\s+", " ", str(error))
        return [], [f"torch cannot be imported ({reason}); see https://pytorch.org/get-started/locally"]
    devices = []
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        devices.append(f"cuda:{number} {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        devices.append("mps")
    if not devices and shutil.which("nvidia-smi"):
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return [], [
            f"an NVIDIA driver is installed, but torch {torch.__version__} ({build}) finds no GPU; check nvidia-smi "
            "and install the build of torch for this driver: https://pytorch.org/get-started/locally"
        ]
    return devices, []
