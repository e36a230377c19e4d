"""A secret in files: rotation while it is used, and files that are missing, unreadable or half written."""

import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from runtime.access import secret
from runtime.access.secret import ADDITIONAL, CURRENT, READ_INTERVAL, REREAD_INTERVAL, RotatingSecret
from runtime.config import ConfigError

OLD, NEW, THIRD = "o" * 64, "n" * 64, "t" * 64


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    stopped = Clock()
    monkeypatch.setattr(secret, "time", stopped)
    return stopped


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, CURRENT, OLD)
    return tmp_path


def write(folder: Path, name: str, value: str) -> None:
    """Replaces a file at once, as a kubelet and local/secret_files.py do."""
    (folder / "new").write_text(value)
    (folder / "new").rename(folder / name)


def read(folder: Path) -> RotatingSecret:
    return RotatingSecret(folder, "INTERNAL_CREDENTIALS")


def test_current_secret_is_sent_and_both_are_accepted(folder: Path) -> None:
    write(folder, ADDITIONAL, f"{NEW}\n")
    both = read(folder)
    assert (both.current, both.accepted) == (OLD, (OLD, NEW))
    assert both.accepts(OLD)
    assert both.accepts(NEW)
    assert not both.accepts(THIRD)


@pytest.mark.parametrize("value", ["", "o" * 63, "o" * 65, f" {OLD}", f"{OLD}\n", OLD.upper(), "ö" * 64, "\0"])
def test_similar_value_is_not_accepted(folder: Path, value: str) -> None:
    assert not read(folder).accepts(value)


def test_rotation_never_refuses_what_a_process_sends(folder: Path, clock: Clock) -> None:
    """Two processes read the files at different times, and each step waits until both have."""
    one, other = read(folder), read(folder)

    def both_ways() -> None:
        for sender, receiver in ((one, other), (other, one)):
            sent = sender.current
            assert receiver.accepts(sent)

    for step in ("add", "exchange", "remove"):
        if step == "add":
            write(folder, ADDITIONAL, NEW)
        elif step == "exchange":
            # The two files are not replaced at the same moment.
            write(folder, CURRENT, NEW)
            both_ways()
            write(folder, ADDITIONAL, OLD)
        else:
            (folder / ADDITIONAL).unlink()
        both_ways()
        clock.now += READ_INTERVAL
        assert one.current  # reads; the other one has not yet
        both_ways()
        clock.now += READ_INTERVAL
        both_ways()
    assert one.accepted == other.accepted == (NEW,)
    assert not one.accepts(OLD)


def test_newer_secret_is_looked_for_at_once(folder: Path, clock: Clock) -> None:
    reader = read(folder)
    write(folder, CURRENT, NEW)
    clock.now += 2 * REREAD_INTERVAL
    assert reader.accepts(NEW)


def test_wrong_values_do_not_read_the_files_each_time(folder: Path, clock: Clock) -> None:
    reader = read(folder)
    clock.now += 2 * REREAD_INTERVAL
    assert not reader.accepts(THIRD)
    write(folder, CURRENT, NEW)
    assert not reader.accepts(NEW)  # it was read a moment ago
    clock.now += 2 * REREAD_INTERVAL
    assert reader.accepts(NEW)


def test_files_are_not_read_for_each_call(folder: Path, clock: Clock) -> None:
    reader = read(folder)
    (folder / CURRENT).unlink()
    clock.now += READ_INTERVAL / 2
    assert reader.current == OLD


@pytest.mark.parametrize("damage", ["removed", "empty", "short", "binary", "folder removed"])
def test_damaged_file_leaves_what_was_read(
    folder: Path, clock: Clock, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader = read(folder)
    file = folder / CURRENT
    match damage:
        case "removed":
            file.unlink()
        case "empty":
            file.write_text("")
        case "short":
            file.write_text("x" * 31)
        case "binary":
            file.write_bytes(b"\xff" * 64)
        case _:
            file.unlink()
            folder.rmdir()
    clock.now += READ_INTERVAL
    with caplog.at_level(logging.WARNING):
        assert reader.accepts(OLD)
        assert not reader.accepts("")
        assert not reader.accepts("x" * 31)
    assert "cannot read the secret" in caplog.text
    assert OLD not in caplog.text
    folder.mkdir(exist_ok=True)
    write(folder, CURRENT, NEW)
    clock.now += READ_INTERVAL
    assert reader.accepted == (NEW,)


def test_damaged_additional_file_does_not_end_the_current_secret(folder: Path, clock: Clock) -> None:
    reader = read(folder)
    write(folder, ADDITIONAL, "short")
    clock.now += READ_INTERVAL
    assert reader.accepted == (OLD,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*/current: No such file or directory"),
        (b"", "must have 32 characters or more"),
        (b"x" * 31 + b"\n", "must have 32 characters or more"),
        (b"\xff" * 64, "."),
    ],
)
def test_unusable_secret_stops_the_start(tmp_path: Path, content: bytes | None, message: str) -> None:
    """In one line, which names the variable and not the secret."""
    if content is not None:
        (tmp_path / CURRENT).write_bytes(content)
    with pytest.raises(ConfigError, match=f"^INTERNAL_CREDENTIALS: .*{message}") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
    assert "xxx" not in str(caught.value)


def test_file_without_permission_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / CURRENT).mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        read(tmp_path)


def test_replaced_folder_is_read_again(tmp_path: Path, clock: Clock) -> None:
    """As on Kubernetes, where the files are links into a folder that is replaced as a whole."""
    for name, value in (("1", OLD), ("2", NEW)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, CURRENT, value)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    (mounted / "..data").symlink_to(tmp_path / "1")
    (mounted / CURRENT).symlink_to(Path("..data") / CURRENT)
    reader = read(mounted)
    assert reader.current == OLD
    (mounted / "new").symlink_to(tmp_path / "2")
    os.replace(mounted / "new", mounted / "..data")
    clock.now += READ_INTERVAL
    assert reader.current == NEW


def test_files_exchanged_during_a_read_are_both_accepted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, ADDITIONAL, NEW)
    read_text = Path.read_text

    def exchange_before(path: Path, *arguments: Any) -> str:
        if path.name == ADDITIONAL:
            monkeypatch.setattr(Path, "read_text", read_text)
            write(folder, CURRENT, NEW)
            write(folder, ADDITIONAL, OLD)
        return read_text(path, *arguments)

    monkeypatch.setattr(Path, "read_text", exchange_before)
    assert set(read(folder).accepted) == {OLD, NEW}


def test_files_replaced_during_reads_never_yield_another_value(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret, "READ_INTERVAL", 0.0)
    monkeypatch.setattr(secret, "REREAD_INTERVAL", 0.0)
    write(folder, ADDITIONAL, NEW)
    reader, stop = read(folder), threading.Event()

    def rotate() -> None:
        while not stop.is_set():
            for name, value in ((CURRENT, NEW), (ADDITIONAL, OLD), (CURRENT, OLD), (ADDITIONAL, NEW)):
                write(folder, name, value)

    writer = threading.Thread(target=rotate)
    writer.start()
    try:
        for _ in range(2_000):
            assert set(reader.accepted) <= {OLD, NEW}
            assert not reader.accepts(THIRD)
    finally:
        stop.set()
        writer.join()
