"""A traced function with its variables made arguments, so that it can be lowered for a device that is not there.

TensorFlow lowers a function for a platform without its device only if no argument is a resource, and a training step
reads and writes a hundred variables. Here the graph of such a function is run again, operation by operation, into a new
one in which each variable is a tensor: a read is its present value, an assignment replaces it, a loop carries all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import function_def_to_graph


@dataclass(frozen=True)
class Place:
    """A variable's place in the state; stands where the trace has the variable's handle."""

    number: int


def with_variables_as_arguments(traced: Any) -> tuple[Callable[..., Any], list[Any], list[Any]]:
    """Rewrites a ``ConcreteFunction`` whose results are its assignments.

    Returns:
      A function (variables, arguments) → variables without side effects; the present values of the variables; and the
      arguments of which the trace knows the value, that is what it captured. The function's own arguments follow them.

    Raises:
      NotImplementedError: an operation on a variable that is not known here, by its kind.
    """
    outside = [external for external, _ in traced.graph.captures]
    inside = [internal for _, internal in traced.graph.captures]
    handles = [tensor for tensor in outside if tensor.dtype == tf.resource]
    captured = [tensor for tensor in outside if tensor.dtype != tf.resource]
    values = [tf.raw_ops.ReadVariableOp(resource=handle, dtype=_dtype(handle)) for handle in handles]
    own = [tensor for tensor in traced.inputs if not any(tensor is one for one in inside)]

    def run(state: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
        places = iter(map(Place, range(len(handles))))
        tensors = iter(arguments)
        given = {t.name: next(places) if t.dtype == tf.resource else next(tensors) for t in inside}
        given |= {t.name: next(tensors) for t in own}
        kept = list(state)
        _run(traced.graph, given, kept)
        return kept

    return run, values, captured


def _dtype(handle: Any) -> Any:
    return tf.as_dtype(handle._handle_data.shape_and_type[0].dtype)


def _run(graph: Any, known: dict[str, Any], state: list[Any]) -> None:
    """Runs the operations of ``graph`` in order; ``known`` gets all results, ``state`` the variables' new values.

    The order of creation respects the control dependencies, by which TensorFlow orders reads and assignments.
    """
    for op in graph.get_operations():
        if op.type in ("Placeholder", "NoOp"):
            continue
        inputs = [known[tensor.name] for tensor in op.inputs]
        for tensor, result in zip(op.outputs, _results(op, inputs, state), strict=True):
            known[tensor.name] = result


def _results(op: Any, inputs: list[Any], state: list[Any]) -> Sequence[Any]:
    if op.type in ("PartitionedCall", "StatefulPartitionedCall"):
        return _call(op.get_attr("f").name, inputs, state)
    if op.type in ("While", "StatelessWhile"):
        return _loop(op, inputs, state)
    if not inputs or not any(isinstance(one, Place) for one in inputs):
        return _again(op, inputs)
    place, *rest = inputs
    if op.type == "ReadVariableOp":
        return [tf.identity(state[place.number])]
    if op.type == "Identity":
        return [place]
    if op.type == "AssignVariableOp":
        state[place.number] = rest[0]
    elif op.type == "AssignAddVariableOp":
        state[place.number] = state[place.number] + rest[0]
    elif op.type == "AssignSubVariableOp":
        state[place.number] = state[place.number] - rest[0]
    else:
        raise NotImplementedError(f"{op.type} on a variable")
    return []


def _again(op: Any, inputs: list[Any]) -> Sequence[Any]:
    """The same operation in the graph that is being made. Attributes with a leading "_" are notes to TensorFlow."""
    attributes = {name: value for name, value in op.node_def.attr.items() if not name.startswith("_")}
    types = [tensor.dtype for tensor in op.outputs]
    graph = tf.compat.v1.get_default_graph()
    return graph._create_op_internal(op.type, inputs, types, attrs=attributes, op_def=op.op_def).outputs


def _call(name: str, inputs: Sequence[Any], state: list[Any]) -> list[Any]:
    graph = function_def_to_graph.function_def_to_graph(context.context().get_function_def(name))
    known = {tensor.name: value for tensor, value in zip(graph.inputs, inputs, strict=True)}
    _run(graph, known, state)
    return [known[tensor.name] for tensor in graph.outputs]


def _loop(op: Any, inputs: list[Any], state: list[Any]) -> list[Any]:
    """A loop that carries its tensors and all variables; a handle is the same in every turn."""
    carried = [i for i, one in enumerate(inputs) if not isinstance(one, Place)]

    def whole(tensors: Sequence[Any]) -> list[Any]:
        found = list(inputs)
        for i, tensor in zip(carried, tensors, strict=True):
            found[i] = tensor
        return found

    def condition(tensors: Sequence[Any], kept: Sequence[Any]) -> Any:
        return _call(op.get_attr("cond").name, whole(tensors), list(kept))[0]

    def body(tensors: Sequence[Any], kept: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        after = list(kept)
        results = _call(op.get_attr("body").name, whole(tensors), after)
        return [results[i] for i in carried], after

    tensors, state[:] = tf.while_loop(
        condition, body, ([inputs[i] for i in carried], list(state)), parallel_iterations=1
    )
    return whole(tensors)
