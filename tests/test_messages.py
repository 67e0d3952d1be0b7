"""Messages as they are printed: a value that is refused is shown where a person gave it.

The pages of tests/conformance judge messages at their lines; here stand those that lead through several files, and
those of command lines.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from effspec.cli import main

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
