"""`hyenadna doctor`: what is installed, which devices there are, and what is missing, even where torch is broken."""

import os
import platform
import re
import shutil
from importlib.metadata import PackageNotFoundError, requires, version

from .parser import Parser

PACKAGE = "hyenadna_hf"
EXTRAS = ("all", "h5ad", "onnx")  # those for users


def parser():
    """The arguments of `hyenadna doctor`."""
    parser = Parser(
        prog="hyenadna doctor",
        description="Print versions, devices, and what is missing and how to install it.",
        epilog="Example: hyenadna doctor --json",
    )
    parser.add_argument("--json", action="store_true", help="Print the result as one JSON object on stdout.")
    return parser


def main(argv):
    """Run `hyenadna doctor` with the arguments `argv` (a list of `str`)."""
    parser().parse_args(argv)
    found = examine()
    print(f"{PACKAGE} {found['version']}, Python {found['python']}, {found['platform']}, {found['cpus']} CPUs")
    print("devices: " + (", ".join(found["devices"]) or "none but the CPU"))
    print("packages:")
    width = max(map(len, found["packages"]))
    for name, package in found["packages"].items():
        extra = f"  (only for [{package['extra']}])" if package["extra"] else ""
        print(f"  {name:<{width}}  {package['installed'] or 'missing':<10}  {package['required']}{extra}")
    for problem in found["problems"]:
        print(f"problem: {problem}")
    if not found["problems"]:
        print("No problems found.")
    return found


def examine():
    """
    What is installed here.

    Returns:
        `dict`: `version` of this package, `python`, `platform`, `cpus` (those that this process may use), `devices`
        (accelerators, `list[str]`), `packages` (by name: `installed` and `required` versions, whether the one `fits`
        the other, and the `extra` that wants it), and `problems` (`list[str]`), each with its remedy.
    """
    packages = dict(_packages())
    problems = [
        f"{name} {package['required']} is wanted, {package['installed'] or 'none'} is installed; pip install "
        f"'{name}{package['required']}'"
        for name, package in packages.items()
        if not package["fits"] and (package["installed"] or not package["extra"])
    ]
    missing = [name for name, package in packages.items() if package["extra"] == "all" and not package["installed"]]
    if missing:
        problems.append(f"{', '.join(missing)}: missing, not all commands work; pip install '{PACKAGE}[all]'")
    devices, trouble = _devices()
    return {
        "version": version(PACKAGE),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": devices,
        "packages": packages,
        "problems": problems + trouble,
    }


def _packages():
    """Name, and what is wanted and there, of each package that this one requires; each once, without an extra first."""
    from packaging.requirements import Requirement

    seen = set()
    for extra in ("", *EXTRAS):
        for requirement in map(Requirement, requires(PACKAGE)):
            of_extra = requirement.marker is not None and requirement.marker.evaluate({"extra": extra})
            if requirement.name in seen or not (of_extra if extra else requirement.marker is None):
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


def _devices():
    """Accelerators that torch can use, and problems with them."""
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
            f"there is an NVIDIA driver, but torch {torch.__version__} ({build}) finds no GPU; check nvidia-smi, and "
            "install the build of torch for that driver: https://pytorch.org/get-started/locally"
        ]
    return devices, []
