"""``fit`` on data whose order is fixed: Keras warns that its own default, ``shuffle=True``, is ignored there."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from keras_lth.surgery.teaching import Wrap

__all__ = ["unshuffled"]


def unshuffled(kind: type) -> Wrap:
    """Wraps a ``fit`` so that ``shuffle`` is False by default for data of this kind; other data is not touched."""

    def wrap(fit: Any) -> Any:
        names = list(inspect.signature(fit).parameters)
        if "shuffle" not in names:
            return fit
        position = names.index("shuffle") - 2  # behind self and x

        @functools.wraps(fit)
        def fitting(self: Any, x: Any = None, *args: Any, **kwargs: Any) -> Any:
            if isinstance(x, kind) and len(args) <= position:
                kwargs.setdefault("shuffle", False)
            return fit(self, x, *args, **kwargs)

        return fitting

    return wrap
