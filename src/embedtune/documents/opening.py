"""The bytes of a file as it was listed: regular, unchanged, and not larger than allowed."""

import os
import stat
from typing import BinaryIO

from embedtune.documents.reading import Broken, Task


def bytes_of(task: Task) -> bytes:
    """The file, or the member of an archive, that a task names.

    Raises:
        Broken: Empty, too large, changed since it was listed, or not to be expanded.
    """
    if task.entry is not None:
        from embedtune.documents.archive import member_bytes

        data = member_bytes(task)
    else:
        with opened(task.path, task.listed) as file:
            size, _ = task.listed
            check_size(size, task)
            data = file.read(size + 1)  # one that grows all the time ends here too
            check_unchanged(file, task.listed)
    if not data:
        raise Broken("empty-file", "empty file")
    return data


def opened(path: str, listed: tuple[int, int]) -> BinaryIO:
    """The open file. Never waits for a pipe."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    file = os.fdopen(handle, "rb")
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Broken("special-file", "not a regular file")
        check_unchanged(file, listed)
    except BaseException:
        file.close()
        raise
    return file


def check_unchanged(file: BinaryIO, listed: tuple[int, int]) -> None:
    status = os.fstat(file.fileno())
    if (status.st_size, status.st_mtime_ns) != listed:
        raise Broken("changed", "changed while it was read; run again")


def check_size(size: int, task: Task) -> None:
    if size > task.most_bytes:
        most = f"{task.most_bytes:,} (documents.max_megabytes)"
        raise Broken("limits", f"{size:,} bytes; the memory limit is {most}")
