"""A flag that the driver raises once and all workers see, without a named semaphore.

A ``multiprocessing.Event`` has five semaphores in ``/dev/shm``, which stay there if the whole group is killed. The flag
is a pipe that nobody reads: it can be read from once something was written, and also once the driver is dead.
"""

from __future__ import annotations

import contextlib
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext


class StopFlag:
    """The workers' end; it can be sent to a process that is started.

    Args:
        reader: end of the pipe to read from.
    """

    def __init__(self, reader: Connection) -> None:
        self._reader, self._seen = reader, False

    def is_set(self) -> bool:
        """Return whether the workers are to stop."""
        self._seen = self._seen or self._reader.poll(0)
        return self._seen


class StopSwitch:
    """The driver's end.

    Args:
        context: how the workers are started.

    Attributes:
        flag: what is sent to the workers.
    """

    def __init__(self, context: SpawnContext) -> None:
        reader, self._writer = context.Pipe(duplex=False)
        self.flag = StopFlag(reader)
        self._done = False

    def set(self) -> None:
        """Raise the flag, for ever."""
        if not self._done:
            self._done = True
            with contextlib.suppress(OSError):
                self._writer.send_bytes(b"stop")
