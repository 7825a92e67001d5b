"""The file systems that TensorFlow supports: ``gs://``, and others that plug-ins of TensorFlow provide."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any

from keras_lth.files.stores import ObjectStore


class TensorFlowStore(ObjectStore):
    """An object store behind ``tf.io.gfile``; TensorFlow is imported at the first call."""

    def read(self, path: str) -> bytes:
        """Return the content of the object."""
        with _as_os_error(path, "read") as gfile, gfile.GFile(path, "rb") as file:
            return file.read()

    def put(self, path: str, data: bytes) -> None:
        """Write the object; it becomes visible, whole, when the writer is closed."""
        with _as_os_error(path, "write") as gfile, gfile.GFile(path, "wb") as file:
            file.write(data)

    def names(self, folder: str) -> list[str]:
        """Return the names of objects and of common prefixes below `folder`."""
        try:
            with _as_os_error(folder, "list") as gfile:
                return sorted({name.rstrip("/") for name in gfile.listdir(folder)})
        except FileNotFoundError:
            return []

    def remove(self, path: str) -> None:
        """Remove the object, if it exists."""
        with contextlib.suppress(FileNotFoundError), _as_os_error(path, "remove") as gfile:
            gfile.remove(path)


@contextlib.contextmanager
def _as_os_error(path: str, action: str) -> Iterator[Any]:
    """Convert TensorFlow's errors to the OSErrors that callers of local files expect, with what to check."""
    import tensorflow as tf

    try:
        yield tf.io.gfile
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
    except (tf.errors.PermissionDeniedError, tf.errors.UnauthenticatedError) as error:
        advice = "the account of this machine needs the role Storage Object Admin on the bucket"
        raise PermissionError(errno.EACCES, f"cannot {action}: {_first_line(error)}; {advice}", path) from error
    except tf.errors.UnimplementedError as error:
        reason = f"TensorFlow has no file system for this scheme: {_first_line(error)}"
        raise OSError(errno.EPROTONOSUPPORT, reason, path) from error
    except tf.errors.DataLossError as error:
        raise OSError(errno.EIO, f"cannot {action}: {_first_line(error)}", path) from error
    except tf.errors.OpError as error:
        advice = "check the name of the bucket, the network and the credentials"
        raise ConnectionError(errno.ECONNABORTED, f"cannot {action}: {_first_line(error)}; {advice}", path) from error


def _first_line(error: Any) -> str:
    return (str(error.message) or type(error).__name__).strip().splitlines()[0][:300]
