"""A step: a value that can be computed, named by everything that defines it. Naming a step runs nothing."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from keras_lth.plans.trajectory import Point

_EXACT = 2**53  # every integer below it is exact as a float


@dataclass(frozen=True)
class Beside:
    """A parameter whose name differs from what the worker gets: a file, named by its digest."""

    name: Any
    given: Any


def canonical(value: Any, where: str = "parameters") -> Any:
    """Return the JSON value that stands for ``value`` in a name: 1.0 is 1, a tuple is a list, a NumPy scalar a number.

    Raises ``TypeError`` or ``ValueError`` for a value without such a form; names its place.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}, which JSON cannot hold: use a finite number.")
        return int(value) if value.is_integer() and abs(value) < _EXACT else value
    if isinstance(value, Versioned):
        return value.recipe
    if isinstance(value, Beside):
        return canonical(value.name, where)
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{where} has the key {wrong[0]!r}: keys of parameters must be strings.")
        return {key: canonical(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item, f"{where}[{place}]") for place, item in enumerate(value)]
    raise TypeError(
        f"{where} is a {type(value).__name__}, which cannot be part of a name: use numbers, strings, lists, "
        "dicts, or a "
        "function with @versioned(version=1)."
    )


def _given(value: Any) -> Any:
    """What a worker gets for a parameter: the same form as in the name, except for a `Beside`."""
    if isinstance(value, Beside):
        return value.given
    if isinstance(value, Mapping):
        return {key: _given(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_given(item) for item in value]
    return canonical(value)


def digest(*what: Any) -> str:
    """Return the SHA-256, in hex, of canonical JSON."""
    text = json.dumps(canonical(what), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Kind:
    """A kind of step, and how a worker computes it.

    Args:
        name: letters, digits, ``_`` and ``.``.
        make: "module:function" of ``function(*values of the inputs, **parameters) → Value``; the worker imports it.
        version: raise it when the same parameters give another value.
        defaults: parameters that are left out of the name if they have this value, also below a key. A default must
            never change, because existing names would then mean something else.
        keep: False for values that are cheaper to compute again than to read; they are not stored.
        long: whether a step is claimed while it is computed, so that only one process computes it.
        thin: whether a value may be removed to save space.
    """

    name: str
    make: str
    version: int = 1
    defaults: Mapping[str, Any] = field(default_factory=dict)
    keep: bool = True
    long: bool = False
    thin: bool = False

    def __call__(self, *inputs: Step, **parameters: Any) -> Step:
        """Name the step with these inputs and parameters."""
        left = _without(parameters, self.defaults)
        return Step(self, canonical(left, self.name), inputs, _given(left))

    def __hash__(self) -> int:
        return hash((self.name, self.version))


@dataclass(frozen=True, eq=False)
class Step:
    """A value that can be computed. Steps with the same name are equal.

    Attributes:
        kind: its kind.
        params: canonical parameters, without those at their default.
        inputs: the steps whose values it needs.
        given: the parameters as a worker gets them: ``params``, except for a `Beside`.
        point: for a training, its trajectory and its position on it.
        name: ``kind-digest``; of a point also the trajectory and the step.
    """

    kind: Kind
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[Step, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    point: Point | None = None
    name: str = field(init=False, default="")

    def __post_init__(self) -> None:
        # Named at once, because its inputs are named already: a plan may be thousands of steps deep.
        what = digest(self.kind.name, self.kind.version, self.params, [i.name for i in self.inputs])
        place = "" if self.point is None else f"{self.point.trajectory.id}-{self.point.step}-"
        object.__setattr__(self, "name", f"{self.kind.name}-{place}{what}")

    @functools.cached_property
    def sources(self) -> tuple[Step, ...]:
        """Return the stored steps that it depends on, directly or through steps that are not stored."""
        found: dict[str, Step] = {}
        for each in self.inputs:
            found |= {s.name: s for s in ((each,) if each.kind.keep else each.sources)}
        return tuple(found.values())

    @property
    def short(self) -> str:
        """Return its kind and enough of its name for people."""
        place = "" if self.point is None else f" at step {self.point.step}"
        return f"{self.kind.name}{place} ({self.name.rpartition('-')[2][:8]})"

    @property
    def record(self) -> dict[str, Any]:
        """Return what is written beside its value."""
        return {
            "kind": self.kind.name,
            "version": self.kind.version,
            "params": self.params,
            "inputs": [each.name for each in self.inputs],
            "thin": self.kind.thin,
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Step) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"Step({self.short})"


class StepError(Exception):
    """An exception of a step's own code, which is its ``__cause__``."""

    def __init__(self, step: Step, error: BaseException) -> None:
        super().__init__(f"{step.name}: {type(error).__name__}: {error}")
        self.step = step


@contextmanager
def blaming(step: Step) -> Iterator[None]:
    """Distinguish exceptions of a step's own code from those of the store: raise them as `StepError`."""
    try:
        yield
    except Exception as error:
        raise StepError(step, error) from error


def resolve(make: str) -> Any:
    """Return the function that "module:function" names; import errors say what to do."""
    module, _, path = make.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"{make} cannot be imported here ({error}): install its module, or run in the folder that contains it."
        ) from error
    return found


def address(function: Any) -> str:
    """Return the "module:function" by which a worker finds a user's function.

    Raises ``ValueError`` for a function that a worker could not import.
    """
    module, path = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module is None or not re.fullmatch(r"[\w.]+", path):
        raise ValueError(f"{path or function!r} is not a function at the top level of a module: move it there.")
    if module in ("__main__", "__mp_main__"):
        spec, file = getattr(sys.modules[module], "__spec__", None), getattr(sys.modules[module], "__file__", None)
        module = spec.name if spec is not None else Path(file).stem if file else module
        if file is None or importlib.util.find_spec(module) is None:
            raise ValueError(f"{path} is defined where no worker can import it: move it to a module.")
    return f"{module}:{path}"


class Versioned:
    """A user's function with a version. It is called as usual, and named by module, name and version."""

    def __init__(self, function: Callable[..., Any], version: int) -> None:
        functools.update_wrapper(self, function)
        self.function, self.version = function, version
        self.address = address(function)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function."""
        return self.function(*arguments, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        return resolve, (self.address,)

    @property
    def recipe(self) -> dict[str, Any]:
        """Return its form in parameters."""
        return {"function": self.address, "version": self.version}


class UserStep(Versioned):
    """A user's kind of step; ``.step(*inputs, **parameters)`` names one."""

    def __init__(self, function: Callable[..., Any], version: int, **options: bool) -> None:
        super().__init__(function, version)
        defaults = dict(getattr(function, "__kwdefaults__", None) or {})
        self.step = Kind(self.address.replace(":", "."), self.address, version, defaults, **options)


def versioned(version: int) -> Callable[[Callable[..., Any]], Versioned]:
    """Mark a user's function, such as a criterion or a builder, so that names of steps can include it.

    Raise ``version`` when the function computes something else; values of the old version are then computed again.
    """
    return lambda function: Versioned(function, version)


def step(
    version: int, *, keep: bool = True, long: bool = False, thin: bool = False
) -> Callable[[Callable[..., Any]], UserStep]:
    """Make a function ``(*values, **parameters) → Value`` a user's kind of step; see `UserStep` and `Kind`."""
    return lambda function: UserStep(function, version, keep=keep, long=long, thin=thin)


def called(recipe: Any) -> Any:
    """Return the user's function that a parameter names; return any other parameter unchanged."""
    return resolve(recipe["function"]) if isinstance(recipe, Mapping) and "function" in recipe else recipe


def _without(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that differ from the defaults, also below a key."""
    found = {}
    for key, value in given.items():
        if key in defaults:
            default = defaults[key]
            if isinstance(value, Mapping) and isinstance(default, Mapping):
                value = _without(value, default)
                if not value:
                    continue
            elif digest(value) == digest(default):
                continue
        found[key] = value
    return found


def filled(params: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with their defaults, also below a key: the arguments of `make`."""
    found = dict(defaults)
    for key, value in params.items():
        default = defaults.get(key)
        nested = isinstance(value, Mapping) and isinstance(default, Mapping)
        found[key] = filled(value, default or {}) if nested else value
    return found
