"""
Jobs: long work that is resumed after a kill, done by one run at a time, and installed when it is whole and right.

A job that makes the file `OUT` keeps its finished parts in the folder `OUT.partial`, with its identity (`job.json`) and
a lock. The same command resumes it, with any number of processes. `OUT` itself appears, or replaces what was there,
after everything in it has been checked.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import stat
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from . import __version__
from .errors import InputError, system_error

IDENTITY_FILE, LOCK_FILE, UNFINISHED = "job.json", ".lock", ".unfinished-"


class Job:
    """
    Work in parts that ends in a file. Use it in a `with` statement.

    Args:
        out (`Path`): The file to make.
        identity (`dict`): All that the result depends on, for JSON. Parts of another job are refused.
        state (`PartialState`): This process among those that do the job together; the first one holds the lock.

    Raises:
        InputError: if another run is at work on `out`, or `OUT.partial` holds parts of another job or something else.
        OSError: if the folder cannot be written.
    """

    def __init__(self, out, identity, state):
        self.out, self.state = out, state
        self.identity = json.loads(json.dumps({"version": __version__, **identity}))
        self.folder = folder_of_parts(out)
        self._stack = ExitStack()

    def __enter__(self):
        with self._stack:
            if self.state.is_main_process:
                self._stack.enter_context(self._begun())
            self.state.wait_for_everyone()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exception):
        return self._stack.__exit__(*exception)

    @contextmanager
    def _begun(self):
        identity = self.folder / IDENTITY_FILE
        try:
            with locked(self.folder, self.out):
                for left in self.folder.glob(f"{UNFINISHED}*"):  # by a run that was killed
                    left.unlink()
                if identity.is_file():
                    self._check_same(json.loads(identity.read_text(encoding="utf-8")))
                elif has_other_files(self.folder):
                    raise InputError(
                        f"{self.folder}: parts go here, but it holds something else; move it or change --out."
                    )
                else:
                    write_text(identity, json.dumps(self.identity, indent=2) + "\n")
                try:
                    yield
                finally:
                    if not any(self._parts()):
                        identity.unlink(missing_ok=True)
        finally:
            with suppress(OSError):  # there are parts in it, or another run uses it
                self.folder.rmdir()

    def _check_same(self, before):
        names = [name for name in {**before, **self.identity} if before.get(name) != self.identity.get(name)]
        if names:
            raise InputError(
                f"{self.folder}: an unfinished run with another {', '.join(names)} left this; finish that run, delete "
                "the folder, or change --out."
            )

    def _parts(self):
        return self.folder.glob("[0-9]*")

    def part(self, number):
        """The path of a part, which exists once it is finished."""
        return self.folder / f"{number:06}"

    def run(self, parts, size, make, what, total):
        """
        Make those parts of this process that are not finished, with a progress bar.

        Args:
            parts (iterable): The same in every process and at every run.
            size (`Callable`): Gives the share of a part in `total`.
            make (`Callable`): Makes a part, given the part, the path to write it to by [`replace_file`], and the
                function that advances the bar.
            what (`str`), total (`int`): See [`progress`].
        """
        with progress(what, total, self.state.is_main_process) as advance:
            for number, part in enumerate(parts):
                if number % self.state.num_processes != self.state.process_index:
                    continue
                path = self.part(number)
                if path.exists():
                    advance(size(part))
                else:
                    make(part, path, advance)

    def finish(self, write):
        """
        Install the result once all processes have finished their parts.

        Args:
            write (`Callable[[Path], Any]`): Writes the result, and files beside it, to a path with the name of `out`
                in an empty folder, and checks it. The main process alone calls it.

        Returns:
            What `write` returns; `None` in other processes.
        """
        self.state.wait_for_everyone()
        if not self.state.is_main_process:
            return None
        made = self.folder / "finished"
        shutil.rmtree(made, ignore_errors=True)
        try:
            with naming(self.out, made):
                made.mkdir()
                result = write(made / self.out.name)
                for file in sorted(made.iterdir(), key=lambda file: file.name == self.out.name):  # that one last
                    os.replace(file, self.out.with_name(file.name))
        finally:
            shutil.rmtree(made, ignore_errors=True)
        for path in self._parts():
            path.unlink()
        return result


def folder_of_parts(out):
    """The folder of the parts of a job that makes the file `out`."""
    return out.with_name(f"{out.name}.partial")


@contextmanager
def locked(folder, name):
    """
    Hold the lock of a folder. The system frees it when the process ends, also when it is killed.

    Args:
        folder (`Path`): Made if it is absent, and removed again if nothing is in it at the end.
        name (`str` or `Path`): What is written there, for the error.

    Raises:
        InputError: if another process holds it.
    """
    import fcntl

    path = folder / LOCK_FILE
    made = not folder.is_dir()
    while True:
        # The run that held the lock may remove the folder at any moment.
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
                raise InputError(f"{name}: another run is writing it; wait for it, or change the output.") from None
            if not _is_at(path, file):  # or the lock
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
                if made:
                    with suppress(OSError):  # there is something in it
                        folder.rmdir()
            return


def has_other_files(folder):
    """Whether a folder holds more than a lock and the temporary files of [`replace_file`] that killed runs leave."""
    return any(name != LOCK_FILE and not name.startswith(UNFINISHED) for name in os.listdir(folder))


def _is_at(path, file):
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


@contextmanager
def naming(path, inside=None):
    """
    Let an error of the system name the output that could not be written.

    Args:
        path (`Path`): The output.
        inside (`Path`, *optional*): The beginning of the names of temporary files, which become `path` in the error. By
            default that of files in `path`. An error that names another file stays as it is.
    """
    try:
        yield
    except Exception as error:
        cause = system_error(error)
        if cause is None or not str(cause.filename or inside or path).startswith(str(inside or path)):
            raise
        reason = cause.strerror or f"{cause}; is the disk full?"  # libraries leave the number out
        raise OSError(cause.errno or errno.EIO, reason, str(path)) from error


def replace_file(path, write):
    """
    Make a file, or put a new one in its place, when it is whole.

    Args:
        path (`Path`): The file.
        write (`Callable[[Path], Any]`): Writes to the temporary path that it is given, with the same ending.
    """
    with naming(path, path.with_name(UNFINISHED)):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED, suffix=f"-{path.name}")
        temporary = Path(name)
        try:
            os.fchmod(descriptor, 0o666 & ~_umask())
            os.close(descriptor)
            write(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path, text):
    """Put a text into a file, as [`replace_file`] does."""
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def save_array(path, array):
    """Put an array into a file that `np.load` reads, as [`replace_file`] does."""
    content = io.BytesIO()
    np.save(content, array)  # into a file it would not notice that a disk is full when the file is closed
    replace_file(path, lambda temporary: temporary.write_bytes(content.getbuffer()))


def sha256(path):
    """Digest of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def output_path(argument, path, endings):
    """
    A path that can be written to.

    Args:
        argument, path (`str`): The argument that names it, and its value.
        endings (`tuple[str]`): Endings that say a format.

    Returns:
        `Path`

    Raises:
        InputError: if its ending is another one, its folder is absent, or it is a folder.
    """
    if not path.endswith(endings):
        raise InputError(f"{argument} {path}: the ending says the format; it must be one of {', '.join(endings)}.")
    path = Path(path).expanduser()
    if not path.parent.is_dir():
        raise InputError(f"{argument} {path}: there is no folder {path.parent}; make it first.")
    if path.is_dir():
        raise InputError(f"{argument} {path}: this is a folder; name a file.")
    return path


@contextmanager
def progress(what, total, show=True):
    """
    A bar on a terminal, nothing elsewhere.

    Args:
        what (`str`): Plural of what is counted.
        total (`int`): How many there are.
        show (`bool`, defaults to `True`): Whether to show it, as the first of several processes does.

    Yields:
        `Callable[[int], None]`: advances the bar.
    """
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (show and console.is_terminal)) as bar:
        task = bar.add_task("", total=total)
        yield lambda number: bar.advance(task, number)
