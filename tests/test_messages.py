"""Messages as they are printed: a value that is refused is shown where a person gave it.

The pages of tests/conformance judge messages at their lines; here stand those that lead through several files, and
those of command lines.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import effspec
from effspec.cli import main
from effspec.diagnostics import EffspecError

BLOCKS = """\
effspec 1
block Act(out, k = 3, drop = default.drop) {
    pointwise: conv(2 * out)
    inner: Window(out, k = k)
    drop_path(drop)
}
block Window(out, k) { conv(out, k = k) }
scaling Rule(phi = 0, alpha, width = alpha ** phi) { channels(c) = c * width }
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("blocks.eff").write_text(BLOCKS)


def said(capfd: pytest.CaptureFixture[str], text: str, *words: str) -> str:
    """What a command says of the spec m.eff, which begins with the edition."""
    Path("m.eff").write_text(f"effspec 1\n{text}")
    assert main(words or ("check", "m.eff")) in (1, 2)
    printed = capfd.readouterr().err
    return printed.rpartition("\n\nm.eff: ")[0] + "\n" if not words else printed


def model(layer: str, rest: str = "variant m = M()\n", head: str = "on", default: str = "") -> str:
    names = "Act, Rule" if "Rule" in head else "Act"
    lines = [
        f'import {names} from "blocks.eff"',
        f"model M(n = 4) {head} image: [3, 8, 8] {{ {default}",
        f"    a: {layer}",
    ]
    return "\n".join([*lines, "}", rest])


def test_an_argument_that_a_block_refuses(capfd: pytest.CaptureFixture[str]) -> None:
    """The words of the refused place are followed to the line that gave them, through as many blocks as there are."""
    assert said(capfd, model("Act(n, k = 4, drop = 0)")) == (
        'error[E0411]: `pad = "half"` needs an odd kernel, found 4 x 4\n'
        " --> blocks.eff:7:34\n"
        "  |\n"
        "7 | block Window(out, k) { conv(out, k = k) }\n"
        "  |                                  ^^^^^\n"
        " ::: m.eff:4:15\n"
        "  |\n"
        "4 |     a: Act(n, k = 4, drop = 0)\n"
        "  |               ----- k is given here\n"
        "  = it: (8, 8, 8) is the input of the block\n"
        "  = in variant m > a > a.inner\n"
        '  = help: state the pad: `pad = 0`, `pad = "same"` or `pad = [[top, bottom], [left, right]]`\n'
    )
    found = said(capfd, model('Act(n, k = "six", drop = 0)'))
    assert '4 |     a: Act(n, k = "six", drop = 0)\n  |               --------- k is given here\n' in found


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            model("Act(n)", default="default drop = 1 + n / 2"),
            "3 | model M(n = 4) on image: [3, 8, 8] { default drop = 1 + n / 2\n"
            "  |                                              ---------------- drop is given here\n",
        ),
        (
            model("Act(n)"),
            "4 |     a: Act(n)\n  |     --------- applied here\n  = in variant m > a\n"
            "  = help: set it in the model (M): `default drop = ...`, or pass the argument\n",
        ),
        (
            model("Act(n, k = n - 1, drop = 0)", "variant m = M()\nvariant j = m(n = 5)\n"),
            "7 | variant j = m(n = 5)\n  |               ----- n is given here\n",
        ),
        (
            model("Act(drop = 0) -> n", 'variant m = M()\nvariant j = M(phi = "a")\n', "with Rule(alpha = 3) on"),
            '7 | variant j = M(phi = "a")\n  |               --------- phi is given here\n  = in variant j\n',
        ),
        (
            model("Act(drop = 0) -> n", head='with Rule(alpha = "b") on'),
            '3 | model M(n = 4) with Rule(alpha = "b") on image: [3, 8, 8] { \n'
            "  |                          ----------- alpha is given here\n",
        ),
        (
            "model M(n = 3) on image: [3, 8, 8] { conv(n / 2) }\nvariant m = M()\nvariant k = M(n = 4)\n",
            " { conv(n / 2) }\n  |                                           ^^^^^\n  = in variant m\n",
        ),
        (
            "model M(n = 3) on image: [3, 8, 8] { a: conv(1 / 2); b: conv(n) }\nvariant m = M()\nvariant k = M(n=4)\n",
            "  = in variant m and 1 other\n",
        ),
    ],
)
def test_where_it_comes_from(capfd: pytest.CaptureFixture[str], text: str, shown: str) -> None:
    found = said(capfd, text)
    assert shown in found, found


def test_a_scaling_that_is_not_complete(capfd: pytest.CaptureFixture[str]) -> None:
    assert said(capfd, model("Act(drop = 0) -> n", head="with Rule(phi = 2) on")) == (
        "error[E0304]: Rule needs its parameter `alpha`\n"
        " --> m.eff:3:21\n"
        "  |\n"
        "3 | model M(n = 4) with Rule(phi = 2) on image: [3, 8, 8] { \n"
        "  |                     ^^^^^^^^^^^^^\n"
        " ::: blocks.eff:8:23\n"
        "  |\n"
        "8 | scaling Rule(phi = 0, alpha, width = alpha ** phi) { channels(c) = c * width }\n"
        "  |                       ----- it has no default\n"
        "  = help: give it here: `with Rule(..., alpha = ...)`\n"
    )


NET = "scaling Stages(w = 8) { stages() = [w, w] }\nmodel Net() with Stages on image: [3, 8, 8] { conv(stages()[0]) }\n"
NET += "variant wide = Net(w = 9)\n"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (
            ("--scaling", "LinearDepht"),
            "error[E0601]: there is no scaling rule `LinearDepht`\n"
            " --> command line:1:30\n"
            "  |\n"
            "1 | effspec show m.eff --scaling LinearDepht\n"
            "  |                              ^^^^^^^^^^^\n"
            "  = known by name: Stages, Compound, FastCompound, Multiplier, NearestMultiplier, CappedMultiplier, "
            "Table, LinearDepth, QuantisedLinear, SteppedCompound\n"
            "  = help: did you mean `LinearDepth`?\n",
        ),
        (
            ("--scaling", "Multiplier(widht=2)"),
            "error[E0301]: unknown argument `widht` of Multiplier\n"
            " --> command line:1:41\n"
            "  |\n"
            "1 | effspec show m.eff --scaling Multiplier(widht=2)\n"
            "  |                                         ^^^^^ Multiplier takes width, depth, divisor, shrink, least "
            "(specs/std/scaling.eff:43)\n"
            "  = help: did you mean `width`?\n",
        ),
        (
            ("--scaling", "Compound(gamma=1)"),
            "error[E0613]: Net needs `stages` of its own rule Stages, which Compound lacks\n"
            " --> command line:1:30\n"
            "  |\n"
            "1 | effspec show m.eff --scaling Compound(gamma=1)\n"
            "  |                              ^^^^^^^^^^^^^^^^^\n"
            " ::: m.eff:3:52\n"
            "  |\n"
            "3 | model Net() with Stages on image: [3, 8, 8] { conv(stages()[0]) }\n"
            "  |                                                    ------ needed here\n"
            "  = help: state both: `--scaling Stages --scaling 'Compound(gamma=1)'`\n",
        ),
        (
            ("--scaling", "Stages", "--scaling", "Compound(gamma=1)"),
            "error[E0304]: Compound needs its parameters `alpha` and `beta`\n"
            "  --> command line:1:47\n"
            "   |\n"
            " 1 | effspec show m.eff --scaling Stages --scaling Compound(gamma=1)\n"
            "   |                                               ^^^^^^^^^^^^^^^^^\n"
            "  ::: specs/std/scaling.eff:12:14\n"
            "   |\n"
            "12 |     phi = 0, alpha, beta, gamma, divisor = 8, shrink = 0.9, step = 8,\n"
            "   |              ----- it has no default\n"
            "   |                     ---- it has no default\n"
            "   = help: give them: `--set alpha=... --set beta=...`, or `Compound(..., alpha = ..., beta = ...)`\n",
        ),
    ],
)
def test_rules_that_are_asked_for(capfd: pytest.CaptureFixture[str], words: tuple[str, ...], shown: str) -> None:
    assert said(capfd, NET, "show", "m.eff", *words) == shown


def test_a_variant_of_a_rule_that_is_replaced(capfd: pytest.CaptureFixture[str]) -> None:
    words = ("show", "b0", "--variant", "b2", "--scaling", "FastCompound")
    assert said(capfd, NET, *words) == (
        "error[E0614]: variant b2 gives width and depth to Compound, a rule that is replaced here\n"
        "  --> command line:1:40\n"
        "   |\n"
        " 1 | effspec show b0 --variant b2 --scaling FastCompound\n"
        "   |                                        ^^^^^^^^^^^^\n"
        "  ::: specs/b0.eff:43:27\n"
        "   |\n"
        "43 | variant b2 = EfficientNet(width = 1.1, depth = 1.2, size = 260, drop_rate = 0.3)\n"
        "   |                           ----------- given here\n"
        "   = help: begin with another variant, or with EfficientNet, which it calls\n"
    )
    with pytest.raises(EffspecError, match="state both: `scaling=\\['Stages', 'Multiplier'\\]`"):
        effspec.compile("m.eff", scaling="Multiplier")


GREY = "model M(grey = false, size = 8) on image: [1 if grey else 3, size, size] { relu() }\nvariant m = M()\n"


@pytest.mark.parametrize(
    ("words", "message", "help"),
    [
        (
            "--set grey=1",
            "error[E0503]: the condition is true or false, found the number 1",
            "compare it (`n > 0`), or give true or false",
        ),
        ("--set grey=yes", "error[E0201]: unknown name `yes`", "write true"),
        ("--set size=-3", "error[E0502]: the sizes of an input are positive, this came out as [3, -3, -3]", None),
        ("--variant M", "error[E0601]: m.eff has no variant `M`", "did you mean `m`?"),
        ("--model m", "error[E0601]: m.eff has no model `m`", "did you mean `M`?"),
        (
            "--opset 17",
            "error[E0703]: target `torch` has no option `opset`",
            "it is an option of onnx: drop it, or give --target onnx",
        ),
    ],
)
def test_command_lines(capfd: pytest.CaptureFixture[str], words: str, message: str, help: str | None) -> None:
    """What was typed is shown as the lines of a spec are."""
    line = f"effspec compile m.eff {words}"
    lines = said(capfd, GREY, *line.split()[1:]).splitlines()
    assert lines[0] == message
    marks = lines[lines.index(f"1 | {line}") + 1][4:]
    part = marks.index("^" if "^" in marks else "-")
    marked = line[part : part + marks.count("^") + marks.count("-")]
    assert marked == (words if message[6:11] != "E0201" else "yes") or marked == words
    assert lines[-1] == f"  = help: {help}" if help else "help" not in lines[-1]


# Habits from elsewhere ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "help"),
    [
        ("x = a && b", "write `and`"),
        ("conv(8) if a || b", "write `or`; a layer is applied by `|>`"),
        ("relu() if !a", "write `not`"),
        ("x = a ? 1 : 2", "a choice is written `a if c else b`"),
        ("x += 1", "a name is bound once: give the new value a name of its own"),
        ("if a: conv(8)", "a body stands in braces: `if c { ... }`"),
        ("for i in 1 .. 3: conv(8)", "a body stands in braces: `if c { ... }`"),
        ("elif a { relu() }", "write `else if c { ... }`"),
        ("return x", "a body's value is its last line: write no `return`"),
        ("// a comment", "a comment begins with `#`"),
        ("conv(k = 3) -> 8 \u00d7 3", "a line is repeated by `x`: `MBConv() -> 24 x 3`"),
        ("self.conv = conv(3)", "a layer's label stands before it: `stem: conv(32)`"),
        ("x = 'half'", 'a text stands in double quotes: "half"'),
        ("x == = 1", "equality is written `==`"),
    ],
)
def test_statements_of_other_languages(capfd: pytest.CaptureFixture[str], line: str, help: str) -> None:
    found = said(capfd, f"model M() on image: [3, 8, 8] {{\n    {line}\n}}\n")
    assert found.startswith("error[E0101]: ") and " --> m.eff:3:" in found, found
    if line != "x == = 1":
        assert found.splitlines()[-1] == f"  = help: {help}", found


@pytest.mark.parametrize(
    ("line", "help"),
    [
        ('from "std/conv.eff" import ConvNormAct', 'names are imported so: `import A, B from "path.eff"`'),
        ("from std.conv import ConvNormAct", 'names are imported so: `import A, B from "path.eff"`'),
        ("import MBConv from std/conv.eff", 'names are imported so: `import A, B from "path.eff"`'),
        ("import torch", 'names are imported so: `import A, B from "path.eff"`'),
        ("def f(x): return x", "a function is `fn name(x) = value`, a layer `block Name(out) { ... }`"),
        ("class M():", "a layer is `block Name(out) { ... }`, a network `model Name() on image: [...] { ... }`"),
        ("model M() on image: 3, 8, 8 { relu() }", "a shape is a list: `on image: [3, 224, 224]`"),
        ("// a comment", "a comment begins with `#`"),
        ("/* a comment */", "a comment begins with `#`"),
    ],
)
def test_items_of_other_languages(capfd: pytest.CaptureFixture[str], line: str, help: str) -> None:
    found = said(capfd, f"{line}\n")
    assert found.startswith("error[E0101]: ") and " --> m.eff:2:" in found
    assert f"  = help: {help}" in found.splitlines(), found


@pytest.mark.parametrize(
    ("call", "help"),
    [
        ("conv(2, kernel_size = 3)", "did you mean `k`?"),
        ("conv(2, stride = 2)", "did you mean `s`?"),
        ("conv(2, padding = 1)", "did you mean `pad`?"),
        ("conv(out_channels = 1)", "did you mean `out`?"),
        ("conv(2, in_channels = 3)", "delete it: how many channels come in is known"),
        ("conv(2, use_bias = false)", "did you mean `bias`?"),
        ("max_pool(kernel_size = 2, s = 2)", "did you mean `k`?"),
        ("softmax(dim = 0)", "did you mean `axis`?"),
        ("dropout(p = 0)", "did you mean `rate`?"),
        ("add(it, image)", "tensors flow by `|>`: `[it, image] |> add()`"),
        ("relu(it)", "tensors flow by `|>`: `it |> relu()`"),
    ],
)
def test_arguments_of_other_libraries(capfd: pytest.CaptureFixture[str], call: str, help: str) -> None:
    found = said(capfd, f"model M() on image: [3, 8, 8] {{ a: {call} }}\n")
    assert found.splitlines()[-1] == f"  = help: {help}", found
    assert found.count("error[") == 1


# What was asked for ---------------------------------------------------------------------------------------------------


def test_two_models_without_variants(capfd: pytest.CaptureFixture[str]) -> None:
    one = "model {} () on image: [3, 8, 8] {{ relu() }}\n"
    two = one.format("A") + one.format("B")
    assert said(capfd, two, "compile", "m.eff") == (
        "error[E0603]: m.eff has 2 models: A, B\n  = help: choose one: --model A\n"
    )
    assert "--model NAME, or --variant NAME" in said(capfd, two + "variant a = A()\n", "compile", "m.eff")


def test_numbers_of_many_digits(capfd: pytest.CaptureFixture[str]) -> None:
    found = said(
        capfd, model("Act(drop = 0) -> n", head="with Rule(alpha = 1.5) on"), "compile", "m.eff", "--phi", "1e400"
    )
    assert found.startswith("error[E0505]: 1.5 ** 1.000000e+400 has more than 4096 bits\n")


def test_weights_that_are_no_file() -> None:
    net = effspec.compile("b0", phi=-3)
    state = {"stem.conv.weight": np.zeros(3)}
    for use in (net.to_torch, lambda weights: net.emit("onnx", weights=weights)):
        with pytest.raises(EffspecError) as error:
            use(weights=state)  # type: ignore[operator]
        assert str(error.value) == (
            "error[E0801]: a dict is not the path of a checkpoint\n"
            "  = weights are the path of a checkpoint, or an object that has `tensor(parameter)`\n"
            "  = help: tensors by their names are loaded by PyTorch: `net.to_torch().load_state_dict(...)`; "
            'or save them: `safetensors.torch.save_file(..., "x.safetensors")`'
        )
    assert repr(net.cost).startswith(f"<Cost: {net.params:,} parameters, {net.macs:,} multiply-adds, ")


@pytest.mark.parametrize("target", ["torch", "onnx"])
def test_two_specs_of_one_name(capfd: pytest.CaptureFixture[str], target: str) -> None:
    """A name that effspec chose is not that of what another spec made."""
    text = "model M(n = 4) on image: [3, 8, 8] { conv(n) }\n"
    Path("other.eff").write_text(f"effspec 1\n{text}")
    suffix = {"torch": "py", "onnx": "onnx"}[target]
    words = ("--target", target)
    assert main(["compile", "other.eff", *words]) == main(["compile", "other.eff", *words]) == 0
    before = Path(f"m.{suffix}").read_bytes()
    assert said(capfd, text, "compile", "m.eff", *words).splitlines()[-2:] == [
        f"error[E0711]: m.{suffix} was made from other.eff",
        "  = help: choose another name with -o, or overwrite it with --force",
    ]
    assert Path(f"m.{suffix}").read_bytes() == before
    assert main(["compile", "m.eff", *words, "-o", f"m.{suffix}"]) == 0, "a name that was given is meant"
    assert main(["compile", "other.eff", *words, "--force"]) == 0


def test_spaces_that_align_nothing() -> None:
    from effspec.diagnostics import Source
    from effspec.syntax.format import format_text

    text = "effspec 1\nmodel   M(w = 8, size =  32) on image: [3, size, size] { conv(w) }\nvariant  m   = M()\n"
    assert format_text(Source("m.eff", text)) == (
        "effspec 1\nmodel M(w = 8, size = 32) on image: [3, size, size] { conv(w) }\nvariant m   = M()\n"
    )
