"""Work in a forked process, which need not import what its parent imported."""

import os
import traceback
from collections.abc import Callable


def in_child(log: str, work: Callable[[], object]) -> int:
    """Fork; do the work with its output at the end of a file; return the child's process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        work()
        status = 0
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
