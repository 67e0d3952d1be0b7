"""The closed list for emitted Python: what it may be made of, import, call and name.  Checked before it is written.

Emitted text holds names and numbers of a spec, which may come from anybody.  The compiler never lets them become code;
this check re-reads the text and holds it to that, so that a mistake of effspec cannot become somebody's command.
"""

from __future__ import annotations

import ast
import math
import re

from effspec.ir.verify import InternalError


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_KEY = re.compile(r"[A-Za-z0-9_]{1,128}\Z")
_PIECE = re.compile(r"(?!.*__)[A-Za-z0-9_.]{1,128}\Z")
_PATH = re.compile(r"[A-Za-z0-9_]{1,128}(\.[A-Za-z0-9_]{1,128}){0,64}\Z")


IMPORTS: dict[str, frozenset[str]] = {
    "torch": frozenset({"nn"}),
    "torch.nn": frozenset({"functional"}),
    "collections": frozenset({"OrderedDict"}),
    "collections.abc": frozenset({"Callable", "Iterable", "Iterator", "Sequence"}),
    "functools": frozenset({"partial"}),
}
"""What may be imported, as `from module import name`; `import torch` besides.  `functional` is imported as F."""

BUILTINS = words(
    """
    abs bool dict enumerate float int isinstance iter len list max min next object range reversed round sorted str
    sum super tuple type zip ValueError
    """
)
"""Builtins that may be named."""

TORCH = words(
    "Tensor cat empty float32 full inf matmul no_grad ones ones_like sigmoid sqrt stack tanh zeros zeros_like"
)
"""Attributes of `torch`."""

NN = words(
    """
    AdaptiveAvgPool2d AdaptiveMaxPool2d AvgPool2d BatchNorm1d BatchNorm2d Conv2d ConvTranspose2d Dropout ELU
    Flatten GELU GroupNorm Hardsigmoid Hardswish Identity LayerNorm LeakyReLU Linear MaxPool2d Mish Module
    ModuleDict ModuleList Parameter ReLU ReLU6 Sequential SiLU Sigmoid Softmax Softplus Tanh Upsample ZeroPad2d
    init
    """
)
"""Attributes of `nn`."""

INIT = words(
    """
    constant_ kaiming_normal_ kaiming_uniform_ normal_ ones_ trunc_normal_ uniform_ xavier_normal_ xavier_uniform_
    zeros_
    """
)
"""Attributes of `nn.init`."""

FUNCTIONS = words(
    """
    adaptive_avg_pool2d adaptive_max_pool2d avg_pool2d conv2d conv_transpose2d dropout elu gelu group_norm
    hardsigmoid hardswish interpolate layer_norm leaky_relu linear max_pool2d mish pad relu relu6 sigmoid silu
    softmax softplus tanh
    """
)
"""Attributes of `F`."""

OF_TENSORS = words(
    """
    amax bernoulli_ chunk clamp data detach device dim dtype fill_ flatten matmul mean narrow ndim new_empty
    new_full new_ones new_zeros normal_ numel permute pow relu reshape shape sigmoid size softmax split sqrt
    square squeeze sum tanh transpose unbind unflatten unsqueeze view
    """
)
OF_MODULES = words(
    """
    _conv_forward apply bias children dilation eps eval forward get_parameter groups in_channels in_features
    kernel_size modules named_children named_modules named_parameters normalized_shape num_features num_groups
    out_channels out_features padding parameters register_buffer running_mean running_var stride train training
    weight
    """
)
OF_CONTAINERS = words("append extend index items keys values")
OF_TEXTS = words("endswith startswith")
MEMBERS = OF_TENSORS | OF_MODULES | OF_CONTAINERS | OF_TEXTS
"""Attributes of anything else, besides those that the file itself defines."""

_ANYWHERE: tuple[type[ast.AST], ...] = (
    ast.Module, ast.Import, ast.ImportFrom, ast.alias, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg,
    ast.Return,
    ast.Assign, ast.AnnAssign, ast.AugAssign, ast.For, ast.If, ast.Expr, ast.Pass, ast.Raise, ast.With, ast.withitem,
    ast.Name, ast.Attribute, ast.Call, ast.keyword, ast.Constant, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare,
    ast.IfExp, ast.List, ast.Tuple, ast.Dict, ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.comprehension,
    ast.Subscript, ast.Slice, ast.Starred, ast.JoinedStr, ast.FormattedValue,
    ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip

_MODULES = ("torch", "nn", "F")

MODES = frozenset({"nearest", "bilinear", "tanh", "fan_in", "fan_out", "relu", "linear", "leaky_relu"})
"""Strings that choose a mode."""

LIMIT = 2**63


def check_source(text: str) -> ast.Module:
    """The parsed text; raises InternalError naming the line unless everything in it is on the lists of this file."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InternalError("printing", "emitted text", f"it does not parse: {error}") from error
    _Checker(tree).check()
    return tree


def _chain(node: ast.expr) -> str | None:
    """`nn.init.zeros_` of such an attribute, None of an attribute of anything but a name."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else None


class _Checker:
    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.bound: set[str] = set()
        self.members: set[str] = set()
        self.nodes = list(ast.walk(tree))
        # A block may be called F, in a file that needs no functions of torch.
        functions = any(isinstance(node, ast.alias) and node.asname == "F" for node in self.nodes)
        self.torch = _MODULES if functions else _MODULES[:2]
        self.strings: set[ast.AST] = set()
        """Constants that stand where a text may stand."""
        self.modules: set[ast.AST] = set()
        """Names that are the root of an attribute."""

    def check(self) -> None:
        for node in self.nodes:
            if not isinstance(node, _ANYWHERE):
                self.refuse(node, f"{type(node).__name__} is not on the list")
            self.bind(node)
        for node in self.tree.body:
            if not isinstance(
                node, ast.Import | ast.ImportFrom | ast.ClassDef | ast.FunctionDef | ast.Assign
            ) and not _is_text(node):
                self.refuse(node, "only imports, classes, functions and constants may stand in a file")
        for node in self.nodes:
            method = getattr(self, f"check_{type(node).__name__}", None)
            if method is not None:
                method(node)

    def refuse(self, node: ast.AST, message: str) -> None:
        line = getattr(node, "lineno", 1)
        around = [part for part in self.tree.body if part.lineno <= line <= (part.end_lineno or 0)]
        inside = "".join(f" (class {part.name})" for part in around if isinstance(part, ast.ClassDef))
        raise InternalError("printing", f"line {line} of the emitted text{inside}", message)

    def bind(self, node: ast.AST) -> None:
        """Note what the file itself names."""
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            self.name(node, node.name, method=node.name == "__init__")
            self.members.add(node.name)
            self.strings.update(child.value for child in node.body[:1] if isinstance(child, ast.Expr))
        elif isinstance(node, ast.Module):
            self.strings.update(child.value for child in node.body[:1] if isinstance(child, ast.Expr))
        elif isinstance(node, ast.arg):
            self.name(node, node.arg)
        elif isinstance(node, ast.alias):
            self.name(node, node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            self.name(node, node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            self.members.add(node.attr)
        elif isinstance(node, ast.Dict):
            self.strings.update(key for key in node.keys if key is not None and _is_key(key))
        elif isinstance(node, ast.Subscript) and (_is_key(node.slice) or _is_key(node.slice, _PIECE)):
            self.strings.add(node.slice)
        elif isinstance(node, ast.JoinedStr):
            self.strings.update(part for part in node.values if _is_key(part, _PIECE))
        elif isinstance(node, ast.Tuple) and len(node.elts) == 2 and _is_key(node.elts[0]):
            self.strings.add(node.elts[0])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "register_buffer" and node.args and _is_key(node.args[0]):
                self.strings.add(node.args[0])
                self.members.add(str(getattr(node.args[0], "value", "")))
            elif node.func.attr in OF_TEXTS:
                pieces = [p for a in node.args for p in (a.elts if isinstance(a, ast.Tuple) else [a])]
                self.strings.update(piece for piece in pieces if _is_key(piece, _PIECE))
        elif isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple):
            # Paths of parameters, one after the other.
            self.strings.update(item for item in node.iter.elts if _is_key(item, _PATH))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            self.modules.add(node.value)

    def name(self, node: ast.AST, name: str, method: bool = False) -> None:
        imported = isinstance(node, ast.alias)
        if not method and (not _IDENTIFIER.match(name) or name.startswith("__")):
            self.refuse(node, f"the name {name!r}")
        if not imported and name in self.torch:
            self.refuse(node, f"`{name}` is bound again")
        self.bound.add(name)

    def check_Import(self, node: ast.Import) -> None:
        if [(alias.name, alias.asname) for alias in node.names] != [("torch", None)]:
            self.refuse(node, "only `import torch` is on the list")

    def check_ImportFrom(self, node: ast.ImportFrom) -> None:
        allowed = IMPORTS.get(node.module or "", frozenset()) if not node.level else frozenset()
        for alias in node.names:
            renamed = "F" if alias.name == "functional" else None
            if alias.name not in allowed or alias.asname != renamed:
                self.refuse(node, f"the import of {alias.name} from {node.module} is not on the list")

    def check_ClassDef(self, node: ast.ClassDef) -> None:
        if node.decorator_list or node.keywords:
            self.refuse(node, "classes have no decorators and keywords")

    def check_FunctionDef(self, node: ast.FunctionDef) -> None:
        for decorator in node.decorator_list:
            if not (
                isinstance(decorator, ast.Call) and _chain(decorator.func) == "torch.no_grad" and not decorator.args
            ):
                self.refuse(node, "only torch.no_grad() may decorate")

    def check_With(self, node: ast.With) -> None:
        for item in node.items:
            call = item.context_expr
            if (
                not (isinstance(call, ast.Call) and _chain(call.func) == "torch.no_grad")
                or item.optional_vars is not None
            ):
                self.refuse(node, "only torch.no_grad() may follow `with`")

    def check_Name(self, node: ast.Name) -> None:
        if node.id not in self.bound and node.id not in BUILTINS:
            self.refuse(node, f"the name {node.id!r} is neither defined nor on the list")
        if node.id in self.torch and node not in self.modules:
            self.refuse(node, f"`{node.id}` is used as a value")

    def check_Attribute(self, node: ast.Attribute) -> None:
        chain = _chain(node)
        root, _, rest = (chain or "").partition(".")
        if root in self.torch:
            lists = {"torch": TORCH, "nn": NN, "F": FUNCTIONS}[root]
            first, _, deeper = rest.partition(".")
            allowed = first in lists and (not deeper or (first == "init" and root == "nn" and deeper in INIT))
            if not allowed or isinstance(node.ctx, ast.Store):
                self.refuse(node, f"{chain} is not on the list")
        elif node.attr == "__init__":
            if not (
                isinstance(node.value, ast.Call)
                and isinstance(node.value.func, ast.Name)
                and node.value.func.id == "super"
            ):
                self.refuse(node, "only super().__init__ may be named")
        elif node.attr.startswith("__") or not _IDENTIFIER.match(node.attr):
            self.refuse(node, f"the attribute {node.attr!r}")
        elif node.attr not in MEMBERS and node.attr not in self.members:
            self.refuse(node, f"the attribute {node.attr!r} is neither defined nor on the list")

    def check_Call(self, node: ast.Call) -> None:
        if not isinstance(node.func, ast.Name | ast.Attribute | ast.Subscript):
            self.refuse(node, f"a call of {type(node.func).__name__}")
        if isinstance(node.func, ast.Name) and node.func.id == "type":
            self.refuse(node, "a call of type, which only annotations name")
        for argument in node.keywords:
            if argument.arg is not None and (not _IDENTIFIER.match(argument.arg) or argument.arg.startswith("__")):
                self.refuse(node, f"the keyword {argument.arg!r}")

    def check_FormattedValue(self, node: ast.FormattedValue) -> None:
        if not isinstance(node.value, ast.Name) or node.conversion != -1 or node.format_spec is not None:
            self.refuse(node, "only a name may stand in a text, as it is")

    def check_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, str):
            if node not in self.strings and value not in MODES:
                self.refuse(node, f"the text {value[:40]!r} is neither a docstring, a key nor a mode")
        elif isinstance(value, float):
            if not math.isfinite(value):
                self.refuse(node, "a number that is not finite")
        elif isinstance(value, int):
            if not -LIMIT <= value < LIMIT:
                self.refuse(node, "a number that is too large")
        elif value is not None and value is not ...:
            self.refuse(node, f"a constant of type {type(value).__name__}")


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_key(node: ast.AST, form: re.Pattern[str] = _KEY) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(form.match(node.value))
