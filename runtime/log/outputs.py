"""Files of the log: JSON lines and TensorBoard's events. Both are appended without a buffer, whole lines or nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from tidesplit.data.files import whole
from tidesplit.runtime.log.record import Record

CARD = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO}  # failures of a card or disk, not mistakes of the user
STDOUT = 1


class Appended:
    """A file that grows at its end. The first write opens it, and so does one after `reopen` or if it was deleted."""

    def __init__(self, path: Path) -> None:
        self._path, self._descriptor, self._moved = path, -1, False

    def reopen(self) -> None:
        """Open the path once more before the next write, as a new file may be there. Safe in a signal handler."""
        self._moved = True

    def write(self, data: bytes) -> int:
        """Append all of `data` and return its size. After a failure nothing of it is left, where files can shrink."""
        file, left = self._open(), data
        try:
            while left:
                left = left[os.write(file, left) :]
        except OSError:
            if written := len(data) - len(left):
                with contextlib.suppress(OSError):
                    os.ftruncate(file, os.fstat(file).st_size - written)
            raise
        return len(data)

    def flush(self) -> None:
        """Nothing waits in a buffer."""

    def close(self) -> None:
        """Close the file. A later write opens it again."""
        if self._descriptor > STDOUT:
            os.close(self._descriptor)
        self._descriptor = -1

    def _open(self) -> int:
        if self._moved or (self._descriptor >= 0 and os.fstat(self._descriptor).st_nlink == 0):
            self._moved = False
            self.close()
        if self._descriptor < 0:
            self._descriptor = STDOUT if str(self._path) == "-" else _opened(self._path)
        return self._descriptor


def _opened(path: Path) -> int:
    """Open for appending. A last line that a crash cut short is ended."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666) if _regular(path) else os.open(path, os.O_WRONLY)
    if _regular(path) and (size := os.fstat(file).st_size) and os.pread(file, 1, size - 1) != b"\n":
        os.write(file, b"\n")
    return file


def _regular(path: Path) -> bool:
    """True for a file, or where nothing is yet. A pipe or a device can neither be read back nor shrink."""
    return not path.exists() or stat.S_ISREG(path.stat().st_mode)


class JsonLines:
    """Writes one JSON object a line, with the time of day (UTC, seconds since 1970). `-` is the standard output.

    Raises:
        ValueError: the file cannot be opened. A full or read-only card raises nothing: it is tried again.
    """

    def __init__(self, path: Path) -> None:
        self.title = f"--json {path}"
        self._file = Appended(path)
        self.reopen, self.close = self._file.reopen, self._file.close
        if path.is_dir():
            raise ValueError(f"{self.title} is a folder, a file expected")
        if str(path) != "-" and _regular(path):
            try:
                self._file.write(b"")
            except OSError as error:
                if error.errno not in CARD:
                    raise ValueError(f"{self.title} cannot be opened: {error.strerror}") from error

    def __call__(self, record: Record) -> None:
        """Take a settled frame's record."""
        line = {"time": round(time.time(), 3), **record.as_json()}
        self._file.write(json.dumps(line).encode() + b"\n")


class TensorFiles:
    """Writes each answer's tensors to `folder/FRAME.npz`, arrays by name. Answers that are classes write nothing.

    Raises:
        ValueError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.title = f"--tensors {folder}"
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno not in CARD:
                raise ValueError(f"{self.title}: the folder cannot be made: {error.strerror}") from error

    def __call__(self, record: Record) -> None:
        """Take a settled frame's record."""
        if tensors := record.tensors():
            self._folder.mkdir(parents=True, exist_ok=True)
            with whole(self._folder / f"{record.frame:08d}.npz") as part, ZipFile(part, "w") as archive:
                for name, tensor in tensors.items():  # as np.savez does, which takes no array of the name `file`
                    with archive.open(f"{name}.npy", "w") as file:
                        np.lib.format.write_array(file, tensor, allow_pickle=False)


class Board:
    """Writes figures over time for TensorBoard, into a new file of `folder` at the start and after a failure.

    Raises:
        ValueError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            raise ValueError("--tensorboard needs a package that is missing: pip install tensorboard") from error
        self.title = f"--tensorboard {folder}"
        self._folder, self._files = folder, 0
        self._event, self._summary, self._writer_of = Event, Summary, RecordWriter
        self._path: Path | None = None
        self._writer: Any = None

    def __call__(self, record: Record) -> None:
        """Take a settled frame's record."""
        figures = {
            "latency_ms": 1e3 * min(record.latency_s, record.demand.deadline_s),
            "missed": float(record.answered_by == "miss"),
            "answered_by_server": float(record.answered_by == "server"),
            "utility": record.utility,
            "bytes": float(record.sent_bytes),
            "uplink_mbps": 8e-6 * record.state["goodput"],
            "decision_row": float(record.row),
        }
        if record.joules is not None:
            figures |= {"joules": record.joules, "watts": record.joules / record.demand.period_s}
        if record.spending is not None:
            known = record.spending._asdict().items()
            figures |= {f"spending/{name}": value for name, value in known if value is not None}
        if record.picture_age_s is not None:
            figures["picture_age_ms"] = 1e3 * record.picture_age_s
        if self._path is None or not self._path.exists():
            self._begin()
        values = [self._summary.Value(tag=f"edge/{name}", simple_value=value) for name, value in figures.items()]
        self._write(step=record.frame, summary=self._summary(value=values))

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()

    def _begin(self) -> None:
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files += 1
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{self._files}"
        path = self._folder / name
        self._writer = self._writer_of(Appended(path))
        self._write(file_version="brain.Event:2")
        self._path = path

    def _write(self, **content: Any) -> None:
        self._writer.write(self._event(wall_time=time.time(), **content).SerializeToString())
