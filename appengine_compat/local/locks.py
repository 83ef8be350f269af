"""A lock on a file that the operating system lets go of when its process dies."""

from __future__ import annotations

import errno
import os
import sys
import weakref

_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


class FileLock:
    """One exclusive lock. It belongs to the process that acquired it, not to its forks.

    Attributes:
        is_supported: whether the file system has such locks, as far as is known.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_supported = True
        self._descriptor = -1

    def acquire(self) -> bool:
        """Take the lock and return True, or return False when another process has it.

        Raises:
            OSError: the file cannot be made or opened.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                return False
            self.is_supported = False
            return False
        self._descriptor = descriptor
        _held.add(self)
        return True

    def release(self) -> None:
        """Let go of the lock, if it is held."""
        descriptor, self._descriptor = self._descriptor, -1
        _held.discard(self)
        if descriptor >= 0:
            os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        # flock, not POSIX locks: those are lost when any descriptor of the file is closed.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _let_go_in_child() -> None:
        # A fork shares the lock: kept open in a child, it would outlive its owner.
        for lock in list(_held):
            lock.release()

    os.register_at_fork(after_in_child=_let_go_in_child)
