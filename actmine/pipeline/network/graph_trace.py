"""A network as a graph of torch.fx: nodes with torchvision's names, their shapes, and where their units are."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from actmine.pipeline.errors import first_line
from actmine.pipeline.network import operations
from actmine.pipeline.network.names import Names
from actmine.pipeline.network.points import CannotTrace, Point, Read, See, default_unit_dim
from actmine.pipeline.network.shapes import tensor_shapes
from actmine.pipeline.network.twin import twin_of


class GraphTrace:
    """Every operation of a network, functions included. Raises `CannotTrace` where torch.fx cannot follow it."""

    def __init__(self, module: nn.Module, input_shape: tuple[int, int, int]) -> None:
        self.module = module
        self.graph, qualified = _traced(module)
        self.qualified = {name: node for node, name in qualified.items()}
        self._places = {node: place for place, node in enumerate(self.graph.nodes)}
        self._name_of = dict(qualified) | self._block_names()
        try:
            others: dict[str, object] = {}
            shapes = tensor_shapes(fx.GraphModule(self.module, self.graph), input_shape, others)
        except Exception as error:
            raise CannotTrace(f"its graph does not run ({type(error).__name__}: {first_line(error)})") from error
        self.shapes = {node: shapes[node.name] for node in self.graph.nodes if node.name in shapes}
        self._of_image = self._downstream({name for name, value in others.items() if _holds_tensors(value)})
        self._units_in = self._unit_dims()

    @property
    def names(self) -> list[str]:
        """The exact names that may be asked for, nodes before modules."""
        return [*self.qualified, *(name for name, _ in self.module.named_modules() if name)]

    def find(self, name: str) -> Point | None:
        """The point with an exact name; a module is the last thing it does. None if there is none."""
        node = self.qualified.get(name) or self._end_of_module(name)
        return None if node is None else self._point(name, node, self._operation(node))

    def points(self) -> list[Point]:
        """Every point that gives a tensor which depends on the image, in running order."""
        return [
            self._point(name, node, self._operation(node))
            for node, name in self._name_of.items()
            if node in self.shapes and node in self._of_image
        ]

    def unseen(self) -> dict[str, str]:
        """Modules that nothing can be read of, and why: they are inside of what is one operation, or never run."""
        whole = {str(node.target): self._module(node) for node in self.graph.nodes if node.op == "call_module"}
        used = [str(node.target) for node in self.graph.nodes if node.op == "get_attr"]
        found = {}
        for name, module in self.module.named_modules():
            if not name or self.find(name) is not None or any(target.startswith(f"{name}.") for target in used):
                continue
            around = next((leaf for leaf in whole if name.startswith(f"{leaf}.")), None)
            if around is None:
                found[name] = "it never runs"
            elif not (isinstance(whole[around], nn.MultiheadAttention) and operations.is_map(module)):
                found[name] = f"it is inside of {around}, which is followed as one operation"
        return found

    def bearing(self) -> list[Point]:
        """Every unit-bearing point that depends on the image, in running order."""
        found: dict[fx.Node, list[fx.Node]] = {}
        for node in self.graph.nodes:
            if self._is_map(node):
                chain = self._chain(node)
                found[chain[-1]] = chain
            elif self._is_sum(node):
                found[node] = [node]
        return [
            self._point(self._name_of[node], node, " + ".join(self._operation(part) for part in chain))
            for node, chain in sorted(found.items(), key=lambda item: self._places[item[0]])
            if node in self.shapes and node in self._of_image
        ]

    def place(self, node: str) -> int:
        """Where in running order a node comes."""
        return self._places[self.node(node)]

    def node(self, name: str) -> fx.Node:
        """The node called `name` in the graph."""
        return next(node for node in self.graph.nodes if node.name == name)

    def run(self, images: Tensor, see: See) -> Any:
        """Runs the network on `images` `[B, C, H, W]`; `see` gets the name and tensor of every node as it is made."""

        class Watched(fx.Interpreter):
            def run_node(self, n: fx.Node) -> object:
                result = super().run_node(n)
                other = see(n.name, result) if isinstance(result, Tensor) else None
                return result if other is None else other

        return Watched(self.module, graph=self.graph).run(images)

    def reading(
        self, nodes: Sequence[str], read: Sequence[Read], join: Callable[[list[Any]], Any], marked: bool = False
    ) -> fx.GraphModule:
        """The part of the network that `nodes` need: images to `join` of what each of `read` makes of its node.

        The readings are nodes right behind what they read. A network of `marked` images takes marks `[B]`, for `read`.
        """
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        graph.graph_copy(self.graph, copies)
        marks, readings = [], []
        if marked:
            with graph.inserting_after(copies[next(iter(self.graph.nodes))]):
                marks.append(graph.placeholder("marks_of_images"))
        root = twin_of(self.module)
        root._modules = dict(root._modules)
        for number, (name, reader) in enumerate(zip(nodes, read, strict=True)):
            node = copies[self.node(name)]
            with graph.inserting_after(node):
                arguments = (node, *marks, *reader.arguments)
                if isinstance(reader.function, nn.Module):
                    root.add_module(f"actmine_reader{number}", reader.function)
                    readings.append(graph.call_module(f"actmine_reader{number}", arguments))
                else:
                    readings.append(graph.call_function(reader.function, arguments))
        graph.output(graph.call_function(join, (readings,)))
        module = fx.GraphModule(root, graph)
        module.graph.eliminate_dead_code()
        module.recompile()
        module.delete_all_unused_submodules()
        return module.eval()

    def _point(self, name: str, node: fx.Node, kind: str) -> Point:
        shape = self.shapes.get(node)
        unit_dim = default_unit_dim(shape, self._units_in.get(node))
        return Point(name, node.name, kind, shape, unit_dim, node in self._of_image, node in self._units_in)

    def _downstream(self, bundles: set[str]) -> set[fx.Node]:
        """Tensors, and bundles of them, that depend on the image; not what is made of its mere size."""
        found: set[fx.Node] = set()
        for node in self.graph.nodes:
            holds = node in self.shapes or node.name in bundles
            if node.op == "placeholder" or (holds and any(part in found for part in node.all_input_nodes)):
                found.add(node)
        return found

    def _unit_dims(self) -> dict[fx.Node, int]:
        """Which dimension of each node's tensor counts units, where that follows from how it was made."""
        known: dict[fx.Node, int] = {}
        for node in self.graph.nodes:
            found = self._unit_dim(node, known)
            if found is not None:
                known[node] = found
        return known

    def _unit_dim(self, node: fx.Node, known: dict[fx.Node, int]) -> int | None:
        module, shape = self._module(node), self.shapes.get(node)
        if self._is_map(node) and not isinstance(module, nn.MultiheadAttention):
            convolves = operations.is_convolution(module, node.target)
            return None if shape is None else 1 if convolves else len(shape) - 1
        if node.target in operations.CONTRACTIONS:
            return None
        source = next((part for part in node.all_input_nodes if part in known), None)
        if self._of_attention(node) and shape is not None:
            return len(shape) - 1
        if source is None:
            return None
        dim, before = known[source], self.shapes.get(source)
        if shape is None or before is None:
            return dim if node.op != "output" else None  # chunk, split: the parts have it where the whole had it
        order = self._permutation(node, len(before))
        if order is not None:
            return order.index(dim)
        if len(shape) == len(before) and (shape == before or node.target not in operations.RESHAPES):
            return dim
        if dim == len(before) - 1 and before[-1] == shape[-1]:
            return len(shape) - 1
        return dim if dim == 1 and before[:2] == shape[:2] else None

    def _permutation(self, node: fx.Node, rank: int) -> list[int] | None:
        """The order in which a node takes the dimensions of its tensor, if that is all it does."""
        module = self._module(node)
        if isinstance(module, torchvision.ops.Permute):
            return [dim % rank for dim in module.dims]
        if node.op not in ("call_function", "call_method"):
            return None
        arguments = [*node.args[1:], *node.kwargs.values()]
        if node.target in (torch.permute, "permute"):
            dims = arguments[0] if isinstance(arguments[0], (tuple, list)) else arguments
            return [int(dim) % rank for dim in dims]  # type: ignore[arg-type]
        if node.target in (torch.transpose, "transpose", torch.swapaxes, "swapaxes"):
            first, second = (int(dim) % rank for dim in arguments)  # type: ignore[arg-type]
            order = list(range(rank))
            order[first], order[second] = second, first
            return order
        return None

    def _end_of_module(self, name: str) -> fx.Node | None:
        inside = [node for path, node in self.qualified.items() if path.startswith(f"{name}.")]
        return max(inside, key=self._places.__getitem__) if inside else None

    def _block_names(self) -> dict[fx.Node, str]:
        """The end of a block that is one operation to its users has the block's name.

        So with torchvision's own (`Conv2dNormActivation`), which it calls one node, and with maps and norms that a
        library derives from torch's.
        """
        derived = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
        blocks = [
            name
            for name, module in self.module.named_modules()
            if type(module).__module__ == "torchvision.ops.misc"
            or (isinstance(module, derived) and not type(module).__module__.startswith("torch.nn"))
        ]
        ends = {self._doing(self._end_of_module(name)): name for name in reversed(blocks)}
        names = {node: name for node, name in ends.items() if node is not None}
        return names | {
            node: str(node.all_input_nodes[0].target) for node in self.graph.nodes if self._of_attention(node)
        }

    def _doing(self, node: fx.Node | None) -> fx.Node | None:
        """The operation whose result a node hands on, if it does nothing itself."""
        while node is not None and operations.is_nothing(self._module(node)):
            node = node.all_input_nodes[0]
        return node

    def _chain(self, node: fx.Node) -> list[fx.Node]:
        """A map, the normalization and the activation that directly follow it."""
        chain = [node]
        for follows in (operations.is_norm, operations.is_activation):
            follower = self._follower(chain[-1])
            if follower is not None and follows(self._module(follower), follower.target):
                chain.append(follower)
        return chain

    def _follower(self, node: fx.Node) -> fx.Node | None:
        """The only operation that takes what a node gives, as it is."""
        users = [user for user in node.users if user in self.shapes or user.op == "output"]  # its size may be asked for
        if len(users) != 1 or users[0].op == "output":
            return None
        if (users[0].args[:1] or (users[0].kwargs.get("input"),)) != (node,):
            return None
        return self._follower(users[0]) if operations.is_nothing(self._module(users[0])) else users[0]

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.module.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _operation(self, node: fx.Node) -> str:
        if self._of_attention(node):
            node = node.all_input_nodes[0]
        return operations.name_of(self._module(node), node.target)

    def _is_map(self, node: fx.Node) -> bool:
        module = self._module(node)
        if isinstance(module, nn.MultiheadAttention):
            return False  # it gives a pair; its map is the first of it
        if self._of_attention(node):
            return True
        return node.op in ("call_module", "call_function") and operations.is_map(module, node.target)

    def _of_attention(self, node: fx.Node) -> bool:
        """The first of what torch's own attention gives."""
        inputs = node.all_input_nodes
        return (
            node.op == "call_function"
            and node.args[1:] == (0,)
            and operations.name_of(None, node.target) == "getitem"
            and isinstance(self._module(inputs[0]), nn.MultiheadAttention)
        )

    def _is_sum(self, node: fx.Node) -> bool:
        if node.op not in ("call_function", "call_method") or node.target not in operations.SUMS:
            return False
        parts = [part for part in node.args[:2] if isinstance(part, fx.Node) and part.op != "get_attr"]
        shapes = {self.shapes.get(part) for part in parts}
        known = node in self._units_in  # a sum inside of attention is none of units
        return known and len(parts) == 2 and len(shapes) == 1 and all(part in self._of_image for part in parts)


def _holds_tensors(value: object) -> bool:
    return isinstance(value, (tuple, list)) and any(isinstance(each, Tensor) for each in value)


class _Tracer(NodePathTracer):
    """Traces into modules of torch that are made of maps, as its own transformer is, and gives no name twice."""

    def trace(self, root: nn.Module, *args: Any, **kwargs: Any) -> fx.Graph:
        self.names = Names(root)
        return super().trace(root, *args, **kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualname: str) -> bool:
        made_of_maps = any(operations.is_map(part) for part in list(m.modules())[1:])
        if made_of_maps and type(m).__module__.startswith("torch.nn") and not isinstance(m, nn.MultiheadAttention):
            return False
        return bool(super().is_leaf_module(m, module_qualname))

    def _get_node_qualname(self, module_qualname: str, node: fx.Node) -> str:
        if node.op == "call_module":
            return self.names.of_module(module_qualname)
        return self.names.of_function(module_qualname, str(node))


def _traced(module: nn.Module) -> tuple[fx.Graph, dict[fx.Node, str]]:
    """The graph and torchvision's names of its nodes, at the finest grain at which torch.fx follows the network.

    timm lists modules and functions of its own that torch.fx should take as one operation; they are taken so only
    where nothing else works, and only if that hides no convolution or linear map.
    """
    reason: Exception | None = None
    for leaves, functions in _grains(module):
        tracer = _Tracer(autowrap_modules=(math, torchvision.ops), autowrap_functions=functions, leaf_modules=leaves)
        try:
            graph = tracer.trace(module)
        except Exception as error:  # whatever a network's code raises when it is given no numbers
            reason = reason or error
            continue
        if not functions or not _hidden(module, graph):
            return graph, tracer.node_to_qualname
    assert reason is not None
    raise CannotTrace(f"{type(reason).__name__}: {first_line(reason)}") from reason


def _grains(module: nn.Module) -> Iterable[tuple[list[type[nn.Module]], tuple[Any, ...]]]:
    """Classes and functions that are one operation each: first as few as hide no map, then as many as need be."""
    leaves = [
        member
        for _, member in inspect.getmembers(torchvision.ops, inspect.isclass)
        if issubclass(member, nn.Module) and member.__module__ != "torchvision.ops.misc"
    ]  # what torchvision's own feature extraction takes as one operation
    parts = (part for part in module.modules() if any(operations.is_map(inner) for inner in list(part.modules())[1:]))
    made_of_maps = {type(part) for part in parts}  # a pyramid of features
    if made_of_maps.intersection(leaves):
        yield [leaf for leaf in leaves if leaf not in made_of_maps], ()
    yield leaves, ()
    timm = sys.modules.get("timm.layers")
    if timm is not None:
        yield [*leaves, *timm.get_notrace_modules()], tuple(timm.get_notrace_functions())


def _hidden(module: nn.Module, graph: fx.Graph) -> list[str]:
    """Maps of the network that are inside of something the graph has as one operation."""
    whole = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    return [
        name
        for name, part in module.named_modules()
        if operations.is_map(part) and any(name.startswith(f"{leaf}.") for leaf in whole)
    ]
