"""The closed table of diagnostic codes: what each means, a text that causes it, and the repair.

An example is a spec (its first line, `effspec 1`, is left out where it is not the point) or, after `$`, a command.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """A kind of mistake: `why` says what the rule is for, `bad` causes it, `good` is the same without it."""

    code: str
    title: str
    why: str
    bad: str
    good: str


_ROWS = (
    # E01xx: text and files
    Code(
        "E0101",
        "syntax error",
        "The text does not follow the grammar; grammars/README.md describes it.",
        "block A(out) { conv(out, k = 3 }",
        "block A(out) { conv(out, k = 3) }",
    ),
    Code(
        "E0102",
        "a character that a spec may not hold",
        "A spec is UTF-8 without control, invisible or direction-changing characters: it reads as it compiles.",
        "width = 8 # \u202e reversed",
        "width = 8 # not reversed",
    ),
    Code(
        "E0103",
        "the file is too long",
        "A spec has at most 1 MiB and 40,000 words and signs, so that a hostile file is refused at once.",
        "widths = [" + "1, " * 20_000 + "]",
        "widths = [1 for _ in 0 ..< 20_000]",
    ),
    Code(
        "E0104",
        "nested too deeply",
        "Brackets nest at most 64 deep, and any expression at most 150 levels.",
        "n = " + "(" * 65 + "1" + ")" * 65,
        "n = (1)",
    ),
    Code(
        "E0105",
        "an edition that this effspec does not read",
        "The first line fixes the language and a file's meaning for good; a newer edition needs a newer effspec.",
        "effspec 2\nwidth = 8",
        "effspec 1\nwidth = 8",
    ),
    Code(
        "E0106",
        "a name is too long",
        "A name has at most 64 letters, digits and underscores.",
        "a" * 65 + " = 8",
        "width = 8",
    ),
    Code(
        "E0107",
        "the grammar allows it, its meaning does not",
        "Some forms parse and still say nothing: a fn without a value, a variant that is not a call.",
        "fn half(n) { m = n / 2 }",
        "fn half(n) { n / 2 }",
    ),
    Code(
        "E0108",
        "a malformed number",
        "Numbers are decimal: no leading zeros, at most 200 digits, an exponent of at most 400.",
        "width = 08",
        "width = 8",
    ),
    Code(
        "E0109",
        "there is no such file",
        "A spec is named by its path, or by the bare name of a shipped one (`effspec list` shows them).",
        'import MBConv from "std/convs.eff"',
        'import MBConv from "std/conv.eff"\nblock Stage(out) { MBConv(out) }',
    ),
    Code(
        "E0110",
        "the file cannot be read",
        "Only regular files are read: no folders, pipes or devices.",
        "$ effspec check /dev/zero",
        "$ effspec check b0",
    ),
    # E02xx: names
    Code(
        "E0201",
        "unknown name",
        "Every name is bound before it is read: in the body, as a parameter, in the file, or by the language.",
        "block A(out) { conv(ot) }",
        "block A(out) { conv(out) }",
    ),
    Code(
        "E0202",
        "something that is never used",
        "An unused name is a misspelling or a leftover, and would say something about the network that is not true.",
        "block A(out, width) { conv(out) }",
        "block A(out) { conv(out) }",
    ),
    Code(
        "E0203",
        "a name that is bound already",
        "A name means one thing wherever it is visible: nothing is bound twice, and nothing is shadowed.",
        "size = 8\nblock A(size) { conv(size) }",
        "size = 8\nblock A(out) { conv(out, k = size) }",
    ),
    Code(
        "E0204",
        "a reserved or predeclared name",
        "The names of operators and functions, and it, input, at and default, mean the same in every spec.",
        "block A(conv) { conv() }",
        "block A(layer) { layer() }",
    ),
    Code(
        "E0205",
        "the wrong kind of first letter",
        "Blocks, models and scalings are Capitalised, everything else is not: a reader sees what a name is.",
        "block stem(out) { conv(out) }",
        "block Stem(out) { conv(out) }",
    ),
    Code(
        "E0206",
        "something uses itself",
        "Files, definitions and variants have no cycles: every spec ends, and its size is known before it is expanded.",
        "block A(out) { conv(out); A(out) }",
        "block A(out) { conv(out) }\nblock B(out) { A(out) x 2 }",
    ),
    Code(
        "E0207",
        "an import path that is not allowed",
        "An import is relative and stays in the folder of the first spec; `std/...` is always the shipped file.",
        'import A from "../blocks.eff"',
        'import ConvNorm from "std/conv.eff"\nblock A(out) { ConvNorm(out) }',
    ),
    Code(
        "E0208",
        "two layers with the same path",
        "A path names parameters.  Nothing is numbered by itself, so no edit renames the parameters of other lines.",
        "model M() on image: [3, 8, 8] { conv(8); conv(8) }",
        "model M() on image: [3, 8, 8] { a: conv(8); b: conv(8) }",
    ),
    Code(
        "E0209",
        "a label that torch cannot hold",
        "Labels become attributes of torch modules, which have attributes of their own.",
        "block A(out) { forward: conv(out) }",
        "block A(out) { ahead: conv(out) }",
    ),
    Code(
        "E0210",
        "`at` where no line is repeated",
        "`at` counts the repeats of a line: it is read in that line, and in a model's defaults.",
        "block A(out) { conv(out, k = 1 + 2 * at.i) }",
        "block A(out) { conv(out, k = 1 + 2 * at.i) x 1 }",
    ),
    Code(
        "E0211",
        "`then` on a line that is not repeated",
        "`a then b` means a on the first repeat and b on the others.",
        "block A(out) { conv(out, s = 2 then 1) }",
        "block A(out) { conv(out, s = 2 then 1) x 2 }",
    ),
    Code(
        "E0212",
        "a contextual default that no model sets",
        "`default.norm` is what the model states as `default norm = ...`; there is no other.",
        "block A(act = default.act) { act() }\nmodel M() on image: [3, 8, 8] { A() }",
        "block A(act = default.act) { act() }\nmodel M() on image: [3, 8, 8] { default act = relu; A() }",
    ),
    Code(
        "E0213",
        "a line without effect",
        "A line is a layer to apply, or a tensor that becomes the current value.",
        "block A(out) { conv(out); 3 }",
        "block A(out) { conv(out) }",
    ),
    Code(
        "E0214",
        "a label, `-> C` or `x N` on something that is no layer",
        "They configure and name a layer; a tensor has been computed already.",
        "block A(out) { a: input |> conv(out) }",
        "block A(out) { input |> a: conv(out) }",
    ),
    Code(
        "E0215",
        "`fixed` in a block",
        "`fixed` keeps one number from a model's scaling rule, which does not reach into blocks: it would do nothing.",
        "block A(out) { conv() -> out fixed }",
        "block A(out) { conv() -> out }",
    ),
    Code(
        "E0216",
        "out of place",
        "Outputs, defaults and preparation belong to models; `it`, `input` and `|>` exist where layers are applied.",
        "block A(out) { conv(out); output features }",
        "model M() on image: [3, 8, 8] { conv(8); output features }",
    ),
    Code(
        "E0217",
        "`yield` out of place",
        "A bound loop collects what it yields; any other loop has nobody to give it to.",
        "block A(n) { for i in 1 .. n { a[i]: conv(n); yield it } }",
        "block A(n) { all = for i in 1 .. n { a[i]: conv(n); yield it }; all |> concat() }",
    ),
    Code(
        "E0218",
        "`default.name` outside a parameter's default",
        "What a block takes from its model stands in its head, where a reader and a caller see it.",
        "block A(out) { conv(out); default.act() }",
        "block A(out, act = default.act) { conv(out); act() }",
    ),
    Code(
        "E0219",
        "too many imports",
        "Imports nest at most 16 deep, and a spec reads at most 64 files.",
        "$ effspec check a_chain_of_seventeen_files.eff",
        "$ effspec check b0",
    ),
    Code(
        "E0220",
        "a label with two meanings",
        "A label stands for one layer or for a list: `a:` beside `a[0]:`, or beside `param a`, cannot both be paths.",
        "block A(out) { a: conv(out); a[0]: conv(out) }",
        "block A(out) { a[0]: conv(out); a[1]: conv(out) }",
    ),
    Code(
        "E0221",
        "a function where a value is needed",
        "Functions, initialisers and scalings are called, not passed; layers are values.",
        "block A(out) { conv(out, init = kaiming_normal) }",
        "block A(out) { conv(out, init = kaiming_normal()) }",
    ),
    Code(
        "E0222",
        "a bound loop that yields nothing",
        "`xs = for ...` is the list of what the loop yields, so it has to yield.",
        "block A(n) { all = for i in 1 .. n { a[i]: conv(n) }; all |> concat() }",
        "block A(n) { all = for i in 1 .. n { a[i]: conv(n); yield it }; all |> concat() }",
    ),
    # E03xx: arguments
    Code(
        "E0301",
        "unknown argument",
        "What is called does not take an argument of that name.",
        "block A(out) { conv(out, kernel = 3) }",
        "block A(out) { conv(out, k = 3) }",
    ),
    Code(
        "E0302",
        "an argument given twice",
        "An argument has one value in a call; `-> C` gives `out`.",
        "block A(out) { conv(out, k = 3, k = 5) }",
        "block A(out) { conv(out, k = 3) }",
    ),
    Code(
        "E0303",
        "the wrong number or form of arguments",
        "Positional arguments come first, at most one a parameter; functions take them by position only.",
        "n = floor(7, 2, 1)",
        "n = floor(7, 2)",
    ),
    Code(
        "E0304",
        "a missing argument",
        "A parameter without a default has to be given before the layer is applied.",
        "block A() { conv(k = 3) }",
        "block A(out) { conv(out, k = 3) }",
    ),
    Code(
        "E0305",
        "`-> C` where nothing takes `out`",
        "`-> C` is the argument `out`, scaled by the model's rule.",
        "block A(out) { relu() -> out }",
        "block A(out) { conv() -> out; relu() }",
    ),
    # E04xx: operators and shapes
    Code(
        "E0408",
        "an argument of the wrong kind",
        "An operator states the kind of each argument: a size, a pair, a pad, a number, a text.",
        "model M() on image: [3, 8, 8] { conv(8, k = 0) }",
        "model M() on image: [3, 8, 8] { conv(8, k = 1) }",
    ),
    Code(
        "E0409",
        "the wrong number of tensors",
        "Some operators take one tensor, some two, some a list; `each` takes a list.",
        "model M() on image: [3, 8, 8] { matmul() }",
        "model M() on image: [3, 8, 8] { [it, it] |> matmul() }",
    ),
    Code(
        "E0410",
        "an operator that does not fit its tensor",
        "The operator has no meaning for a tensor of this shape.",
        "model M() on image: [3, 8, 8] { flatten(); conv(8) }",
        "model M() on image: [3, 8, 8] { conv(8); flatten() }",
    ),
    Code(
        "E0411",
        "a pad that cannot be",
        'pad = "half" puts as much on both sides, which needs an odd window; a pool is padded by at most half.',
        "model M() on image: [3, 8, 8] { conv(8, k = 2) }",
        "model M() on image: [3, 8, 8] { conv(8, k = 2, pad = 0) }",
    ),
    Code(
        "E0412",
        "nothing is left of the image",
        "The window is larger than the image with its pad.",
        "model M() on image: [3, 8, 8] { conv(8, k = 9, pad = 0) }",
        "model M() on image: [3, 9, 9] { conv(8, k = 9, pad = 0) }",
    ),
    Code(
        "E0413",
        "groups that do not divide the channels",
        "Every group has as many channels, in and out.",
        "model M() on image: [3, 8, 8] { conv(8, groups = 2) }",
        "model M() on image: [4, 8, 8] { conv(8, groups = 2) }",
    ),
    Code(
        "E0414",
        "a tensor of another shape",
        "A model is compiled for the shape that it declares, and a weight keeps its shape.",
        "model A() on image: [3, 8, 8] { conv(8) }\nmodel B() on image: [3, 9, 9] { A() }\nvariant b = B()",
        "model A() on image: [3, 8, 8] { conv(8) }\nmodel B() on image: [3, 8, 8] { A() }\nvariant b = B()",
    ),
    # E05xx: evaluation
    Code(
        "E0501",
        "a computation without an answer",
        "Division by zero, the root of a negative number, the logarithm of zero: there is no such number.",
        "model M(n = 1 / 0) on image: [3, n, n] { relu() }",
        "model M(n = 1 / 1) on image: [3, n, n] { relu() }",
    ),
    Code(
        "E0502",
        "not an integer",
        "Sizes, indices and counts are integers, and nothing is rounded silently.",
        "model M(n = 17 / 2) on image: [3, n, n] { relu() }",
        "model M(n = floor(17 / 2)) on image: [3, n, n] { relu() }",
    ),
    Code(
        "E0503",
        "a value of the wrong kind",
        "Numbers, booleans, texts, lists, layers and tensors are not converted into each other.",
        'model M(n = 2 * "4") on image: [3, n, n] { relu() }',
        "model M(n = 2 * 4) on image: [3, n, n] { relu() }",
    ),
    Code(
        "E0504",
        "too large",
        "Loops and repeats are charged before they are expanded: at most 1,200,000 steps and 200,000 operators.",
        "model M() on image: [3, 8, 8] { relu() x 1_000_000_000 }",
        "model M() on image: [3, 8, 8] { relu() x 10 }",
    ),
    Code(
        "E0505",
        "a number or list that is too large",
        "Numbers have at most 4,096 bits, lists at most 65,536 elements, sizes are at most 2^31.",
        "model M(n = 9 ** 9 ** 9) on image: [3, n, n] { relu() }",
        "model M(n = 9) on image: [3, n, n] { relu() }",
    ),
    Code(
        "E0506",
        "the wrong number of values",
        "`a, b = xs` needs a list of two.",
        "model M(sizes = [8, 8, 8]) on image: [3, 8, 8] { a, b = sizes; conv(a, k = b, pad = 4) }",
        "model M(sizes = [8, 8]) on image: [3, 8, 8] { a, b = sizes; conv(a, k = b, pad = 4) }",
    ),
    Code(
        "E0507",
        "an index out of range",
        "A list of n is indexed from 0 to n - 1, or from -n to -1.",
        "model M(sizes = [8, 9], i = 2) on image: [3, sizes[i], 8] { relu() }",
        "model M(sizes = [8, 9], i = 1) on image: [3, sizes[i], 8] { relu() }",
    ),
    Code(
        "E0508",
        "unknown attribute",
        "A tensor has shape, rank, channels, height and width; a model has taps; `at` has i, n, block and blocks.",
        "block A() { conv(input.chanels) }",
        "block A() { conv(input.channels) }",
    ),
    Code(
        "E0509",
        "unknown tap",
        "The taps of a model are its labelled lines.",
        "model A() on image: [3, 8, 8] { a: relu() }\n"
        "model B() on image: [3, 8, 8] { b: relu(); taps = it |> A().taps; taps.b }\n"
        "variant v = B()",
        "model A() on image: [3, 8, 8] { a: relu() }\n"
        "model B() on image: [3, 8, 8] { b: relu(); taps = it |> A().taps; taps.a }\n"
        "variant v = B()",
    ),
    Code(
        "E0510",
        "a requirement that does not hold",
        "`require` states what a definition relies on.",
        'model M(size = 9) on image: [3, size, size] { require size % 2 == 0, "it is halved"; relu() }',
        'model M(size = 8) on image: [3, size, size] { require size % 2 == 0, "it is halved"; relu() }',
    ),
    Code(
        "E0511",
        "layers applied too deeply",
        "Layers are applied at most 64 deep: one that comes to apply itself would never end.",
        "block A(f) { f(f) }\nmodel M() on image: [3, 8, 8] { A(A) }",
        "block A(f) { f() }\nmodel M() on image: [3, 8, 8] { A(relu) }",
    ),
    Code(
        "E0512",
        "a line that is repeated no times",
        "A repeat count is at least 1; a scaling that makes a stage vanish is a mistake.  A computed 0 is allowed.",
        "model M() on image: [3, 8, 8] { relu() x 0 }",
        "model M() on image: [3, 8, 8] { relu() x 1 }",
    ),
    Code(
        "E0513",
        "a count that depends on itself",
        "`at.blocks` is the number of repeated lines: it may not decide how often a line is repeated.",
        "model M() on image: [3, 8, 8] { a: { if at.blocks < 5 { relu() x 1 } } x 1 }",
        "block A(rate = default.rate) { drop_path(rate) }\n"
        "model M() on image: [3, 8, 8] { default rate = at.block / at.blocks; A() x 2 }",
    ),
    Code(
        "E0514",
        "a preparation that cannot be",
        "`prepare` has a number for each channel, divides by none that is 0, and keeps a part of the picture.",
        "model M() on image: [3, 8, 8] { prepare image(mean = [0.5], crop = 0.875); relu() }",
        "model M() on image: [3, 8, 8] { prepare image(mean = [0.5, 0.5, 0.5], crop = 0.875); relu() }",
    ),
    # E06xx: requests
    Code(
        "E0601",
        "unknown variant, model or rule",
        "The file has none of that name; a scaling rule may also be one of the standard library.",
        "$ effspec show b0 --variant b22",
        "$ effspec show b0 --variant b2",
    ),
    Code(
        "E0602",
        "unknown parameter",
        "`--set` and `--phi` give parameters of the model or of its scaling.",
        "$ effspec show b0 --set clases=10",
        "$ effspec show b0 --set classes=10",
    ),
    Code(
        "E0603",
        "which model?",
        "A file with several models, or with none, does not say what to compile.",
        "$ effspec show two_models.eff",
        "$ effspec show two_models.eff --model First",
    ),
    Code(
        "E0604",
        "a parameter set twice",
        "One request gives a parameter one value.",
        "$ effspec show b0 --set classes=10 --set classes=20",
        "$ effspec show b0 --set classes=10",
    ),
    Code(
        "E0605",
        "a setting without a value",
        "A setting is NAME=VALUE.",
        "$ effspec show b0 --set classes",
        "$ effspec show b0 --set classes=10",
    ),
    Code(
        "E0606",
        "a value that the language does not have",
        "The Python API takes numbers (not nan or inf), booleans, texts and lists of these.",
        '>>> effspec.compile("b0", phi=float("nan"))',
        '>>> effspec.compile("b0", phi=1.5)',
    ),
    Code(
        "E0612",
        "an argument without effect",
        "What a variant or a request gives has to be read by something: nothing is silently the same.",
        "$ effspec show b0 --variant b2 --phi 3",
        "$ effspec show b0 --phi 3",
    ),
    Code(
        "E0613",
        "rules that do not fit a model",
        "A model under other rules needs what it reads of its own, and no name may mean two things: its parameters and "
        "those of all its rules are one list.",
        """
scaling Deep(depth = 2) { repeats(n) = n * depth }
scaling Stages(first = 8) { widths() = [first, 2 * first] }
model Net() with Stages on image: [3, 8, 8] { a: conv(widths()[0]); b: conv(widths()[1]) x 1 }
model Other = Net with Deep
""",
        """
scaling Deep(depth = 2) { repeats(n) = n * depth }
scaling Stages(first = 8) { widths() = [first, 2 * first] }
model Net() with Stages on image: [3, 8, 8] { a: conv(widths()[0]); b: conv(widths()[1]) x 1 }
model Other = Net with Stages, Deep
""",
    ),
    Code(
        "E0614",
        "an argument of a rule that is replaced",
        "What a variant gives to its model's rule means nothing to another rule, even to a parameter of the same name.",
        """
scaling Wide(width = 2) { channels(c) = c * width }
scaling Thin(width = 2) { channels(c) = c // width }
model Net() with Wide on image: [3, 8, 8] { conv() -> 16 }
variant wider = Net(width = 4)
model Other = wider with Thin
""",
        """
scaling Wide(width = 2) { channels(c) = c * width }
scaling Thin(width = 2) { channels(c) = c // width }
model Net() with Wide on image: [3, 8, 8] { conv() -> 16 }
variant wider = Net(width = 4)
model Other = Net with Thin
""",
    ),
    # E07xx: targets and files that are written
    Code(
        "E0701",
        "unknown target",
        "`effspec targets` lists what a model can be compiled to.",
        "$ effspec compile b0 --target tensorflow -o -",
        "$ effspec compile b0 --target torch -o -",
    ),
    Code(
        "E0702",
        "a target that cannot be loaded",
        "Its packages are missing, or broken.",
        "$ effspec compile b0 --target onnx        (without the package onnx)",
        "$ effspec compile b0 --target onnx -o b0.onnx",
    ),
    Code(
        "E0703",
        "unknown option of a target, or an illegal value",
        "Each target has its own options; `effspec targets` lists them.",
        "$ effspec compile b0 --target onnx --opset 3 -o b0.onnx",
        "$ effspec compile b0 --target onnx -o b0.onnx",
    ),
    Code(
        "E0704",
        "a target cannot express the model",
        "A target refuses what it cannot say exactly, before it writes anything.",
        "$ effspec compile b0 --target onnx --dynamic --variant tf_b0 -o b0.onnx",
        "$ effspec compile b0 --target onnx --dynamic -o b0.onnx",
    ),
    Code(
        "E0705",
        "no name for a second file",
        "Above 2 GiB the weights of an ONNX model are a second file, named after the first.",
        "$ effspec compile big.eff --target onnx -o 'my model.onnx'",
        "$ effspec compile big.eff --target onnx -o my_model.onnx",
    ),
    Code(
        "E0706",
        "more than one file",
        "A model whose weights are a second file cannot go to standard output or be one text.",
        "$ effspec compile big.eff --target onnx -o -",
        "$ effspec compile big.eff --target onnx -o big.onnx",
    ),
    Code(
        "E0707",
        "an output that cannot be",
        "Outputs are tensors, or lists of them, each with a name of its own.",
        "model M() on image: [3, 8, 8] { a: conv(8); output x; b: conv(8); output x }",
        "model M() on image: [3, 8, 8] { a: conv(8); output x; b: conv(8); output y }",
    ),
    Code(
        "E0711",
        "a file that is not effspec's, was edited, or is another spec's",
        "Nobody's work is overwritten without being asked.",
        "$ effspec compile b0 -o edited_by_hand.py",
        "$ effspec compile b0 -o edited_by_hand.py --force",
    ),
    Code(
        "E0712",
        "the output is a link",
        "A link is not followed: it could lead anywhere.",
        "$ effspec compile b0 -o a_link.py",
        "$ effspec compile b0 -o a_file.py",
    ),
    Code(
        "E0713",
        "no such place",
        "The output is a file in a folder that exists.",
        "$ effspec compile b0 -o no/such/folder/b0.py",
        "$ effspec compile b0 -o b0.py",
    ),
    Code(
        "E0714",
        "the output is an input",
        "A command does not overwrite what it reads.",
        "$ effspec compile my.eff -o my.eff",
        "$ effspec compile my.eff -o my.py",
    ),
    Code(
        "E0715",
        "a file name that not every system allows",
        "Letters, digits, dots, dashes and underscores: the file can be moved anywhere.",
        "$ effspec compile b0 -o con",
        "$ effspec compile b0 -o b0.py",
    ),
    Code(
        "E0716",
        "the file cannot be written",
        "The system refuses: no permission, no space, a broken disk.  What was there before is still there.",
        "$ effspec compile b0 -o /proc/b0.py",
        "$ effspec compile b0 -o b0.py",
    ),
    Code(
        "E0717",
        "a binary file on a terminal",
        "Bytes that are no text would garble it.",
        "$ effspec compile b0 --target onnx -o -",
        "$ effspec compile b0 --target onnx -o - > b0.onnx",
    ),
    Code(
        "E0718",
        "a name that no model can have",
        "`effspec new` names the model after the file, and names begin with a letter.",
        "$ effspec new 2nd.eff",
        "$ effspec new second.eff",
    ),
    Code(
        "E0719",
        "a model that does not say how a picture becomes its input",
        "What reads pictures, and what bakes their normalisation into a graph, does what `prepare` states.",
        "$ effspec verify no_prepare.eff --image cat.png",
        "$ effspec verify b0 --image cat.png",
    ),
    Code(
        "E0720",
        "a picture that cannot be read",
        "It is missing, no picture, or not of 8 bits a channel in as many channels as the model has.",
        "$ effspec verify b0 --image missing.png",
        "$ effspec verify b0 --image cat.png",
    ),
    Code(
        "E0721",
        "nothing here can run it",
        "A target, or the reading of pictures, needs a package that is not installed.",
        "$ effspec verify b0 --targets torch        (without the package torch)",
        "$ effspec verify b0",
    ),
    Code(
        "E0722",
        "a model that effspec cannot train",
        "A training script is for classifiers: one picture in, a score for each class out, at sizes that it can have.",
        "$ effspec train unet --data pictures",
        "$ effspec train b0 --data pictures",
    ),
    # E08xx: weights
    Code(
        "E0801",
        "a checkpoint that cannot be read",
        "It is missing, unreadable, of no known format (safetensors, .pth, .npz, Keras), or has several weight sets.",
        "$ effspec compile b0 --weights missing.safetensors -o b0.py",
        "$ effspec compile b0 --weights b0.safetensors -o b0.py",
    ),
    Code(
        "E0802",
        "a damaged checkpoint",
        "It claims a format and breaks its rules.",
        "$ effspec compile b0 --weights cut_short.safetensors -o b0.py",
        "$ effspec compile b0 --weights b0.safetensors -o b0.py",
    ),
    Code(
        "E0803",
        "a checkpoint with unsupported content",
        "Only tensors and containers of them are read; a pickle that names anything else is refused.",
        "$ effspec weights convert whole_module.pth --spec b0 -o b0.safetensors",
        "$ effspec weights convert state_dict.pth --spec b0 -o b0.safetensors",
    ),
    Code(
        "E0804",
        "weights that do not fit",
        "Every tensor of the model is in the checkpoint with its shape, and nothing else is.",
        "$ effspec compile b0 --set classes=10 --weights b0.safetensors --target onnx -o b0.onnx",
        "$ effspec compile b0 --weights b0.safetensors --target onnx -o b0.onnx",
    ),
    Code(
        "E0805",
        "a checkpoint of another model",
        "A checkpoint is moved by structure and shape: it holds the same kinds of layers in the same shapes.",
        "$ effspec weights convert b1.pth --spec b0 --variant b0 -o b0.safetensors",
        "$ effspec weights convert b1.pth --spec b0 --variant b1 -o b1.safetensors",
    ),
    Code(
        "E0806",
        "parts of a checkpoint that cannot be told apart",
        "Layers of one shape that neither their names nor their order nor the network's wiring distinguish.",
        "$ effspec weights convert sorted_by_name.safetensors --spec twins.eff -o twins.safetensors",
        "$ effspec weights convert in_order_of_the_code.pth --spec twins.eff -o twins.safetensors",
    ),
    Code(
        "E0807",
        "class names that do not fit",
        "A model has a name for each channel of its output: one line of a file, or one text of the checkpoint's list.",
        "$ effspec weights convert b0.pth --spec b0 --variant b0 --class-names ten_names.txt -o b0.safetensors",
        "$ effspec weights convert b0.pth --spec b0 --variant b0 --class-names imagenet.txt -o b0.safetensors",
    ),
    # E09xx: expectations
    Code(
        "E0901",
        "an expectation that does not hold",
        "`expect` states what a variant measures; one of the two is wrong.",
        "model M() on image: [3, 8, 8] { conv(8) }\nvariant m = M()\nexpect m: params == 1",
        "model M() on image: [3, 8, 8] { conv(8) }\nvariant m = M()\nexpect m: params == 32",
    ),
    Code(
        "E0902",
        "something that is no expectation",
        "An expectation compares params, training_params, macs, acts, depth or count(...), or says equals(...).",
        "model M() on image: [3, 8, 8] { conv(8) }\nvariant m = M()\nexpect m: parms == 32",
        "model M() on image: [3, 8, 8] { conv(8) }\nvariant m = M()\nexpect m: params == 32",
    ),
    Code(
        "E0903",
        "not the peer's network",
        "`equals` says that the peer's model has the same parameters, and the same outputs with the same weights.",
        "$ effspec check half_pads_equal_tf.eff --peers",
        "$ effspec check b0 --peers",
    ),
    Code(
        "E0904",
        "a target computes something else",
        "Every target computes what the graph means: this one is a mistake of a backend, a runtime, or an edited file.",
        "$ effspec verify b0 --targets onnx        (with a runtime that is wrong)",
        "$ effspec verify b0 --targets torch",
    ),
)

CODES: dict[str, Code] = {row.code: row for row in _ROWS}
