"""One process at a time in a folder, temporary files of killed processes, and files that are published together."""
from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnmiss import atomic_files, folder_lock
from nnmiss.atomic_files import is_running, remove_leftovers, replacing, replacing_together, write_text
from nnmiss.errors import NnmissError
from nnmiss.folder_lock import NAME, only_one


def holder(folder: Path, shared: str | None = None, orphan: bool = False) -> int:
    """A child that holds the lock until it is killed; with `orphan` it has a child of its own, which stays."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with only_one(folder, "trains fold 0", shared):
            if orphan and os.fork() == 0:
                os.write(tell, f"{os.getpid()}\n".encode())
                time.sleep(60)
                os._exit(0)
            if not orphan:
                os.write(tell, b"0\n")
            time.sleep(60)
        os._exit(0)
    grandchild = int(os.read(ready, 20))
    if grandchild:
        orphans.append(grandchild)
    return child


orphans: list[int] = []


def end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_second_process_is_told_who_works_there(tmp_path):
    child = holder(tmp_path)
    with pytest.raises(NnmissError, match=rf"process {child} on .+ trains fold 0, since"), only_one(tmp_path, "trains"):
        pass
    end(child)
    with only_one(tmp_path, "trains"), only_one(tmp_path, "validates"):  # free at once, and open to the same process
        assert (tmp_path / NAME).is_file()
    assert not list(tmp_path.iterdir())


def test_the_loading_processes_of_a_killed_training_do_not_hold_its_lock(tmp_path):
    child = holder(tmp_path, orphan=True)
    with pytest.raises(NnmissError), only_one(tmp_path, "trains"):
        pass
    end(child)
    with only_one(tmp_path, "trains"):
        pass
    os.kill(orphans.pop(), signal.SIGKILL)


def test_those_that_do_the_same_may_work_together(tmp_path):
    child = holder(tmp_path, shared="model a")
    with only_one(tmp_path, "predicts", shared="model a"):
        pass
    with pytest.raises(NnmissError, match="trains fold 0"), only_one(tmp_path, "predicts", shared="model b"):
        pass
    with pytest.raises(NnmissError, match="trains fold 0"), only_one(tmp_path, "trains"):
        pass
    end(child)
    with only_one(tmp_path, "predicts", shared="model b"):
        pass


def test_who_signs_a_shared_lock_has_it_alone_only_for_a_moment(tmp_path):
    file = tmp_path / NAME
    file.write_text('{"shared": "model a"}')
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with open(file, "r+") as opened:
            fcntl.lockf(opened, fcntl.LOCK_EX)
            os.write(tell, b"0")
            time.sleep(0.3)
            fcntl.lockf(opened, fcntl.LOCK_SH)
            time.sleep(60)
    os.read(ready, 1)
    with only_one(tmp_path, "predicts", shared="model a"):
        pass
    end(child)


def test_what_another_user_left_can_be_taken_over(tmp_path):
    mask = os.umask(0o077)
    try:
        with only_one(tmp_path, "trains"):
            assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(mask)


def test_without_locks_of_the_file_system_the_named_process_decides(tmp_path, monkeypatch):
    def no_locks(*arguments):
        raise OSError(37, "No locks available")

    child = holder(tmp_path)
    monkeypatch.setattr("nnmiss.folder_lock.fcntl.lockf", no_locks)
    with pytest.raises(NnmissError, match=f"process {child}"), only_one(tmp_path, "trains"):
        pass
    end(child)
    with only_one(tmp_path, "trains"):
        pass


def test_leftovers_of_ended_processes_go_and_those_of_others_stay(tmp_path):
    child = os.fork()
    if child == 0:
        with replacing(tmp_path / "checkpoint.pth") as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with replacing(tmp_path / "mine.nii.gz") as temporary:
        temporary.write_bytes(b"x")
        (tmp_path / ".case.17-00000000.tmp.json").write_text("of another machine")
        (tmp_path / ".user_file.json").write_text("{}")
        assert len(list(tmp_path.iterdir())) == 4
        remove_leftovers(tmp_path)
        assert {file.name for file in tmp_path.iterdir()} == {temporary.name, ".case.17-00000000.tmp.json",
                                                              ".user_file.json"}
    remove_leftovers(tmp_path, nobody_writes=True)
    assert {file.name for file in tmp_path.iterdir()} == {"mine.nii.gz", ".user_file.json"}


def test_files_are_published_together_or_not_at_all(tmp_path):
    def write(text: str, fail: bool = False) -> None:
        with replacing_together(tmp_path, "case.nii.gz", ("case.npz",)) as inside:
            write_text(inside / "case.json", text)
            (inside / "uncertainty").mkdir()
            write_text(inside / "uncertainty" / "case.nii.gz", text)
            if fail:
                raise OSError(28, "No space left on device")
            write_text(inside / "case.nii.gz", text)

    write("one")
    (tmp_path / "case.npz").write_text("one")
    with pytest.raises(OSError, match=r"case\.nii\.gz could not be written"):
        write("two", fail=True)
    files = ("case.json", "case.nii.gz", "uncertainty/case.nii.gz")
    assert [(tmp_path / name).read_text() for name in (*files, "case.npz")] == ["one"] * 4
    write("two")
    assert [(tmp_path / name).read_text() for name in files] == ["two"] * 3
    assert {file.name for file in tmp_path.iterdir()} == {"case.json", "case.nii.gz", "uncertainty"}


class Windows:
    """kernel32 with processes 7 (runs), 8 (ended, its handle still known) and 9 (another user's)."""

    closed = 0

    def OpenProcess(self, rights, inherit, process):
        return process.value if process.value in (7, 8) else 0

    def GetLastError(self):
        return self.error

    def GetExitCodeProcess(self, handle, code):
        code._obj.value = {7: 259, 8: 0}[handle]
        return 1

    def CloseHandle(self, handle):
        self.closed += 1


@pytest.mark.parametrize("process, error, expected", [(7, 0, True), (8, 0, False), (9, 5, True), (10, 87, False)])
def test_looking_for_a_process_on_windows_does_not_end_it(monkeypatch, process, error, expected):
    system = Windows()
    system.error = error
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=system), raising=False)
    monkeypatch.setattr(atomic_files, "os", SimpleNamespace(name="nt"))  # without kill
    assert is_running(process) == expected
    assert system.closed == (process in (7, 8))


@pytest.mark.parametrize("process, refused", [(None, False), ("7", False), (10**30, False), (-1, False), (True, False),
                                              (0, False), (1, True)])
def test_without_locks_a_strange_record_is_no_process(tmp_path, monkeypatch, process, refused):
    monkeypatch.setattr(folder_lock, "fcntl", None)
    (tmp_path / NAME).write_text(json.dumps({"process": process, "host": socket.gethostname(), "doing": "trains"}))
    if refused:
        with pytest.raises(NnmissError, match="process 1 on"), only_one(tmp_path, "trains"):
            pass
    else:
        monkeypatch.delattr(os, "pwrite")  # as on Windows
        with only_one(tmp_path, "trains"):
            assert json.loads((tmp_path / NAME).read_text())["process"] == os.getpid()
        assert not (tmp_path / NAME).exists()
