"""Opening a file that may turn out to be anything: only regular files are opened for reading.

A pipe under the name of a checkpoint, an image or a recipe would be waited for without end, a device such as /dev/zero
read without end. Checked on the open descriptor, so that nothing can be exchanged between the look and the reading.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path, *, follow_links: bool = True) -> BinaryIO:
    """The regular file `path`, open for reading.

    Raises:
        OSError: as of `open`; with the reason as its `strerror` also for folders, pipes, sockets and devices, and for
            symbolic links unless they are followed.
    """
    # O_NONBLOCK: opening a pipe must not wait for a writer; on regular files it does nothing.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
