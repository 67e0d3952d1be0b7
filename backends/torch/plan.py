"""Takes every decision of an emitted file: its classes in order, what each takes, and the helpers it needs."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

from effspec.backends.torch import build
from effspec.backends.torch.body import Class
from effspec.backends.torch.build import name
from effspec.backends.torch.model import ModelTranslation
from effspec.backends.torch.modules import Translation
from effspec.backends.torch.runtime import runtime_parameters, tainted_parameters
from effspec.backends.torch.scope import Argument, Scope, Split, Untranslatable
from effspec.backends.torch.tidy import chain, finish, simplify_forward
from effspec.elaborate import Elaborated, snake_case
from effspec.layers import Application, Instance, Taps, Tensor, key
from effspec.syntax import nodes

# Each helper has a second name, for a file where a block or label has the first.
HELPERS = {
    "DropPath": "StochasticDepth",
    "pad_same": "pad_to_same",
    "SameConv2d": "Conv2dSame",
    "PaddedConv2d": "Conv2dPadded",
    "LayerNorm2d": "ChannelNorm2d",
    "avg_pool_same": "avg_pool_to_same",
    "stage": "stack",
}
_NEEDS = {"SameConv2d": ("pad_same",), "avg_pool_same": ("pad_same",)}


@dataclass
class File:
    """A planned file: helper names, then classes in the order in which they are used, the model last."""

    classes: list[Class]
    helpers: dict[str, str]
    stage: ast.FunctionDef | None = None
    imports: set[str] = field(default_factory=set)


class Plan:
    """Plans the classes of one elaborated model."""

    def __init__(self, elaborated: Elaborated) -> None:
        self.elaborated = elaborated
        self.live = {node.id for node in elaborated.graph}
        self.paths = {node.id: node.path for node in elaborated.graph}
        self.classes: list[Class] = []
        self.by_instance: dict[Instance, Class] = {}
        self.helpers: dict[str, str] = {}
        self.stage: ast.FunctionDef | None = None
        self._nodes: dict[int, frozenset[int]] = {}
        self._taps: dict[Instance, list[tuple[str, Any]]] = {}
        self.runtime = runtime_parameters(elaborated, self)
        self.tainted = tainted_parameters(elaborated.root, set(self.runtime))
        self.words = self._words()

    # What the bodies ask

    def class_of(self, instance: Instance) -> Class:
        return self.by_instance[instance]

    def alive(self, application: Application) -> bool:
        """Whether anything that an application made is left in the graph."""
        made = self._made(application)
        return not made or bool(made & self.live)

    def _made(self, application: Application) -> frozenset[int]:
        mark = id(application)
        if mark not in self._nodes:
            made = set(application.nodes)
            if application.child is not None:
                for inner in application.child.applied.values():
                    made |= self._made(inner)
                for value in application.child.values.values():
                    if isinstance(value, Tensor) and value.value.node in self.live:
                        made.add(value.value.node)
            self._nodes[mark] = frozenset(made)
        return self._nodes[mark]

    def need(self, helper: str) -> str:
        """The name of a helper, which the file will then hold."""
        for other in _NEEDS.get(helper, ()):
            self.need(other)
        if helper not in self.helpers:
            taken = helper in self.words
            self.helpers[helper] = HELPERS[helper] if taken else helper
        return self.helpers[helper]

    def _words(self) -> set[str]:
        """Names of blocks and labels that helpers must not have."""
        found: set[str] = set()

        def visit(instance: Instance) -> None:
            if isinstance(instance.node, nodes.Block | nodes.Model):
                found.add(instance.node.name.id)
            for child in instance.children:
                visit(child)

        visit(self.elaborated.root)
        return found

    def taps_of(self, instance: Instance) -> list[tuple[str, Any]]:
        """The labelled lines of a model used as a layer that something else reads, in order."""
        return self._taps.get(instance, [])

    def node_path(self, application: Application) -> str:
        return self.paths[application.nodes[-1]]

    # Planning

    def file(self) -> File:
        groups: dict[Any, list[Instance]] = {}
        callees: dict[Any, dict[Any, None]] = {}
        self._collect(self.elaborated.root, groups, callees)
        self._find_taps()
        order: dict[Any, None] = {}

        def visit(mark: Any) -> None:
            for callee in callees[mark]:
                if callee not in order:
                    visit(callee)
            order.setdefault(mark)

        visit(self._mark(self.elaborated.root))
        for mark in order:
            self._plan_instances(groups[mark], "", 0)
        return File(self.classes, self.helpers, self.stage)

    def _mark(self, instance: Instance) -> Any:
        return instance.node if not isinstance(instance.node, nodes.Model) else (instance.node, instance.variant)

    def _collect(self, instance: Instance, groups: dict[Any, list[Instance]], callees: dict[Any, dict[Any, None]]) -> None:
        """Instances by definition, and which definitions a definition uses, in the order of use."""
        mark = self._mark(instance)
        groups.setdefault(mark, []).append(instance)
        used = callees.setdefault(mark, {})
        dead = {id(a.child) for a in instance.applied.values() if a.child is not None and not self.alive(a)}
        for child in instance.children:
            if id(child) not in dead:
                used.setdefault(self._mark(child))
                self._collect(child, groups, callees)

    def _find_taps(self) -> None:
        """For each model applied with `.taps`, the labels whose tensors other instances read."""
        def visit(instance: Instance) -> None:
            for (_, _), application in instance.applied.items():
                child = application.child
                if child is not None and isinstance(application.output, Taps):
                    self._taps[child] = self._used_taps(instance, application.output)
            for child in instance.children:
                visit(child)

        visit(self.elaborated.root)

    def _used_taps(self, reader: Instance, taps: Taps) -> list[tuple[str, Any]]:
        flat: list[tuple[str, Any]] = []

        def walk(prefix: str, value: Any) -> None:
            if isinstance(value, Taps):
                for word, inner in value.entries.items():
                    walk(f"{prefix}.{word}" if prefix else str(word), inner)
            else:
                flat.append((prefix, value))

        walk("", taps)
        read = set()
        for node, _ in reader.values:
            if isinstance(node, nodes.Attribute | nodes.Index):
                value = reader.values[node, _]
                read.add(id(value))
        return [(word, value) for word, value in flat if id(value) in read]

    def _plan_instances(self, instances: list[Instance], suffix: str, depth: int) -> None:
        """One class for these instances, or several where they cannot share one."""
        helpers, count = dict(self.helpers), len(self.classes)
        try:
            cls = self._plan_class(instances, suffix, literal=False)
        except Split as split:
            self.helpers = helpers
            del self.classes[count:]
            parts: dict[Any, list[Instance]] = {}
            for instance in instances:
                parts.setdefault(repr(_readable(split.values.get(instance))), []).append(instance)
            if len(parts) == 1 or depth > 6:
                self._one_by_one(instances)
                return
            for number, (_, part) in enumerate(parts.items()):
                word = _readable(split.values.get(part[0]))
                self._plan_instances(part, suffix + (_suffix(word) if number else ""), depth + 1)
            return
        except Untranslatable:
            self.helpers = helpers
            del self.classes[count:]
            self._one_by_one(instances)
            return
        for instance in instances:
            self.by_instance[instance] = cls
        self.classes.append(cls)

    def _one_by_one(self, instances: list[Instance]) -> None:
        """The last resort, always right: a class for each distinct instance, all literal and unrolled."""
        made: dict[Any, Class] = {}
        for instance in instances:
            mark = self._fingerprint(instance)
            if mark not in made:
                suffix = "".join(part.capitalize() for part in instance.path.replace(".", "_").split("_")) if len(instances) > 1 else ""
                cls = self._plan_class([instance], suffix, literal=True)
                made[mark] = cls
                self.classes.append(cls)
            else:
                made[mark].instances.append(instance)
                for argument in made[mark].arguments:
                    if instance not in argument.column:
                        argument.column[instance] = next(iter(argument.column.values()))
            self.by_instance[instance] = made[mark]

    def _fingerprint(self, instance: Instance) -> Any:
        """Equal for instances that do the same."""
        parts = []
        for (site, iteration), application in instance.applied.items():
            child = self.by_instance.get(application.child) if application.child is not None else None
            shapes = _shapes(application.input)
            attributes = tuple(sorted((k, str(v)) for k, v in application.attributes.items() if k != "padding"))
            given = ()
            if child is not None and application.child is not None:
                given = tuple((a.name, key(a.column[application.child])) for a in child.arguments)
            parts.append((id(site), iteration, id(child), shapes, attributes, given))
        return tuple(parts)

    def _plan_class(self, instances: list[Instance], suffix: str, literal: bool) -> Class:
        node = instances[0].node
        is_root = instances[0] is self.elaborated.root
        runtime = self.runtime if is_root else {}
        is_model = isinstance(node, nodes.Model)
        scope = Scope(instances, literal=literal, runtime=runtime)
        scope.varying |= {n for n in scope.parameters if not is_model and any((i, n) in self.tainted for i in instances)}
        kind = ModelTranslation if is_model else Translation
        body = kind(scope, self)
        if isinstance(body, ModelTranslation):
            body.is_root = is_root
        if self._is_weight_layer(instances[0]):
            from effspec.backends.torch.weight_layer import plan_weight_class

            return plan_weight_class(self, body, self._class_name(instances[0], suffix))
        body.translate()
        return finish(self, body, self._class_name(instances[0], suffix))

    def _is_weight_layer(self, instance: Instance) -> bool:
        return isinstance(instance.input, Tensor) and not instance.input.type.batched

    def _class_name(self, instance: Instance, suffix: str) -> str:
        node = instance.node
        if isinstance(node, nodes.Group):
            assert instance.parent is not None and instance.site is not None
            label = instance.path.split(".")
            words = [word for word in label if not word.isdigit()]
            base = "".join(part.capitalize() for part in words[-1].split("_"))
        else:
            base = node.name.id
            if isinstance(node, nodes.Model) and instance is not self.elaborated.root and instance.variant:
                others = {
                    i.variant for i in self.by_instance if i.node is node and i.variant != instance.variant
                }
                if others:
                    base += "".join(part.capitalize() for part in instance.variant.split("_"))
        taken = {cls.name for cls in self.classes} | set(self.helpers.values())
        word = base + suffix
        if word in taken and not isinstance(node, nodes.Group) and instance.definition is not None:
            stem = instance.definition.module.name.rsplit("/", 1)[-1].removesuffix(".eff")
            word = "".join(p.capitalize() for p in stem.replace("-", "_").split("_") if not p[:1].isdigit()) + word
        while word in taken:
            word += "Variant"
        return word


def _readable(value: Any) -> Any:
    if isinstance(value, nodes.Block | nodes.Model):
        return value.name.id
    return value


def _suffix(word: Any) -> str:
    """A split class is named by the value that divides it."""
    text = str(word)
    return "".join(c for part in text.replace("_", " ").split() for c in part.capitalize() if c.isalnum())


def _shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.type.shape[:1]
    return tuple(_shapes(v) for v in value) if isinstance(value, tuple) else None


__all__ = ["Argument", "File", "Plan", "build", "chain", "name", "simplify_forward", "snake_case"]
