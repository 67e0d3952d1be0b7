"""The statements of a body, one after the other."""

from __future__ import annotations

import ast

from effspec.backends.torch import build, operators
from effspec.backends.torch.build import call, name, own
from effspec.backends.torch.plan.applications import common_width, word_of
from effspec.backends.torch.plan.body import Channels, Later, Text, element_of, is_tensor
from effspec.backends.torch.plan.columns import Split, Untranslatable, constant_of, sample_of
from effspec.backends.torch.plan.comprehensions import Comprehensions
from effspec.backends.torch.plan.sizes import reads_tensor

from effspec.layers import Layer, Taps, Tensor
from effspec.syntax import nodes
from effspec.values import is_number


class Translation(Comprehensions):
    """The whole translation of a definition; `translate` fills `statements` and the scope's `init`."""

    def translate(self) -> None:
        """Translate the body from its input on."""
        on = self.node.on if isinstance(self.node, nodes.Block) else ()
        if isinstance(self.instances[0].input, tuple):
            variable = self.variable(on[0].id) if len(on) == 1 else self.variable_of_list
            alike = all(common_width(instance.input) is not None for instance in self.instances)
            self.current = Text(name(variable), Later(self.scope.element_channels) if alike else None, True)
        else:
            self.current = Text(name("x"), self.input_channels())
        self.entry = self.current
        if isinstance(self.node, nodes.Model):
            if len(self.node.inputs) > 1:
                raise Untranslatable("several inputs")
            self.names[self.node.inputs[0].name.id] = self.entry
        if len(on) > 1:
            targets: list[ast.expr] = []
            for identifier in on:
                targets.append(name(self.variable(identifier.id)))
                self.names[identifier.id] = Text(name(self.variable(identifier.id)))
            self.emit(build.assign(ast.Tuple(targets, ast.Load()), self.entry.tree))
        elif on:
            self.names[on[0].id] = self.entry
        self.run(self.node.body)

    def translate_from(self, entry: Text, variable: str) -> None:
        """Like `translate`, but `input` is a text of its own and `it` a variable of that name."""
        self.current = self.entry = entry
        self.variable_of_it = variable
        if isinstance(self.node, nodes.Block) and self.node.on:
            self.names[self.node.on[0].id] = entry
        self.run(self.node.body)

    def settle_repeats(self) -> None:
        """Give repeated lines their last form; models have one."""

    def input_channels(self) -> Channels:
        """What `__init__` calls the channels of the input."""
        value = self.instances[0].input
        if not self.scope.is_model:
            return Later(self.scope.in_channels)
        return build.literal(value.type.shape[0]) if isinstance(value, Tensor) else None

    def run(self, body: nodes.Body) -> None:
        for statement in body.statements:
            match statement:
                case nodes.Line():
                    self._line(statement)
                case nodes.Bind():
                    self._bind(statement)
                case nodes.For():
                    self.translate_for(statement)
                case nodes.If():
                    self.translate_if(statement)
                case nodes.Yield():
                    self.translate_yield(statement)
                case nodes.Param():
                    self._param(statement)
                case nodes.Output():
                    self._output(statement)

    # Lines

    def _line(self, line: nodes.Line) -> None:
        column = {} if isinstance(line.value, nodes.Group) else self.scope.column(line.value)
        if isinstance(line.value, nodes.Group) or (column and all(isinstance(v, Layer) for v in column.values())):
            self._layer_line(line)
            return
        reached = self.reached(line)
        if not column or (line.guard is not None and not any(reached.values())):
            return
        if any(isinstance(value, Layer) for value in column.values()):
            raise Untranslatable("a line that is sometimes a layer")
        if line.guard is None or all(reached.values()):
            self._become_line(line.value)
            return
        value = line.value
        test = self.condition(line.guard, reached)
        self.emit(ast.If(test, self.nested(lambda: self.become(self.value(value))), []))

    def _become_line(self, node: nodes.Expr) -> None:
        """A tensor expression as a statement; `a if c else it` becomes an `if`."""
        if isinstance(node, nodes.Ternary):
            same, value = constant_of(self.scope.column(node.condition))
            if same:
                self._become_line(node.chosen if value else node.otherwise)
                return
            if isinstance(node.otherwise, nodes.Name) and node.otherwise.id == "it":
                test = self.stored_condition(node.condition, self.flag_word([node.chosen]))
                self.emit(ast.If(test, self.nested(lambda: self.become(self.value(node.chosen))), []))
                return
        if not (isinstance(node, nodes.Name) and node.id == "it"):
            self.become(self.value(node))

    def _layer_line(self, line: nodes.Line) -> None:
        """A layer line: plain, optional as a module, or under an `if`."""
        here, reached = self.here(line), self.reached(line)
        if not here or (line.guard is not None and not any(reached.values())):
            return
        if line.guard is None or all(reached.values()):
            self.become(self.apply(line, self.current, None))
        elif self.is_module(line, here) and not self.in_symbolic_loop:
            condition = self.init_condition(line.guard, reached, "has_" + word_of(here))
            self.become(self.apply(line, self.current, condition))
        else:
            test = self.condition(line.guard, reached)
            self.emit(ast.If(test, self.nested(lambda: self.become(self.apply(line, self.current, None))), []))

    # Bindings

    def _bind(self, statement: nodes.Bind) -> None:
        """A binding of tensors; numbers and layers are translated where they are used."""
        if isinstance(statement.value, nodes.For):
            self.bound_loop(statement, statement.value)
            return
        value = sample_of(self.scope.column(statement.value))
        if isinstance(value, Taps):
            self._bind_taps(statement, statement.value)
        if is_number(value) and len(statement.targets) == 1 and not self.scope.literal:
            self._bind_number(statement.targets[0].id, statement.value)
        if not is_tensor(value):
            return
        text = self.value(statement.value)
        if len(statement.targets) > 1:
            targets: list[ast.expr] = []
            for place, target in enumerate(statement.targets):
                targets.append(name(self.variable(target.id)))
                self.names[target.id] = Text(
                    name(self.variable(target.id)), element_of(text.channels, build.constant(place))
                )
            self.emit(build.assign(ast.Tuple(targets, ast.Load()), text.tree))
            return
        word = statement.targets[0].id
        if word == "_":
            return
        if isinstance(text.tree, ast.Name) and text.tree.id not in ("x", self.variable_of_list):
            self.names[word] = text
            return
        self.emit(build.assign(self.variable(word), text.tree))
        self.names[word] = Text(name(self.variable(word)), text.channels, isinstance(value, tuple))

    def _bind_number(self, word: str, value: nodes.Expr) -> None:
        """A number that the spec reads off a tensor or list is a variable of forward; unread ones go in the end."""
        tree: ast.expr | None = None
        if self.scope.counts_inputs(value):
            tree = call("len", self.entry.tree)
        elif isinstance(value, nodes.Binary) and reads_tensor(value, self.scope):
            state = self.scope.snapshot()
            tree = self.size(value)
            if self.scope.snapshot() != state:
                # It needs more than tensors: then it is written where it is used.
                self.scope.restore(state)
                return
        if tree is not None and self.variable(word) == word:
            self.emit(build.assign(word, tree))
            self.lengths.add(word)

    def _bind_taps(self, statement: nodes.Bind, pipe: nodes.Expr) -> None:
        """`f = x |> backbone: Model().taps`: one variable for each tap that is read."""
        text = self.value(pipe)
        child = next(iter(self.everywhere(pipe.steps[-1]).values())).child if isinstance(pipe, nodes.Pipe) else None
        if child is None:
            raise Untranslatable(pipe.span.text)
        targets: list[ast.expr] = []
        for tap, _ in self.planner.taps_of(child):
            variable = self.variable(tap.replace(".", ""))
            targets.append(name(variable))
            self.names[f"{statement.targets[0].id}.{tap}"] = Text(name(variable))
        self.emit(build.assign(targets[0] if len(targets) == 1 else ast.Tuple(targets, ast.Load()), text.tree))

    def _param(self, statement: nodes.Param) -> None:
        """`param`: an `nn.Parameter`."""
        if not self.scope.values.get(statement):
            return
        shapes = self.scope.column(statement.shape)
        if isinstance(statement.shape, nodes.List):
            sizes = [
                self.scope.express("size", {e: shape[position] for e, shape in shapes.items()}, item)
                for position, item in enumerate(statement.shape.items)
            ]
        else:
            sizes = [build.literal(size) for size in sample_of(shapes)]
        starts = self.scope.column(statement.init) if statement.init is not None else {}
        if len({ast.dump(operators.parameter(sizes, start)) for start in starts.values()}) > 1:
            raise Split({instance: start for (instance, _), start in starts.items()})
        initial = sample_of(starts) or 0
        word = statement.name.id
        self.scope.init.append(build.assign("self." + word, operators.parameter(sizes, initial)))
        self.names[word] = Text(own(word))

    # Outputs

    def _output(self, statement: nodes.Output) -> None:
        word, variable = statement.name.id, self.variable(statement.name.id)
        value = statement.value
        if statement.training and value is not None:
            body = self.apart(lambda: self.emit(build.assign(variable, self.value(value).tree)))
            match self.statements[-1:]:
                case [ast.If(test=ast.Attribute(attr="training")) as last]:
                    last.body += body
                case _:
                    self.emit(ast.If(own("training"), body, []))
            self.outputs.append((word, name(variable), True))
            return
        if value is None and not self.outputs and self.node.body.statements[-1] is statement:
            self.outputs.append((word, self.current.tree, False))
            return
        self.emit(build.assign(variable, self.current.tree if value is None else self.value(value).tree))
        self.outputs.append((word, name(variable), False))
