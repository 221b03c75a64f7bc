"""
Resumable jobs: one run at a time does the work, a killed run can be resumed, and only a complete result is installed.

A job that writes the file `OUT` keeps its finished parts in the folder `OUT.partial`, with its identity (`job.json`),
a lock, and everything else that it writes before it is finished, such as checkpoints. The same command resumes it, with
any number of processes. `OUT` itself is created or replaced only after its content has been checked.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from . import __version__
from .errors import InputError, system_error

if TYPE_CHECKING:
    from accelerate import PartialState

    from .processes import SingleProcess

Part = TypeVar("Part")
Result = TypeVar("Result")
IDENTITY_FILE, LOCK_FILE, UNFINISHED = "job.json", ".lock", ".unfinished-"


class Job:
    """
    Write a file in parts. Use it in a `with` statement.

    Args:
        out: File to write.
        identity: Everything that the result depends on, JSON-serializable. Parts with another identity are refused.
        state: Accelerate's view of this process among those that share the job; the main process holds the lock. Or
            [`~hyenadna_hf.processes.SingleProcess`], for a job that is not shared.

    Attributes:
        folder: The folder `OUT.partial`. Files and folders that a job keeps there besides its parts are removed when
            it is finished.

    Raises:
        InputError: If another run is writing `out`, or `OUT.partial` contains parts of another job or other files.
        OSError: If the folder is not writable.
    """

    def __init__(self, out: Path, identity: dict[str, Any], state: "PartialState | SingleProcess") -> None:
        self.out, self.state = out, state
        self.identity = json.loads(json.dumps({"version": __version__, **identity}))
        self.folder = parts_folder(out)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            if self.state.is_main_process:
                self._stack.enter_context(self._hold_folder())
            self.state.wait_for_everyone()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> bool | None:
        return self._stack.__exit__(*exception)

    @contextmanager
    def _hold_folder(self) -> Iterator[None]:
        """Lock the folder of parts and check that they belong to this job; remove the folder if it ends empty."""
        identity = self.folder / IDENTITY_FILE
        try:
            with hold_lock(self.folder, self.out):
                for leftover in self.folder.glob(f"{UNFINISHED}*"):  # from a killed run
                    leftover.unlink()
                if identity.is_file():
                    self._check_identity(json.loads(identity.read_text(encoding="utf-8")))
                elif has_other_files(self.folder):
                    raise InputError(
                        f"{self.folder}: this folder is needed for unfinished parts, but contains other files; move "
                        "it or change the output."
                    )
                else:
                    write_text(identity, json.dumps(self.identity, indent=2) + "\n")
                try:
                    yield
                finally:
                    for path in self._content():
                        with suppress(OSError):  # a file, or not empty
                            path.rmdir()
                    if not self._content():
                        identity.unlink(missing_ok=True)
        finally:
            with suppress(OSError):  # it contains parts, or another run uses it
                self.folder.rmdir()

    def _check_identity(self, previous: dict[str, Any]) -> None:
        names = [name for name in {**previous, **self.identity} if previous.get(name) != self.identity.get(name)]
        if names:
            raise InputError(
                f"{self.folder}: contains parts of an unfinished run that differs in {', '.join(names)}; finish that "
                "run, delete the folder, or change the output."
            )

    def _content(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.name not in (IDENTITY_FILE, LOCK_FILE)]

    def part(self, number: int) -> Path:
        """Return the path of a part, which exists once the part is finished."""
        return self.folder / f"{number:06}"

    def run(
        self,
        parts: Iterable[Part],
        size: Callable[[Part], int],
        make: Callable[[Part, Path, Callable[[float], None]], None],
        unit: str,
        total: int,
        first: int = 0,
    ) -> None:
        """
        Make the unfinished parts that belong to this process, with a progress bar.

        Args:
            parts: The parts, identical in every process and in every run.
            size: Returns the size of a part, in the unit of `total`.
            make: Makes a part. Called with the part, the path to write it to with [`replace_file`], and the function
                that advances the progress bar.
            unit: Plural name of the items that the bar counts, such as `"bases"`.
            total: Sum of the sizes of all parts.
            first: Number of the first part, if a job has parts of several kinds.
        """
        with progress(unit, total, self.state.is_main_process) as advance:
            for number, part in enumerate(parts):
                if number % self.state.num_processes != self.state.process_index:
                    continue
                path = self.part(first + number)
                if path.exists():
                    advance(size(part))
                else:
                    make(part, path, advance)

    def finish(self, write: Callable[[Path], Result]) -> Result | None:
        """
        Install the result once all processes have finished their parts.

        Args:
            write: Writes and checks the result, given a path with the name of `out` in an empty folder. It may write
                other files and folders beside it; they replace earlier ones of their names. Called in the main process
                only.

        Returns:
            The return value of `write`, or `None` in other processes.
        """
        self.state.wait_for_everyone()
        if not self.state.is_main_process:
            return None
        staging = self.folder / "finished"
        shutil.rmtree(staging, ignore_errors=True)
        try:
            with errors_naming(self.out, staging):
                staging.mkdir()
                result = write(staging / self.out.name)
                for file in sorted(staging.iterdir(), key=lambda file: file.name == self.out.name):  # `out` comes last
                    target = self.out.with_name(file.name)
                    if file.is_dir() and target.is_dir():  # cannot be replaced in one step
                        shutil.rmtree(target)
                    os.replace(file, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        # Parts first: after a kill here, those that are left still have the files that belong to them.
        for path in sorted(self._content(), key=lambda path: not path.name.isdecimal()):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        return result


def parts_folder(out: Path) -> Path:
    """Return the folder for the parts of a job that writes the file `out`."""
    return out.with_name(f"{out.name}.partial")


@contextmanager
def hold_lock(folder: Path, name: str | Path) -> Iterator[None]:
    """
    Hold the lock of a folder. The operating system releases it when the process ends, even if it is killed.

    Args:
        folder: The folder. Created if it does not exist, and then removed again if it is empty at the end.
        name: Name of the output in the error message.

    Raises:
        InputError: If another process holds the lock.
    """
    import fcntl

    path = folder / LOCK_FILE
    is_new = not folder.is_dir()
    while True:
        # The previous holder of the lock may remove the folder at any moment.
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a", encoding="utf-8")
        except FileNotFoundError:
            continue
        except FileExistsError:
            with suppress(FileNotFoundError):
                if not stat.S_ISDIR(folder.lstat().st_mode):
                    raise
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{name}: another run is writing it; wait for it or change the output.") from None
            if not _is_open_file(path, file):  # the previous holder has removed this lock file
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
                if is_new:
                    with suppress(OSError):  # not empty
                        folder.rmdir()
            return


def has_other_files(folder: Path) -> bool:
    """Return whether a folder contains anything but a lock and temporary files of [`replace_file`] from killed runs."""
    return any(name != LOCK_FILE and not name.startswith(UNFINISHED) for name in os.listdir(folder))


def _is_open_file(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


@contextmanager
def writing_folder(out: Path, argument: str, state: "PartialState | SingleProcess") -> Iterator[None]:
    """
    Lock the output folder of a command, and make errors of the operating system name it.

    Args:
        out: The folder, created if it does not exist.
        argument: Name of the argument, such as `--out`, for error messages.
        state: Accelerate's view of this process. The main process holds the lock.

    Raises:
        InputError: If another run is writing to the folder.
        OSError: If the folder cannot be written. The error names it.
    """
    lock = hold_lock(out, f"{argument} {out}") if state.is_main_process else nullcontext()
    with errors_naming(out), lock:
        yield


@contextmanager
def folder_job(
    out: Path, name: str, identity: dict[str, Any], state: "PartialState | SingleProcess", argument: str = "--out"
) -> Iterator[Job]:
    """
    Open the [`Job`] of a command that writes several files into a folder, which is locked as a whole.

    Args:
        out: Folder of the results.
        name: Name of the file in it that the job installs last.
        identity: Identity of the job.
        state: Accelerate's view of this process.
        argument: Name of the argument that gives the folder, for error messages.
    """
    with writing_folder(out, argument, state), Job(out / name, identity, state) as job:
        yield job


@contextmanager
def errors_naming(path: Path, prefix: Path | None = None) -> Iterator[None]:
    """
    Make errors of the operating system name the output that could not be written.

    Args:
        path: The output.
        prefix: Prefix of the paths of temporary files; errors that name such a file name `path` instead. Defaults to
            `path` itself. Errors that name another file are raised unchanged.
    """
    try:
        yield
    except Exception as error:
        cause = system_error(error)
        if cause is None or not str(cause.filename or prefix or path).startswith(str(prefix or path)):
            raise
        reason = cause.strerror or f"{cause}; check the free disk space"  # some libraries give no error number
        raise OSError(cause.errno or errno.EIO, reason, str(path)) from error


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """
    Create or replace a file atomically.

    Args:
        path: The file.
        write: Writes the content, given a temporary path with the same suffix.
    """
    with errors_naming(path, path.with_name(UNFINISHED)):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED, suffix=f"-{path.name}")
        temporary = Path(name)
        try:
            os.fchmod(descriptor, 0o666 & ~_umask())
            os.close(descriptor)
            write(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write text to a file atomically (see [`replace_file`])."""
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array for `np.load` to a file atomically (see [`replace_file`])."""
    content = io.BytesIO()
    np.save(content, array)  # in memory, because np.save to a file misses a full disk that shows when it is closed
    replace_file(path, lambda temporary: temporary.write_bytes(content.getbuffer()))


def sha256(path: str | Path) -> str:
    """Compute the SHA-256 digest of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def output_path(argument: str, value: str, suffixes: tuple[str, ...]) -> Path:
    """
    Check the path of an output file.

    Args:
        argument: Name of the argument, such as `--out`, for error messages.
        value: Its value.
        suffixes: File name suffixes of the supported formats.

    Raises:
        InputError: If the path has another suffix, its folder does not exist, or it is a folder itself.
    """
    if not value.endswith(suffixes):
        raise InputError(f"{argument} {value}: the suffix sets the format; it must be one of {', '.join(suffixes)}.")
    path = Path(value).expanduser()
    if not path.parent.is_dir():
        raise InputError(f"{argument} {path}: the folder {path.parent} does not exist; create it first.")
    if path.is_dir():
        raise InputError(f"{argument} {path}: this is a folder; give a file name.")
    return path


def output_folder(argument: str, value: str | Path) -> Path:
    """
    Check the path of an output folder, which need not exist.

    Args:
        argument: Name of the argument, such as `--out`, for error messages.
        value: Its value.

    Raises:
        InputError: If the path is a file.
    """
    path = Path(value).expanduser()
    if path.exists() and not path.is_dir():
        raise InputError(f"{argument} {path}: this is a file; give a folder.")
    return path


@contextmanager
def progress(unit: str, total: int, show: bool = True) -> Iterator[Callable[[float], None]]:
    """
    Show a progress bar on a terminal, and nothing elsewhere.

    Args:
        unit: Plural name of the items that the bar counts, such as `"bases"`.
        total: Number of items.
        show: Whether this process shows the bar.

    Yields:
        A function that advances the bar by a number of items, or by a fraction of one.
    """
    console = Console(stderr=True)
    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (show and console.is_terminal)) as bar:
        task = bar.add_task("", total=total)
        yield lambda number: bar.advance(task, number)
