"""Names of weights and the patterns that match them: one matcher for the whole package, without Keras.

A weight has a structural path, the same for every instance of one architecture, and the names under which Keras shows
it (`model.summary()`, `variable.path`), which have counters: Keras may show ``dense_1/kernel`` as ``dense_5/kernel``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

Value = TypeVar("Value")

_REGEX = re.compile(r"[\\^$.*+?{}\[\]()|]")


class WeightPath(str):
    """A structural path that also knows the names under which Keras shows the weight.

    It equals the plain string of its path. As a pattern it matches only the weight with that path.
    """

    shown: tuple[str, ...]

    def __new__(cls, path: str, shown: Iterable[str] = ()) -> WeightPath:
        """Join a path and the names that Keras shows."""
        self = super().__new__(cls, path)
        self.shown = tuple(shown)
        return self


def shown_as(path: str) -> str:
    """Return the path, followed in brackets by the name that Keras shows if the two differ."""
    shown = getattr(path, "shown", ())
    return f"{path} (shown as {shown[0]})" if shown and path not in shown else str(path)


def reached(patterns: Iterable[str], paths: Iterable[str], what: str, of: str = "weight") -> dict[str, set[str]]:
    """Find the paths that each pattern matches.

    A pattern without regex characters names whole parts of a path: ``dense`` matches ``dense/kernel`` and
    ``block/dense/kernel``, but not ``dense_1/kernel``. Any other pattern is a regular expression (``re.search``),
    unless it is literally such a name. If every pattern matches some name that Keras shows, those names are used.
    Otherwise, if every pattern matches some structural path, those paths are used. Otherwise each pattern is used
    wherever it matches.

    Args:
        patterns: regular expressions or plain names; a `WeightPath` matches itself.
        paths: paths of the weights; if they are `WeightPath`, Keras' names are known too.
        what: the argument that contains the patterns, for errors.
        of: what the paths are, for errors.

    Raises:
        TypeError: a pattern that is not a string.
        ValueError: an invalid regular expression, or a pattern that matches nothing; lists similar names.
    """
    paths, patterns = list(paths), list(patterns)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{what} must be names, regular expressions or functions, not {pattern!r}")
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{what}={pattern!r} is not a regular expression: {error}") from error
    by_keras = {path: getattr(path, "shown", ()) for path in paths}
    by_place = {path: (str(path),) for path in paths}
    readings = [{pattern: _hits(pattern, names) for pattern in patterns} for names in (by_keras, by_place)]
    for reading in readings:
        if all(reading.values()):
            return reading
    shown, placed = readings
    for pattern in patterns:
        if not shown[pattern] and not placed[pattern]:
            raise ValueError(_nothing(pattern, paths, what, of))
    return {pattern: shown[pattern] or placed[pattern] for pattern in patterns}


def chosen(
    given: Any, paths: Iterable[str], what: str, *, call: Callable[[Callable[..., bool], str], bool], of: str = "weight"
) -> set[str]:
    """Return the paths that a filter matches: a pattern, a function, or several of both. ``call`` calls a function.

    Raises:
        TypeError, ValueError: as in `reached`.
    """
    paths = list(paths)
    if given is None:
        return set()
    items = [given] if isinstance(given, str) or callable(given) else given
    if not isinstance(items, Iterable):
        raise TypeError(f"{what} must be names, regular expressions or functions, not {given!r}")
    items = list(items)
    functions = [item for item in items if callable(item)]
    found = {path for function in functions for path in paths if call(function, path)}
    patterns = reached((item for item in items if not callable(item)), paths, what, of)
    return found.union(*patterns.values())


def assigned(given: Mapping[str, Value], paths: Iterable[str], what: str, among: Iterable[str]) -> dict[str, Value]:
    """Give each path the value of the first pattern that matches it.

    Args:
        given: pattern → value.
        paths: the paths that need a value.
        what: the argument, for errors.
        among: all paths that a pattern may match, including those that need no value.

    Raises:
        ValueError: a path that no pattern matches, a pattern that matches nothing, or one that comes after a wider
            pattern and so never applies.
    """
    hits = reached(given, list(among), what)
    values = {}
    for path in paths:
        first = next((pattern for pattern in given if path in hits[pattern]), None)
        if first is None:
            raise ValueError(
                f"no {what} for {path!r}: none of {listed(given)} matches it; add one, such as '.*' at the end, or "
                "exclude it"
            )
        values[path] = given[first]
    patterns = list(given)
    for number, later in enumerate(patterns):
        for earlier in patterns[:number]:
            if hits[later] < hits[earlier]:
                raise ValueError(
                    f"{what}: the first match wins, and {earlier!r} comes before {later!r} and matches all of its "
                    f"weights; write {later!r} before {earlier!r}"
                )
    return values


def spelled(names: Iterable[str], paths: Iterable[str]) -> dict[str, str]:
    """Return the path of each name: by the names that Keras shows if all names are such, else the name itself."""
    names = list(names)
    by_keras = {shown: path for path in paths for shown in getattr(path, "shown", ())}
    if any(isinstance(name, WeightPath) or name not in by_keras for name in names):
        return {name: name for name in names}
    return {name: by_keras[name] for name in names}


def listed(values: Iterable[Any], limit: int = 8) -> str:
    """List at most ``limit`` of the values, and their number if there are more."""
    unique = list(dict.fromkeys(map(str, values)))
    return ", ".join(unique[:limit]) + (f", … ({len(unique)})" if len(unique) > limit else "")


def few(values: Iterable[Any], width: int = 120) -> str:
    """List as many of the values as fit into ``width`` characters, at least one; "…" stands for the rest."""
    texts = list(map(str, values))
    shown = texts[:1]
    for text in texts[1:]:
        if len(", ".join([*shown, text])) > width:
            break
        shown.append(text)
    line = ", ".join(shown)
    line = line if len(line) <= width else line[: width - 1] + "…"
    return line + (", …" if len(shown) < len(texts) else "")


def near(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Return the known names that are closest to ``name``."""
    known = list(dict.fromkeys(known))
    inside = [other for other in known if name and (name in other or other in name)]
    return list(dict.fromkeys([*difflib.get_close_matches(name, known, limit, 0.5), *inside]))[:limit]


def hint(name: Any, known: Iterable[Any], of: str = "known") -> str:
    """Return what to write instead of an unknown name: the closest known ones, or else all, after ``of``."""
    known = list(map(str, known))
    close = near(str(name), known)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"{of}: {', '.join(map(repr, known))}."


def check_known(what: str, name: Any, known: Iterable[Any]) -> None:
    """Raise ``ValueError`` for a name that is not in ``known``; suggest similar ones."""
    if name not in (listed := list(known)):
        raise ValueError(f"{what} has no {name!r}: {hint(name, listed)}")


def _hits(pattern: str, names: Mapping[str, Sequence[str]]) -> set[str]:
    if isinstance(pattern, WeightPath):
        return {path for path in names if path == pattern}
    parts = pattern.strip("/")
    plain = {path for path, own in names.items() if any(f"/{parts}/" in f"/{name}/" for name in own) or not parts}
    if plain or not _REGEX.search(pattern):
        return plain
    return {path for path, own in names.items() if any(re.search(pattern, name) for name in own)}


def _nothing(pattern: str, paths: Sequence[str], what: str, of: str) -> str:
    names = [name for path in paths for name in (*getattr(path, "shown", ()), str(path))]
    parts = [part for name in names for part in name.split("/")]
    close = near(pattern, [*parts, *names])
    text = f"{what}={pattern!r} matches no {of}"
    if close:
        text += f"; similar: {', '.join(map(repr, close))}"
    if any(pattern in name for name in close) and not _REGEX.search(pattern):
        text += f" (a plain name matches whole parts of a path: write {pattern + '.*'!r} for a prefix)"
    return f"{text}; the paths are {listed(map(shown_as, paths))}"
