import json
import os
import time
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

import pytest
from forked import Script
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna_hf.errors import InputError, WorkError
from hyenadna_hf.jobs import Job, hold_lock, replace_file, write_text


class Shard:
    """One of several processes that meet without waiting: a test runs them one after the other, the main one last."""

    def __init__(self, index=0, number=1):
        self.process_index, self.num_processes, self.is_main_process = index, number, index == 0

    def wait_for_everyone(self):
        pass


class KilledError(Exception):
    pass


def lines_job(out, parts, state, identity=None, kill=None):
    """Write a line a part; is killed in the middle of a part."""

    def work(path, part):
        def write(temporary):
            temporary.write_text(f"{part}\n"[: 1 if part == kill else None])
            if part == kill:
                raise KilledError

        replace_file(path, write)

    made = []

    def make(part, path, advance):
        work(path, part)
        made.append(part)
        advance(1)

    with Job(out, identity or {"a": 1}, state) as job:
        job.run(parts, len, make, "parts", len(parts))

        def finish(path):
            path.write_text("".join(job.part(number).read_text() for number in range(len(parts))))
            return "done"

        return job.finish(finish), made


def test_parts_of_two_kinds_have_numbers_of_their_own(tmp_path):
    with Job(tmp_path / "out.txt", {"a": 1}, Shard()) as job:
        for first, letters in ((0, "ab"), (2, "cd")):
            job.run(letters, len, lambda part, path, advance: write_text(path, part), "parts", 2, first=first)
        assert job.finish(lambda _: "".join(job.part(number).read_text() for number in range(4))) == "abcd"


@settings(max_examples=40)
@given(st.integers(1, 12), st.lists(st.integers(1, 4), max_size=3), st.data())
def test_each_part_is_done_once_whatever_is_killed(tmp_path_factory, number, counts, data):
    """The number of processes may change from one run to the next."""
    out = tmp_path_factory.mktemp("job") / "out.txt"
    parts, done = [f"part {i}" for i in range(number)], []

    def make(kills, part, path, advance):
        if part in kills:
            raise KilledError
        write_text(path, f"{part}\n")
        done.append(part)
        advance(1)

    def run(count, kills):
        with Job(out, {"a": 1}, Shard(0, count)) as main:
            for index in range(count):
                job = main if index == 0 else Job(out, {"a": 1}, Shard(index, count))
                with suppress(KilledError), nullcontext() if index == 0 else job:
                    job.run(parts, len, partial(make, kills), "parts", number)
            if kills:
                raise KilledError
            main.finish(lambda path: path.write_text("".join(main.part(i).read_text() for i in range(number))))

    for count in counts:
        with pytest.raises(KilledError):
            run(count, data.draw(st.sets(st.sampled_from(parts), min_size=1)))
    run(data.draw(st.integers(1, 4)), ())
    assert sorted(done) == sorted(parts)
    assert out.read_text() == "".join(f"{part}\n" for part in parts)
    assert os.listdir(out.parent) == ["out.txt"]


def test_parts_of_another_job_are_refused(tmp_path):
    out = tmp_path / "out.txt"
    with pytest.raises(KilledError):
        lines_job(out, ["a", "b"], Shard(), {"window": 20, "model": "x"}, kill="b")
    left = sorted(os.listdir(tmp_path / "out.txt.partial"))
    assert left == ["000000", "job.json"]
    with pytest.raises(InputError, match=r"out\.txt\.partial: .* that differs in window, bos; finish"):
        lines_job(out, ["a", "b"], Shard(), {"window": 21, "model": "x", "bos": True})
    assert sorted(os.listdir(tmp_path / "out.txt.partial")) == left
    assert lines_job(out, ["a", "b"], Shard(), {"window": 20, "model": "x"}) == ("done", ["b"])


def test_folders_of_a_job_are_kept_for_the_next_run_and_installed_as_a_whole(tmp_path):
    out = tmp_path / "out.txt"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    with pytest.raises(KilledError), Job(out, {"a": 1}, Shard()) as job:
        for name in ("model", "empty"):
            (job.folder / name).mkdir()
        (job.folder / "model" / "checkpoint").touch()
        raise KilledError
    assert sorted(os.listdir(tmp_path / "out.txt.partial")) == ["job.json", "model"]
    with pytest.raises(InputError, match="differs in a;"), Job(out, {"a": 2}, Shard()):
        pass
    with Job(out, {"a": 1}, Shard()) as job:
        assert (job.folder / "model" / "checkpoint").is_file()

        def finish(path):
            (path.parent / "model").mkdir()
            (path.parent / "model" / "new").touch()
            path.touch()

        job.finish(finish)
    assert sorted(os.listdir(tmp_path)) == ["model", "out.txt"] and os.listdir(tmp_path / "model") == ["new"]


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_kill_while_a_finished_job_is_removed_leaves_parts_with_their_files(tmp_path, monkeypatch, call):
    def make(part, path, advance):
        path.with_suffix(".size").write_text(str(len(part)))
        write_text(path, part)

    def run():
        with Job(tmp_path / "out.txt", {}, Shard()) as job:
            job.run(["a", "bb", "ccc"], len, make, "parts", 6)
            numbers = range(3)
            sizes = [int(job.part(number).with_suffix(".size").read_text()) for number in numbers]
            texts = [job.part(number).read_text() for number in numbers]
            return job.finish(lambda path: path.write_text("".join(texts)) and sizes)

    calls = []

    def killed(path, *args, unlink=Path.unlink, **options):
        if path.name.startswith("0"):
            calls.append(path)
            if len(calls) == call:
                raise KilledError
        unlink(path, *args, **options)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Path, "unlink", killed)
        run()
    assert run() == [1, 2, 3] and os.listdir(tmp_path) == ["out.txt"]
    assert (tmp_path / "out.txt").read_text() == "abbccc"


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "out.txt.partial").mkdir()
    (tmp_path / "out.txt.partial" / "mine").touch()
    with pytest.raises(InputError, match="contains other files"):
        lines_job(tmp_path / "out.txt", ["a"], Shard())
    assert os.listdir(tmp_path / "out.txt.partial") == ["mine"]


def test_a_run_killed_while_it_writes_its_identity_is_started_again(tmp_path):
    (tmp_path / "out.txt.partial").mkdir()
    for left in (".lock", ".unfinished-1-job.json"):
        (tmp_path / "out.txt.partial" / left).touch()
    assert lines_job(tmp_path / "out.txt", ["a"], Shard()) == ("done", ["a"])
    assert os.listdir(tmp_path) == ["out.txt"]


def test_what_fails_before_the_first_part_leaves_nothing(tmp_path):
    out = tmp_path / "out.txt"
    out.write_text("old")
    with pytest.raises(KilledError):
        lines_job(out, ["a"], Shard(), kill="a")
    assert os.listdir(tmp_path) == ["out.txt"] and out.read_text() == "old"


def test_a_result_that_does_not_pass_is_not_installed(tmp_path):
    out = tmp_path / "out.txt"
    out.write_text("old")

    def finish(path):
        path.write_text("cut")
        path.with_name("beside.txt").write_text("cut")
        raise WorkError("it differs")

    with pytest.raises(WorkError), Job(out, {}, Shard()) as job:
        write_text(job.part(0), "a")
        job.finish(finish)
    assert out.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["out.txt", "out.txt.partial"]
    assert sorted(os.listdir(tmp_path / "out.txt.partial")) == ["000000", "job.json"]


HOLD = """
import sys, time
from pathlib import Path
from accelerate import PartialState
from hyenadna_hf.jobs import Job, write_text
with Job(Path(sys.argv[1]), {"a": 1}, PartialState()) as job:
    write_text(job.part(0), "part 0\\n")
    Path(sys.argv[1]).with_name("held").touch()
    time.sleep(60)
"""


def test_a_second_run_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    out = tmp_path / "out.txt"
    run = Script(HOLD, out)
    try:
        while not out.with_name("held").exists():
            assert run.process.is_alive()
            time.sleep(0.01)
        with pytest.raises(InputError, match=r"out.txt: another run is writing it; wait for it or change the output"):
            lines_job(out, ["part 0"], Shard())
        assert (tmp_path / "out.txt.partial" / "000000").read_text() == "part 0\n"
    finally:
        run.process.kill()
        run.wait()
        out.with_name("held").unlink(missing_ok=True)
    assert lines_job(out, ["part 0"], Shard()) == ("done", [])
    assert os.listdir(tmp_path) == ["out.txt"]


RACE = """
import sys
from pathlib import Path
from hyenadna_hf.errors import InputError
from hyenadna_hf.jobs import hold_lock
folder, counter = Path(sys.argv[1]) / "folder", Path(sys.argv[1]) / "counter"
had = 0
while had < 70:
    try:
        with hold_lock(folder, "it"):
            counter.write_text(str(int(counter.read_text()) + 1))
            print(1)
        had += 1
    except InputError:
        pass
"""


JOBS = """
import sys
from pathlib import Path
from accelerate import PartialState
from hyenadna_hf.errors import InputError
from hyenadna_hf.jobs import Job, write_text
done = 0
while done < 60:
    try:
        with Job(Path(sys.argv[1]) / "out", {}, PartialState()) as job:
            job.run("ab", len, lambda part, path, advance: write_text(path, part), "parts", 2)
            job.finish(lambda path: path.write_text("".join(job.part(i).read_text() for i in range(2))))
        done += 1
    except InputError as error:
        assert "another run is writing it" in str(error), error
"""


def test_runs_of_one_job_that_start_while_another_ends(tmp_path):
    runs = [run.wait() for run in [Script(JOBS, tmp_path) for _ in range(3)]]
    assert all(run.returncode == 0 for run in runs), runs
    assert os.listdir(tmp_path) == ["out"] and (tmp_path / "out").read_text() == "ab"


def test_only_one_process_has_a_lock_at_a_time(tmp_path):
    (tmp_path / "counter").write_text("0")
    runs = [run.wait() for run in [Script(RACE, tmp_path) for _ in range(3)]]
    times = sum(run.stdout.count("1") for run in runs)
    assert all(run.returncode == 0 for run in runs), runs
    assert int((tmp_path / "counter").read_text()) == times >= 200
    assert not list(tmp_path.glob("folder/*"))  # the folder stays if its maker was not the last to leave it


def test_a_lock_leaves_the_folder_as_it_was(tmp_path):
    with hold_lock(tmp_path, "here"):
        pass
    with hold_lock(tmp_path / "new", "there"):
        (tmp_path / "new" / "kept").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "kept"]


def test_an_error_of_the_system_names_the_path(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as error:
        write_text(tmp_path / "file" / "x", "text")
    assert error.value.filename == str(tmp_path / "file" / "x")

    def full(path):
        path.write_text("half")
        raise OSError("4 requested and 2 written")  # as numpy says it

    (tmp_path / "x").write_text("old")
    with pytest.raises(OSError, match="4 requested and 2 written") as error:
        replace_file(tmp_path / "x", full)
    assert error.value.filename == str(tmp_path / "x")
    assert (tmp_path / "x").read_text() == "old" and sorted(os.listdir(tmp_path)) == ["file", "x"]


def test_files_have_the_permissions_of_others(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "x", "text")
        (tmp_path / "y").write_text("text")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode


def test_the_identity_is_that_of_json(tmp_path):
    """A tuple is a list once it has been read back."""
    for _ in range(2):
        with pytest.raises(KilledError), Job(tmp_path / "out", {"regions": [("chr1", 0, 5)]}, Shard()) as job:
            write_text(job.part(0), "a")
            raise KilledError
    assert json.loads((tmp_path / "out.partial" / "job.json").read_text())["regions"] == [["chr1", 0, 5]]
    assert time.time() - (tmp_path / "out.partial" / "job.json").stat().st_mtime < 60
