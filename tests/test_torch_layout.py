"""The printer's text is what `ruff format` leaves unchanged, and parses to the tree that was printed."""

from __future__ import annotations

import ast
import io
import random
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
from effspec.backends.torch.text.layout import print_module, print_statement

WRITTEN = sorted((Path(__file__).parent / "golden" / "written").glob("*.py"))
RUFF = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120"]


def ruff(text: str, *options: str) -> str:
    """The text as ruff formats it."""
    command = [*RUFF, *options, "--stdin-filename", "x.py", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def without_comments(text: str) -> str:
    lines = text.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    return "\n".join(lines)


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_files_as_people_write_them(path: Path) -> None:
    """Parsed and printed again a whole file is as ruff formats it (rows that fit on one line are joined)."""
    text = without_comments(path.read_text())
    expected = ruff(text, "--config", "format.skip-magic-trailing-comma=true")
    assert print_module(ast.parse(text).body) == expected


def name(r: random.Random) -> ast.expr:
    names = ["x", "self", "w", "stage3", "kernel_size", "in_channels", "out_channels", "padding_of_the_block"]
    return ast.Name(r.choice(names), ast.Load())


def constant(r: random.Random) -> ast.expr:
    values = [1, 2, 0, 224, 0.5, 1e-5, 1e-4, 0.001, 1.7015043497085571, 1e20, True, None, "nearest", 'a"b', "it's"]
    return ast.Constant(r.choice(values))


def comprehension(r: random.Random, depth: int, kind: type[ast.ListComp] | type[ast.GeneratorExp]) -> ast.expr:
    i, k = ast.Name("i", ast.Store()), ast.Name("k", ast.Store())
    target = i if r.random() < 0.6 else ast.Tuple([i, k], ast.Store())
    ifs = [expression(r, depth - 2)] if r.random() < 0.2 else []
    return kind(expression(r, depth - 1), [ast.comprehension(target, expression(r, depth - 1), ifs, 0)])


def call(r: random.Random, depth: int) -> ast.expr:
    function = name(r)
    if r.random() < 0.7:
        value = expression(r, depth - 1) if r.random() < 0.5 else name(r)
        function = ast.Attribute(value, r.choice(["mean", "Conv2d", "reshape"]), ast.Load())
    if r.random() < 0.1:
        return ast.Call(function, [comprehension(r, depth, ast.GeneratorExp)], [])
    args = [expression(r, depth - 1) for _ in range(r.randint(0, 4))]
    if args and r.random() < 0.2:
        args[-1] = ast.Starred(args[-1], ast.Load())
    chosen = r.sample(["stride", "padding", "bias", "groups"], r.randint(0, 3))
    keywords = [ast.keyword(key, expression(r, depth - 1)) for key in chosen]
    if r.random() < 0.1:
        keywords.append(ast.keyword(None, name(r)))
    return ast.Call(function, args, keywords)


def expression(r: random.Random, depth: int) -> ast.expr:
    """A random tree, at most `depth` deep."""

    def part() -> ast.expr:
        return expression(r, depth - 1)

    def parts(least: int, most: int) -> list[ast.expr]:
        return [part() for _ in range(r.randint(least, most))]

    if depth <= 0:
        half: ast.expr = ast.UnaryOp(ast.USub(), ast.Constant(0.5))
        return r.choice([name(r), name(r), name(r), constant(r), half])
    binary = [ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Pow, ast.Mod, ast.MatMult, ast.BitOr]
    compare = [ast.Eq, ast.NotEq, ast.Lt, ast.GtE, ast.In, ast.Is, ast.NotIn]
    match r.randrange(18):
        case 0:
            return ast.Attribute(part(), "expand", ast.Load())
        case 1 | 2 | 3:
            return ast.BinOp(part(), r.choice(binary)(), part())
        case 4:
            return ast.UnaryOp(r.choice([ast.USub, ast.USub, ast.Not])(), part())
        case 5:
            return ast.BoolOp(r.choice([ast.And, ast.Or])(), parts(2, 3))
        case 6:
            count = r.choice([1, 1, 1, 2])
            return ast.Compare(part(), [r.choice(compare)() for _ in range(count)], [part() for _ in range(count)])
        case 7:
            return ast.IfExp(part(), part(), part())
        case 8:
            return ast.List(parts(0, 4), ast.Load())
        case 9:
            return ast.Tuple(parts(0, 4), ast.Load())
        case 10:
            values = parts(0, 3)
            return ast.Dict([ast.Constant(str(i)) for i in range(len(values))], values)
        case 11:
            return comprehension(r, depth, ast.ListComp)
        case 12:
            # Nobody writes `1e-5[i]`.
            value = part()
            return ast.Subscript(name(r) if isinstance(value, ast.Constant) else value, part(), ast.Load())
        case 13:
            bounds = [part() if r.random() < 0.5 else None for _ in range(2)]
            return ast.Subscript(name(r), ast.Slice(*bounds, name(r) if r.random() < 0.2 else None), ast.Load())
    return call(r, depth)


ANNOTATIONS = [
    "int",
    "torch.Tensor",
    "list[torch.Tensor]",
    "tuple[list[torch.Tensor], list[torch.Tensor]]",
    "int | tuple[int, int]",
    "Callable[..., nn.Module]",
]


def annotation(r: random.Random) -> ast.expr:
    return ast.parse(r.choice(ANNOTATIONS), mode="eval").body


def function(r: random.Random) -> ast.stmt:
    names = ["in_channels", "out_channels", "kernel_size", "stride", "groups", "expand"][: r.randint(0, 6)]
    args = [ast.arg("self", None)] if r.random() < 0.7 else []
    args += [ast.arg(key, annotation(r)) for key in names]
    kwarg = ast.arg("kwargs", annotation(r)) if r.random() < 0.2 else None
    defaults = [constant(r) for _ in range(r.randint(0, len(names)))]
    returns = annotation(r) if r.random() < 0.8 else None
    return ast.FunctionDef(
        "forward", ast.arguments([], args, None, [], [], kwarg, defaults), [ast.Pass()], [], returns, None
    )


def statement(r: random.Random, depth: int) -> ast.stmt:
    x, i, y = (ast.Name(key, ast.Store()) for key in "xiy")
    project = ast.Attribute(ast.Name("self", ast.Load()), "project", ast.Store())
    value = expression(r, depth)
    match r.randrange(11):
        case 0 | 1:
            return ast.Assign([x], value)
        case 2 | 3:
            return ast.Assign([project], value)
        case 4:
            return ast.Assign([ast.Tuple([x, y], ast.Store())], value)
        case 5:
            return ast.Return(value)
        case 6:
            return ast.AugAssign(x, ast.Add(), value)
        case 7:
            return ast.AnnAssign(x, annotation(r), value, 1)
        case 8:
            target = i if r.random() < 0.5 else ast.Tuple([i, y], ast.Store())
            return ast.For(target, value, [ast.Pass()], [])
        case 9:
            nested = [statement(r, depth - 1)] if r.random() < 0.3 and depth > 1 else [ast.Pass()]
            return ast.If(value, nested, [ast.Pass()] if r.random() < 0.5 else [])
    return function(r)


@pytest.mark.parametrize("seed", range(6))
def test_random_statements(seed: int) -> None:
    r = random.Random(seed)
    statements = [statement(r, r.randint(1, 3)) for _ in range(200)]
    for node in statements:
        if isinstance(node, ast.Assign | ast.Return | ast.AnnAssign | ast.AugAssign) and r.random() < 0.3:
            node.comment = "64 x 112 x 112"  # type: ignore[union-attr]
    texts = ["\n".join(print_statement(node, 4)) for node in statements]
    file = "\n\n".join(f"def f{i}():\n{text}\n" for i, text in enumerate(texts))
    for node, text, parsed in zip(statements, texts, ast.parse(file).body, strict=True):
        assert isinstance(parsed, ast.FunctionDef)
        assert ast.dump(parsed.body[0]) == ast.dump(ast.fix_missing_locations(node)), text
    separator = re.compile(r"(?m)^(?=def f)")
    # Compared definition by definition, so that a failure shows one statement.
    for ours, theirs in zip(separator.split(file), separator.split(ruff(file)), strict=True):
        assert ours.strip() == theirs.strip()


def test_rows_with_comments() -> None:
    """Comments of elements break the brackets; a comment's width counts."""
    tree = ast.parse(
        "self.stage = nn.ModuleDict({'1': f(3, 64), '2': f(64, 128)})\nself.up = nn.ModuleList([g(1), g(2)])"
    )
    stage, up = tree.body
    assert isinstance(stage, ast.Assign) and isinstance(stage.value, ast.Call)
    assert isinstance(up, ast.Assign) and isinstance(up.value, ast.Call)
    rows, flat = stage.value.args[0], up.value.args[0]
    assert isinstance(rows, ast.Dict) and isinstance(flat, ast.List)
    for row in rows.values:
        row.comment = "64 x 112 x 112"  # type: ignore[attr-defined]
    flat.rows = True  # type: ignore[attr-defined]
    lines = print_statement(stage, 0) + print_statement(up, 0)
    assert lines == [
        "self.stage = nn.ModuleDict(",
        "    {",
        '        "1": f(3, 64),  # 64 x 112 x 112',
        '        "2": f(64, 128),  # 64 x 112 x 112',
        "    }",
        ")",
        "self.up = nn.ModuleList(",
        "    [",
        "        g(1),",
        "        g(2),",
        "    ]",
        ")",
    ]
    text = "\n".join(lines) + "\n"
    assert ruff(text) == text


@pytest.mark.parametrize("length", range(60, 110))
def test_width_of_comments(length: int) -> None:
    """A row and a statement break where ruff breaks them because of a comment."""
    call_text = f"stage(MBConv, 64, {'9' * (length - 60)}1, repeats=4, stride=2, kernel_size=5, drops=drops)"
    row, plain = ast.parse(f"[{call_text}]").body[0], ast.parse(f"self.stage1 = {call_text}").body[0]
    assert isinstance(row, ast.Expr) and isinstance(row.value, ast.List)
    row.value.elts[0].comment = "512 x 24 x 24"  # type: ignore[attr-defined]
    text = "\n".join(print_statement(row, 0) + print_statement(plain, 0, "512 x 24 x 24")) + "\n"
    source = f"[\n    {call_text},  # 512 x 24 x 24\n]\nself.stage1 = {call_text}  # 512 x 24 x 24\n"
    assert text == ruff(source)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.001, "0.001"),
        (1e-5, "1e-5"),
        (0.0001, "1e-4"),
        (0.00015, "1.5e-4"),
        (1e-10, "1e-10"),
        (-0.5, "-0.5"),
        (3.0, "3.0"),
        (1e22, "1e22"),
        (1.7015043497085571, "1.7015043497085571"),
        (10**18, "1000000000000000000"),
        ("say", '"say"'),
        ('"', "'\"'"),
        (True, "True"),
    ],
)
def test_constants(value: object, text: str) -> None:
    assert print_statement(ast.Expr(ast.Constant(value)), 0) == [text]  # type: ignore[arg-type]
    assert ast.literal_eval(text) == value


def test_refuses_what_emitted_code_never_has() -> None:
    with pytest.raises(TypeError, match="Lambda"):
        print_module(ast.parse("lambda x: x").body)
