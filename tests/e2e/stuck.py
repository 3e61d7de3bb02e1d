"""Threads that do not respond."""

import contextlib
import ctypes
import os
from pathlib import Path


@contextlib.contextmanager
def stuck(pid, name):
    """Stops one thread of a process, as a debugger would, until the process is killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    tasks = Path(f"/proc/{pid}/task").iterdir()
    [thread] = [int(task.name) for task in tasks if (task / "comm").read_text().strip() == name]
    seize, interrupt, detach, all_children = 0x4206, 0x4207, 17, 0x40000000
    assert libc.ptrace(seize, thread, None, None) == 0, os.strerror(ctypes.get_errno())
    libc.ptrace(interrupt, thread, None, None)
    os.waitpid(thread, all_children)

    def is_gone():
        """the process has ended"""
        # Its parent hears of the end once the tracer knows that the thread has ended.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(thread, os.WNOHANG | all_children)
        return not Path(f"/proc/{pid}/task/{thread}").exists()

    try:
        yield is_gone
    finally:
        libc.ptrace(detach, thread, None, None)
