"""Rewrites of an exported program into operators without side effects, in place on its fx graph.

Nothing here changes a value: in-place operators become their functional twins, wrappers are
unpacked, what evaluation mode makes an identity goes away.
"""

from __future__ import annotations

import operator
import re
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from layergraph.errors import UnsupportedOperator
from layergraph.ops import OPERATORS

aten: Any = torch.ops.aten
_higher: Any = torch.ops.higher_order


class LiveAlias(Exception):
    """An in-place operator writes to memory that another value still shows."""


def module_path(node: Node) -> str:
    """The path of the module whose forward made this node; "" is the model itself."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path = next(reversed(stack.values()))[0]
    # A module that is called again appears as name@1.
    return re.sub(r"@\d+", "", str(path))


def place(node: Node) -> str:
    """Where a node is, as an error names it."""
    path = module_path(node)
    return f"{node.target} at {'model.' + path if path else 'model'}"


def unwrap(module: GraphModule) -> None:
    """Inlines the bodies that `no_grad` and disabled `autocast` blocks became."""
    for node in list(module.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is _higher.wrap_with_set_grad_enabled:
            _, body, *inputs = node.args
        elif node.target is _higher.wrap_with_autocast:
            _, _, enabled, _, body, *inputs = node.args
            if enabled:
                raise UnsupportedOperator(
                    f"autocast inside the model, {place(node)}: convert the model's weights to"
                    " the element type instead"
                )
        elif isinstance(node.target, torch._ops.HigherOrderOperator):
            raise UnsupportedOperator(
                f"data-dependent control flow or a wrapped region: {place(node)}. Use"
                " torch.where, or offload the part of the model before it"
            )
        else:
            continue
        _inline(module, node, body, inputs)
    _drop_dropout(module.graph)
    module.graph.eliminate_dead_code(is_impure_node=_is_kept)


def _drop_dropout(graph: Graph) -> None:
    # Before anything else: in evaluation mode the in-place forms write nothing either.
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in _DROPOUTS and not node.args[2]:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _inline(module: GraphModule, node: Node, body: Any, inputs: list[Any]) -> None:
    inner: GraphModule = getattr(module, body.target)
    unwrap(inner)
    environment: dict[Node, Any] = {}
    remaining = iter(inputs)
    results: Any = ()
    with module.graph.inserting_before(node):
        for part in inner.graph.nodes:
            if part.op == "placeholder":
                environment[part] = next(remaining)
            elif part.op == "output":
                results = torch.fx.node.map_arg(part.args[0], environment.__getitem__)
            else:
                if part.op == "get_attr":
                    setattr(module, part.target, getattr(inner, part.target))
                environment[part] = module.graph.node_copy(part, environment.__getitem__)
    for user in list(node.users):
        assert user.target is operator.getitem
        user.replace_all_uses_with(results[user.args[1]])
        module.graph.erase_node(user)
    module.graph.erase_node(node)


def _is_kept(node: Node) -> bool:
    return node.op in ("placeholder", "output") or _writes(node) is not None


def functionalise(graph: Graph, state: dict[Node, str]) -> None:
    """Replaces in-place operators by their twins.

    `state` names the placeholders that are weights, buffers or constants. Raises
    UnsupportedOperator where one of them is written, LiveAlias where a twin would not do.
    """
    position = {node: number for number, node in enumerate(graph.nodes)}
    root: dict[Node, Node] = {}
    for node in list(graph.nodes):
        written = _writes(node)
        if written is None:
            shown = _shows(node)
            root[node] = root[shown] if shown is not None else node
            continue
        owner = root[written]
        if owner in state:
            raise UnsupportedOperator(
                f"buffer mutation: {place(node)} writes to {state[owner]}. Make the state an"
                " input and an output of the model"
            )
        sharing = [other for other, top in root.items() if top is owner and other is not written]
        here = position[node]
        if any(position[user] > here for other in sharing for user in other.users):
            raise LiveAlias(place(node))
        twin = _twin(graph, node, written)
        position[twin] = here
        root[twin] = twin
        node.replace_all_uses_with(twin)
        later = {user for user in written.users if position.get(user, here) > here}
        written.replace_all_uses_with(twin, delete_user_cb=later.__contains__)
        graph.erase_node(node)


def _writes(node: Node) -> Node | None:
    """The node whose memory this one changes, if any."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    if node.target in _HARMLESS:
        return None
    schema = node.target._schema
    for number, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            target = node.args[number] if number < len(node.args) else node.kwargs[argument.name]
            if not isinstance(target, Node):
                raise UnsupportedOperator(f"writes to several tensors at once: {place(node)}")
            return target
    return None


_HARMLESS = (aten.detach_.default, aten._assert_tensor_metadata.default)
# These may hand out their input's memory, and their schemas do not say so.
_MAY_SHOW = (
    aten.type_as.default, aten.broadcast_tensors.default,
    aten.meshgrid.default, aten.meshgrid.indexing, aten.detach_.default, operator.getitem,
)  # fmt: skip


def _shows(node: Node) -> Node | None:
    """The node whose memory this one's result may be a view of."""
    if node.op != "call_function":
        return None
    if node.target not in _MAY_SHOW:
        if not isinstance(node.target, torch._ops.OpOverload):
            return None
        if not any(result.alias_info for result in node.target._schema.returns):
            return None
    return next(iter(node.all_input_nodes), None)


_TWINS = {
    aten.zero_.default: aten.zeros_like.default,
    aten.index_put_.default: aten.index_put.default,
    aten.copy_.default: aten.copy.default,
}


def _twin(graph: Graph, node: Node, written: Node) -> Node:
    target = _TWINS.get(node.target)
    if target is None:
        # Our own model's operator: the name is looked up in our table only.
        name, _, overload = str(node.target).rpartition(".")
        known = OPERATORS.get(f"{name.removesuffix('_')}.{overload}")
        if known is None:
            raise UnsupportedOperator(place(node))
        target = known.overload
    kwargs = dict(node.kwargs)
    with graph.inserting_before(node):
        twin = graph.call_function(target, node.args, kwargs)
        twin.meta = dict(node.meta)
        # In place keeps the element type of what it writes to; out of place promotes.
        fake = written.meta["val"]
        args, others = torch.fx.node.map_arg((node.args, kwargs), lambda n: n.meta["val"])
        with fake.fake_mode, torch.no_grad():
            twin.meta["val"] = target(*args, **others)
        if twin.meta["val"].dtype != fake.dtype:
            cast = graph.call_function(aten.to.dtype, (twin, fake.dtype))
            cast.meta = dict(node.meta)
            return cast
    return twin


_DROPOUTS = (
    aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default, aten.dropout_.default, aten.feature_dropout_.default,
    aten.alpha_dropout_.default, aten.feature_alpha_dropout_.default,
)  # fmt: skip
_IDENTITIES = (
    aten.alias.default, aten.lift_fresh_copy.default, aten.detach_.default, aten.detach.default,
    aten.lift_fresh.default,
)  # fmt: skip
_CHECKS = (
    aten._assert_tensor_metadata.default, aten._assert_async.msg, aten._assert_async.default,
    aten._assert_scalar.default, aten.sym_constrain_range_for_size.default,
    aten.sym_constrain_range.default,
)  # fmt: skip


def simplify(graph: Graph) -> None:
    """Drops identities and assertions, and gives decomposed operators their checked form."""
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in _CHECKS:
            graph.erase_node(node)
        elif node.target in _IDENTITIES:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target is aten._native_batch_norm_legit_no_training.default:
            _restore_batch_norm(graph, node)
        elif node.target is aten._to_copy.default:
            node.target = aten.to.dtype_layout
    graph.eliminate_dead_code(is_impure_node=_is_kept)


def _restore_batch_norm(graph: Graph, node: Node) -> None:
    source, weight, bias, mean, variance, momentum, eps = node.args
    with graph.inserting_before(node):
        checked = graph.call_function(
            aten.batch_norm.default,
            (source, weight, bias, mean, variance, False, momentum, eps, False),
        )
    checked.meta = dict(node.meta)
    for user in list(node.users):
        assert user.target is operator.getitem
        checked.meta["val"] = user.meta["val"]
        user.replace_all_uses_with(checked)
        graph.erase_node(user)
    graph.erase_node(node)
