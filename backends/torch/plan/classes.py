"""Takes every decision of an emitted file: its classes in order, what each takes, and the helpers it needs."""

from __future__ import annotations

import ast
from typing import Any, TypeAlias

from effspec.backends.torch.plan.body import Class
from effspec.backends.torch.plan.columns import Split, Untranslatable
from effspec.backends.torch.plan.fns import Functions
from effspec.backends.torch.plan.model import ModelTranslation
from effspec.backends.torch.plan.naming import Naming, need, suffix_of_path, suffix_of_value
from effspec.backends.torch.plan.runtime import runtime_parameters, tainted_parameters
from effspec.backends.torch.plan.scope import Scope
from effspec.backends.torch.plan.statements import Translation
from effspec.backends.torch.plan.taps import find_taps
from effspec.backends.torch.plan.tidy import finish, inline_chain
from effspec.backends.torch.plan.weight_layer import is_weight_layer, plan_weight_class, weight_mark

from effspec.elaborate import Elaborated
from effspec.layers import Application, Instance, Tensor, key
from effspec.syntax import nodes

# A definition; a model used in two variants counts as two.
Mark: TypeAlias = "nodes.Block | nodes.Group | tuple[nodes.Model, str | None]"

_DEPTH = 6


class Plan:
    """Plans the classes of one elaborated model.

    After `run`, `classes` holds them in the order in which they are used, the model last; `helpers` gives the name of
    each helper that they need, and `stage` is the helper for repeated lines.
    """

    def __init__(self, elaborated: Elaborated, *, literal: bool = False) -> None:
        self.elaborated = elaborated
        self.literal = literal
        self.live = {node.id for node in elaborated.graph}
        self.classes: list[Class] = []
        self.helpers: dict[str, str] = {}
        self.stage: ast.FunctionDef | None = None
        self._groups: dict[Mark, list[Instance]] = {}
        self._by_instance: dict[Instance, Class] = {}
        self._paths = {node.id: node.path for node in elaborated.graph}
        self._made_by: dict[Application, frozenset[int]] = {}
        self._runtime = runtime_parameters(elaborated, self.live)
        self._tainted = tainted_parameters(elaborated.root, set(self._runtime))
        self._taps = find_taps(elaborated.root)
        self._naming = Naming(elaborated.root)
        self.functions = Functions(self._naming.words)
        self.place = elaborated.model.name.id
        """The definition that is being planned."""

    # What the bodies ask

    def class_of(self, instance: Instance) -> Class:
        return self._by_instance[instance]

    def alive(self, application: Application) -> bool:
        made = self._made(application)
        return not made or bool(made & self.live)

    def _made(self, application: Application) -> frozenset[int]:
        """The graph nodes that an application made."""
        if application not in self._made_by:
            made = set(application.nodes)
            if application.child is not None:
                for inner in application.child.applied.values():
                    made |= self._made(inner)
                for value in application.child.values.values():
                    if isinstance(value, Tensor) and value.value.node in self.live:
                        made.add(value.value.node)
            self._made_by[application] = frozenset(made)
        return self._made_by[application]

    def need(self, helper: str) -> str:
        return need(self.helpers, helper, self._naming.words)

    def taps_of(self, instance: Instance) -> list[tuple[str, Any]]:
        return self._taps.get(instance, [])

    def path_of(self, application: Application) -> str:
        return self._paths[application.nodes[-1]]

    # Planning

    def run(self) -> None:
        """Plan every class, callees before callers."""
        groups = self._groups
        callees: dict[Mark, dict[Mark, None]] = {}
        self._collect(self.elaborated.root, groups, callees)
        order: dict[Mark, None] = {}

        def visit(mark: Mark) -> None:
            for callee in callees[mark]:
                if callee not in order:
                    visit(callee)
            order.setdefault(mark)

        visit(_mark(self.elaborated.root))
        for mark in order:
            self._plan_instances(groups[mark], "", 0)

    def _collect(
        self, instance: Instance, groups: dict[Mark, list[Instance]], callees: dict[Mark, dict[Mark, None]]
    ) -> None:
        """Instances by definition, and which definitions a definition uses, in the order of use."""
        mark = _mark(instance)
        groups.setdefault(mark, []).append(instance)
        used = callees.setdefault(mark, {})
        dead = {a.child for a in instance.applied.values() if a.child is not None and not self.alive(a)}
        for child in instance.children:
            if child not in dead:
                used.setdefault(_mark(child))
                self._collect(child, groups, callees)

    def _plan_instances(self, instances: list[Instance], suffix: str, depth: int) -> None:
        """One class for these instances, or several where they cannot share one."""
        if self.literal:
            self._one_by_one(instances)
            return
        helpers, count = dict(self.helpers), len(self.classes)
        try:
            cls = self._plan_class(instances, suffix, literal=False)
        except (Split, Untranslatable) as fault:
            self.helpers = helpers
            del self.classes[count:]
            values = fault.values if isinstance(fault, Split) else {}
            parts: dict[str, list[Instance]] = {}
            for instance in instances:
                parts.setdefault(repr(_readable(values.get(instance))), []).append(instance)
            if len(parts) == 1 or depth > _DEPTH:
                self._one_by_one(instances)
                return
            for number, part in enumerate(parts.values()):
                word = suffix_of_value(_readable(values.get(part[0]))) if number else ""
                self._plan_instances(part, suffix + word, depth + 1)
            return
        self._by_instance.update(dict.fromkeys(instances, cls))
        self.classes.append(cls)

    def _one_by_one(self, instances: list[Instance]) -> None:
        """The last resort, always right: a class for each distinct instance, all literal and unrolled."""
        made: dict[Any, Class] = {}
        for instance in instances:
            mark = self._fingerprint(instance)
            if mark not in made:
                suffix = suffix_of_path(instance.path) if len(instances) > 1 else ""
                made[mark] = self._plan_class([instance], suffix, literal=True)
                self.classes.append(made[mark])
            else:
                made[mark].instances.append(instance)
                for argument in made[mark].arguments:
                    if argument.column:
                        argument.column.setdefault(instance, next(iter(argument.column.values())))
            self._by_instance[instance] = made[mark]

    def _fingerprint(self, instance: Instance) -> Any:
        """Equal for instances that do the same."""
        if is_weight_layer(instance):
            return weight_mark(instance, self.elaborated.graph)
        parts = []
        for (site, iteration), application in instance.applied.items():
            child = application.child
            cls = self._by_instance.get(child) if child is not None else None
            attributes = tuple(sorted((k, str(v)) for k, v in application.attributes.items() if k != "padding"))
            # A weight's layer has arguments that only its convolution gives.
            arguments = cls.arguments if cls is not None else []
            given = tuple((a.name, key(a.column[child])) for a in arguments if child in a.column)
            parts.append((id(site), iteration, id(cls), _widths(application.input), attributes, given))
        return tuple(parts)

    def _plan_class(self, instances: list[Instance], suffix: str, literal: bool) -> Class:
        is_model = isinstance(instances[0].node, nodes.Model)
        self.place = _place(instances[0])
        runtime = self._runtime_of(instances) if is_model else {}
        scope = Scope(instances, self.functions, literal=literal, runtime=runtime)
        if not is_model:
            scope.varying |= {n for n in scope.parameters if any((i, n) in self._tainted for i in instances)}
        if isinstance(instances[0].node, nodes.Group):
            scope.varying |= self._varying_around(instances[0])
        body = ModelTranslation(scope, self) if is_model else Translation(scope, self)
        taken = {cls.name for cls in self.classes} | set(self.helpers.values())
        if is_weight_layer(instances[0]):
            return plan_weight_class(body, self._class_name(instances[0], suffix, taken), self.elaborated.graph)
        body.translate()
        taken |= set(self.helpers.values())
        cls = finish(body, self._class_name(instances[0], suffix, taken))
        if isinstance(instances[0].node, nodes.Group):
            cls.inline = inline_chain(cls)
        return cls

    def _varying_around(self, group: Instance) -> set[str]:
        """The parameters of the block around a group that differ over all that the block is applied to.

        A group has the names of that block, and may stand where few of them come by.
        """
        around = group.parent
        while around is not None and isinstance(around.node, nodes.Group):
            around = around.parent
        if around is None or not isinstance(around.node, nodes.Block):
            return set()
        alike = self._groups[_mark(around)]
        return {word for word in around.arguments if len({key(i.arguments[word].value) for i in alike}) > 1}

    def _runtime_of(self, instances: list[Instance]) -> dict[str, Any]:
        """The constructor arguments of the compiled model; of a model used as a layer, what is given from these."""
        if instances[0] is self.elaborated.root:
            return self._runtime
        words = instances[0].arguments
        return {w: words[w].value for w in words if all((instance, w) in self._tainted for instance in instances)}

    def _class_name(self, instance: Instance, suffix: str, taken: set[str]) -> str:
        planned = {other.variant for other in self._by_instance if other.node is instance.node}
        return self._naming.class_name(instance, suffix, taken, planned)


def _place(instance: Instance) -> str:
    """What the plan calls a definition where it fails."""
    node = instance.node
    return f"the group {instance.path}" if isinstance(node, nodes.Group) else node.name.id


def _mark(instance: Instance) -> Mark:
    return (instance.node, instance.variant) if isinstance(instance.node, nodes.Model) else instance.node


def _readable(value: Any) -> Any:
    return value.name.id if isinstance(value, nodes.Block | nodes.Model) else value


def _widths(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.type.shape[:1]
    return tuple(map(_widths, value)) if isinstance(value, tuple) else None
