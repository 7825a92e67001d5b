"""named_by_content: the same step has the same name everywhere, another seed, option or version another one."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lth.plans import Kind, Notebook, Step, step, trajectory, versioned
from keras_lth.plans.step import canonical, digest, filled, resolve
from keras_lth.store import Value
from tests.plans import toy

KIND = Kind("train", "a:b", defaults={"augment": None, "optimizer": {"name": "sgd", "momentum": 0.0}, "jit": True})

numbers = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, width=32), st.text()
)
values = st.recursive(
    numbers.filter(lambda x: not (isinstance(x, float) and np.isinf(x))),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


def test_pinned_names() -> None:
    # These may change only with the version of a kind: a store of a user's would be made again.
    init = toy.INIT(seed=3)
    line = trajectory(toy.TRAIN, init, toy.FULL(), ((0, 0.1), (60, 0.01)), noise={"order": 1})
    assert init.name == "init-" + digest("init", 1, {"seed": 3}, [])
    found = [init, line.at(50), line.slots(100), line.observed("test", every=10, to=100)]
    assert [each.name for each in found] == [
        "init-d6c91f1116deebf82ef3b30692dd97306ebdf3ca775e0c701c4b4a341ae89d7a",
        "state-11506a1fbc0c0977-50-72ce39519ef033d5335b4b704a04deec0c31aeaaf8cb1e2ef23b4b19d75758b5",
        "slots-11506a1fbc0c0977-100-f31e3b5bd9e4e60d98de6bd98eae959c95a82d465d90cdd8e0735deb0826017f",
        "observed-11506a1fbc0c0977-100-9d248e64637ada451201a46d2e8c3cde359bb2c9dc3861abb6a6c029cfd03fd0",
    ]


def test_another_process_gives_the_same_name() -> None:
    code = "from tests.plans import toy; print(toy.CUT(toy.INIT(seed=1), toy.FULL(), fraction=0.2).name)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert said == toy.CUT(toy.INIT(seed=1), toy.FULL(), fraction=0.2).name


@given(values)
def test_a_name_is_that_of_the_value(value: Any) -> None:
    form = canonical(value)
    assert digest(form) == digest(value) == digest(json.loads(json.dumps(form)))
    assert canonical(form) == form


def test_one_value_one_form() -> None:
    assert digest((1.0, np.float32(2), np.int64(3), (4,))) == digest([1, 2, 3, [4]])
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(True) != digest(1) and digest(None) != digest(0) and digest("1") != digest(1)
    assert digest(0.1) != digest(np.nextafter(0.1, 1))
    assert digest(-0.0) == digest(0)


@pytest.mark.parametrize(
    ("value", "error", "place"),
    [
        (float("nan"), ValueError, "nan"),
        ({"a": [1, object()]}, TypeError, r"\['a'\]\[1\] is a object"),
        ({1: 2}, TypeError, "the key 1"),
        (lambda x: x, TypeError, "@versioned"),
    ],
)
def test_what_cannot_be_named_is_refused(value: Any, error: type[Exception], place: str) -> None:
    with pytest.raises(error, match=place):
        canonical(value)


def test_neutral_defaults_are_not_in_the_name() -> None:
    plain = KIND(rate=0.1)
    assert plain == KIND(rate=0.1, augment=None, jit=True, optimizer={"name": "sgd"})
    assert plain == KIND(rate=0.1, optimizer={"momentum": 0})
    assert plain.params == {"rate": 0.1}
    others = [
        KIND(rate=0.2), KIND(rate=0.1, jit=False), KIND(rate=0.1, jit=1), KIND(rate=0.1, optimizer={"momentum": 0.9}),
        replace(KIND, version=2)(rate=0.1), KIND(plain, rate=0.1), Kind("other", "a:b")(rate=0.1),
    ]  # fmt: skip
    assert len({each.name for each in [plain, *others]}) == 8
    made = filled(KIND(rate=0.1, optimizer={"momentum": 0.9}).params, KIND.defaults)
    assert made == {"rate": 0.1, "augment": None, "jit": True, "optimizer": {"name": "sgd", "momentum": 0.9}}


def test_where_it_is_implemented_is_not_in_the_name() -> None:
    assert replace(KIND, make="c:d", keep=False)(rate=1) == KIND(rate=1)


@versioned(version=3)
def mean(model: Any) -> float:
    """A criterion of a user's own."""
    return float(model)


@step(version=1)
def doubled(value: Value, *, times: int = 2) -> Value:
    return Value({name: times * array for name, array in value.arrays.items()})


def test_functions_of_a_users_own() -> None:
    a = KIND(criterion=mean)
    assert a.params == {"criterion": {"function": f"{__name__}:mean", "version": 3}}
    assert mean(2) == 2.0 and "own" in (mean.__doc__ or "")
    assert doubled.step(toy.FULL(), times=2) == doubled.step(toy.FULL()) != doubled.step(toy.FULL(), times=3)
    assert doubled.step.make == f"{__name__}:doubled"
    assert doubled(Value({"a": np.ones(1)}), times=4).arrays["a"][0] == 4


def test_what_a_worker_cannot_import_is_refused() -> None:
    with pytest.raises(ValueError, match="top level of a module"):
        versioned(version=1)(lambda: None)

    with pytest.raises(ValueError, match="top level of a module"):

        @step(version=1)
        def inner(value: Value) -> Value:
            return value

    with pytest.raises(ImportError, match=r"no\.such:thing"):
        resolve("no.such:thing")
    code = "from keras_lth.plans import versioned\n@versioned(version=1)\ndef f(): pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "move it to a module" in done.stderr


def test_a_script_and_its_module_name_a_function_alike(tmp_path: Any) -> None:
    (tmp_path / "mine.py").write_text(
        "import pickle\nfrom keras_lth.plans import versioned\n@versioned(version=1)\ndef f(): return 5\n"
        "if __name__ == '__main__': print(f.recipe['function'], pickle.loads(pickle.dumps(f))())"
    )
    done = subprocess.run([sys.executable, "mine.py"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["mine:f", "5"]


def test_a_plan_may_be_thousands_of_steps_deep() -> None:
    state: Step = toy.INIT(seed=0)
    for _ in range(5000):
        state = KIND(state)
    assert len(state.name) > 64
    book = Notebook(lambda step: None)
    book.row(state)
    from keras_lth.plans.agenda import closure

    assert len(closure(book.steps)) == 5000


def test_steps_are_pickled() -> None:
    state = trajectory(toy.TRAIN, toy.INIT(seed=3), toy.FULL(), 0.1).at(5)
    assert pickle.loads(pickle.dumps(state)) == state
