"""Loading: which files a name leads to, what an import may not reach, and that everything is reported in one run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from effspec.diagnostics import EffspecError
from effspec.library import shipped
from effspec.modules import MAX_FILES, MAX_IMPORT_DEPTH
from effspec.names import TORCH_ATTRIBUTES, snake_case
from effspec.resolve import MAX_ERRORS, load
from effspec.syntax import nodes
from effspec.syntax.parser import MAX_BYTES

ROOT = Path(__file__).parent.parent
BLOCK = "effspec 1\nblock {}(out) {{ conv(out) }}\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spec(path: str, text: str) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text if text.startswith("effspec") else f"effspec 1\n{text}", encoding="utf-8")
    return path


def problems(path: str) -> list[tuple[str, str]]:
    with pytest.raises(EffspecError) as error:
        load(path)
    return [(p.code, p.primary.span.place if p.primary else "") for p in error.value.diagnostics]


def use(name: str) -> str:
    return f"block Use{name}(out) {{ {name}(out) }}\n"


# What a person names


def test_shipped_specs_by_name() -> None:
    for name, path in shipped().items():
        module = load(name)
        assert module.name == path == f"specs/{name}.eff"
        assert any(isinstance(item, nodes.Model | nodes.Variant) for item in module.file.items)


def test_shipped_and_given_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    given, named = load("specs/b0.eff"), load("b0")
    assert given.source.text == named.source.text and given.name == named.name
    assert {d.module.name for d in given.definitions.values()} == {d.module.name for d in named.definitions.values()}
    assert "specs/std/conv.eff" in {d.module.name for d in given.definitions.values()}


def test_every_shipped_file_loads() -> None:
    for path in (ROOT / "specs").rglob("*.eff"):
        load(path)
    for path in (ROOT / "tests" / "examples").glob("*.eff"):
        load(path)


def test_paths(here: Path) -> None:
    spec("sub/a.eff", BLOCK.format("A"))
    assert load("sub/a.eff").name == "sub/a.eff"
    assert load("./sub/a.eff").name == "./sub/a.eff"
    assert load(here / "sub" / "a.eff").name == str(here / "sub" / "a.eff")
    # A folder called like a shipped spec hides nothing, nor does a file without the suffix.
    (here / "b0").mkdir()
    assert load("b0").name == "specs/b0.eff"
    (here / "link.eff").symlink_to(here / "sub" / "a.eff")
    assert load("link.eff").name == "link.eff"


@pytest.mark.parametrize("name", ["missing.eff", "missing", "no/such/folder.eff", "", "a\0b", "b00", "x" * 5000])
def test_missing(name: str) -> None:
    assert {code for code, _ in problems(name)} <= {"E0109", "E0110"}


def test_a_shipped_name_is_suggested() -> None:
    with pytest.raises(EffspecError, match="did you mean `b0`"):
        load("b00")
    with pytest.raises(EffspecError, match="the shipped spec is called `b0`"):
        load("b0.eff")


def test_only_regular_files_of_limited_size(here: Path) -> None:
    os.mkfifo("fifo.eff")
    (here / "folder.eff").mkdir()
    (here / "large.eff").write_bytes(b"#" * (MAX_BYTES + 1))
    start = time.process_time()
    for name in ("fifo.eff", "folder.eff", ".", "/dev/zero", "/dev/null", "/"):
        assert problems(name) == [("E0110", "")]
    assert problems("large.eff") == [("E0103", "")]
    assert time.process_time() - start < 2
    # The same through an import.
    spec("a.eff", 'import A from "fifo.eff"\nimport B from "folder.eff"\nimport C from "large.eff"\n')
    assert [code for code, _ in problems("a.eff")] == ["E0110", "E0110", "E0103"]


def test_a_file_that_may_not_be_read(here: Path) -> None:
    path = spec("secret.eff", BLOCK.format("A"))
    Path(path).chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads everything")
    assert problems(path) == [("E0110", "")]


# Imports


def test_imports_are_relative_to_the_file() -> None:
    spec("parts/inner/a.eff", BLOCK.format("A"))
    spec("parts/b.eff", 'import A from "inner/a.eff"\n' + use("A"))
    spec(
        "main.eff",
        'import UseA from "parts/b.eff"\nimport "parts/inner/a.eff" as a\n'
        + use("UseA")
        + use("a.A").replace("Usea.A", "Other"),
    )
    module = load("main.eff")
    assert module.definitions["UseA"].module.name == "parts/b.eff"
    assert module.definitions["UseA"].module.definitions["A"].module is module.namespaces["a"]
    assert module.namespaces["a"].name == "parts/inner/a.eff"


def test_a_diamond_is_read_once() -> None:
    spec("a.eff", BLOCK.format("A"))
    for name in "bc":
        spec(f"{name}.eff", f'import A from "a.eff"\nblock {name.upper()}(out) {{ A(out) }}\n')
    spec("d.eff", 'import B from "b.eff"\nimport C from "c.eff"\n' + use("B") + use("C"))
    module = load("d.eff")
    ones = {module.definitions[name].module.definitions["A"].module for name in "BC"}
    assert len(ones) == 1


def test_std_is_always_the_shipped_one() -> None:
    spec("std/conv.eff", BLOCK.format("Mine"))
    spec("main.eff", 'import ConvNorm from "std/conv.eff"\n' + use("ConvNorm"))
    assert load("main.eff").definitions["ConvNorm"].module.name == "specs/std/conv.eff"
    spec("below/main.eff", 'import Mine from "std/conv.eff"\n' + use("Mine"))
    assert problems("below/main.eff") == [("E0201", "below/main.eff:2")]


@pytest.mark.parametrize(
    "path",
    [
        *("../secret.eff", "../../etc/passwd", "sub/../../secret.eff", "sub/../secret.eff", "./a.eff", "std/../b0.eff"),
        *("/etc/passwd", "/secret.eff", "C:\\secret.eff", "C:/secret.eff", "\\\\host\\share\\x.eff", "~/secret.eff"),
        *(
            "file:///secret.eff",
            "http://host/secret.eff",
            "%2e%2e/secret.eff",
            "sub//a.eff",
            "",
            "a",
            "a.py",
            ".eff/",
            "/",
        ),
        *("a" * 300 + ".eff", "sub\\a.eff"),
    ],
)
def test_paths_that_are_refused(path: str) -> None:
    spec("secret.eff", "effspec 1\nsecret_contents = 1\n")
    spec("project/sub/a.eff", BLOCK.format("A"))
    spec("project/main.eff", f'import A from "{path}"\n' + use("A"))
    with pytest.raises(EffspecError) as error:
        load("project/main.eff")
    assert [problem.code for problem in error.value.diagnostics] == ["E0207"]
    assert "secret_contents" not in str(error.value) and "root:" not in str(error.value)


def test_links_do_not_lead_out(here: Path) -> None:
    spec("secret.eff", "effspec 1\nsecret_contents = 1\n")
    spec("project/sub/a.eff", BLOCK.format("A"))
    (here / "project" / "out.eff").symlink_to(here / "secret.eff")
    (here / "project" / "up").symlink_to(here)
    (here / "project" / "inside").symlink_to("sub")
    (here / "project" / "loop.eff").symlink_to("loop.eff")
    for path in ("out.eff", "up/secret.eff"):
        spec("project/main.eff", f'import A from "{path}"\n' + use("A"))
        with pytest.raises(EffspecError, match="leads out of the folder") as error:
            load("project/main.eff")
        assert "secret_contents" not in str(error.value)
    spec("project/main.eff", 'import A from "loop.eff"\n' + use("A"))
    assert problems("project/main.eff")[0][0] in ("E0109", "E0110")
    spec("project/main.eff", 'import A from "inside/a.eff"\n' + use("A"))
    load("project/main.eff")


def test_cycles_of_files() -> None:
    spec("a.eff", 'import B from "b.eff"\nblock A(out) { B(out) }\n')
    spec("b.eff", 'import C from "c.eff"\nblock B(out) { C(out) }\n')
    spec("c.eff", 'import A from "a.eff"\nblock C(out) { A(out) }\n')
    with pytest.raises(EffspecError, match=r"files import each other: a.eff -> b.eff -> c.eff -> a.eff") as error:
        load("a.eff")
    assert [problem.code for problem in error.value.diagnostics] == ["E0206"]
    spec("self.eff", 'import A from "self.eff"\n' + use("A"))
    with pytest.raises(EffspecError, match=r"self.eff -> self.eff"):
        load("self.eff")


def test_imports_are_limited() -> None:
    for number in range(MAX_IMPORT_DEPTH + 1):
        spec(
            f"n{number}.eff",
            f'import A{number + 1} from "n{number + 1}.eff"\nblock A{number}(out) {{ A{number + 1}(out) }}\n',
        )
    spec(f"n{MAX_IMPORT_DEPTH + 1}.eff", BLOCK.format(f"A{MAX_IMPORT_DEPTH + 1}"))
    assert problems("n0.eff")[0][0] == "E0219"
    load("n3.eff")
    for number in range(MAX_FILES):
        spec(f"m{number}.eff", BLOCK.format(f"M{number}"))
    names = range(MAX_FILES)
    spec("many.eff", "".join(f'import M{n} from "m{n}.eff"\n' for n in names) + "".join(use(f"M{n}") for n in names))
    assert problems("many.eff") == [("E0219", f"many.eff:{MAX_FILES + 1}")]


def test_a_broken_import_is_one_mistake() -> None:
    spec("broken.eff", "block A(out) { conv(out }\n")
    spec("main.eff", 'import A from "broken.eff"\n' + use("A") + "block B(out) { conv(ot) }\n")
    assert problems("main.eff") == [("E0201", "main.eff:4"), ("E0101", "broken.eff:2")]


# All mistakes of a run


def test_mistakes_are_in_the_order_of_the_text() -> None:
    spec("lib.eff", "block L(out, unused) { conv(out) }\n")
    spec("main.eff", 'import L from "lib.eff"\nblock A(out) { L(out, 1, k = 2) }\nblock B(x) { y() }\n')
    assert problems("main.eff") == [
        ("E0301", "main.eff:3"),
        ("E0202", "main.eff:4"),
        ("E0201", "main.eff:4"),
        ("E0202", "lib.eff:2"),
    ]


def test_there_is_an_end_to_mistakes() -> None:
    spec("main.eff", "".join(f"block A{n}(out) {{ conv(missing{n}); relu(out) }}\n" for n in range(200)))
    assert len(problems("main.eff")) == MAX_ERRORS


def test_long_chains_of_names() -> None:
    """Neither thousands of definitions nor a long cycle overflow anything; what nests too deeply is refused."""
    count = 3000
    spec("chain.eff", "".join(f"c{n} = c{n + 1}\n" for n in range(count)) + f"c{count} = 1\n")
    with pytest.raises(EffspecError, match="more than 64 deep") as error:
        load("chain.eff")
    assert [problem.code for problem in error.value.diagnostics] == ["E0104"]
    spec("cycle.eff", "".join(f"c{n} = c{(n + 1) % count}\n" for n in range(count)))
    with pytest.raises(EffspecError, match="uses itself") as error:
        load("cycle.eff")
    assert "E0206" in {problem.code for problem in error.value.diagnostics}
    assert len(str(error.value)) < 20_000
    spec("fns.eff", "fn f0(n) = n\n" + "".join(f"fn f{n}(n) = f{n - 1}(n)\n" for n in range(1, 64)))
    load("fns.eff")


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "(" * 64 + "1" + ")" * 64,
        "a = " + "[" * 64 + "]" * 64,
        "a = " + "abs(" * 48 + "1" + ")" * 48,
        "a = " + "1 + " * 144 + "1",
        "block A() { " + "a: { " * 46 + "relu()" + " }" * 46 + " }",
        "block A(n) { " + "if n > 1 { " * 60 + "relu()" + " }" * 61,
    ],
    ids=lambda text: text[:24],
)
def test_deep_but_legal(text: str) -> None:
    spec("deep.eff", text)
    load("deep.eff")


def test_doubling_is_not_expanded() -> None:
    """Billion laughs: each definition names the one before twice."""
    start = time.process_time()
    for form in ("a{n} = [a{m}, a{m}]\n", "fn a{n}(x) = a{m}(a{m}(x))\n", "block A{n}() {{ A{m}(); A{m}() }}\n"):
        first = form.split("{n}")[0] + "0" + {"a": " = 1", "f": "(x) = x", "b": "() { relu() }"}[form[0]] + "\n"
        spec("laughs.eff", first + "".join(form.format(n=n, m=n - 1) for n in range(1, 41)))
        load("laughs.eff")
    assert time.process_time() - start < 3


def test_names_of_torch() -> None:
    """The table holds what a torch module has (and `self`)."""
    module = torch.nn.Module()
    public = {name for name in dir(module) if not name.startswith("_")}
    assert public <= TORCH_ATTRIBUTES
    for name in TORCH_ATTRIBUTES & public - {"training"}:
        with pytest.raises((KeyError, TypeError)):
            torch.nn.Module().add_module(name, torch.nn.ReLU())


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("ConvNorm", "conv_norm"),
        ("MBConv", "mb_conv"),
        ("SE16", "se16"),
        ("GRN", "grn"),
        ("BiFPN", "bi_fpn"),
        ("A", "a"),
    ],
)
def test_names_of_blocks_in_paths(name: str, snake: str) -> None:
    assert snake_case(name) == snake


def test_nothing_but_specs_is_opened(here: Path) -> None:
    """Loading opens the specs and the files of effspec's own packages."""
    spec("main.eff", 'import ConvNorm from "std/conv.eff"\n' + use("ConvNorm"))
    program = (
        "import sys; opened = []\n"
        "from effspec.resolve import load; load('b0')\n"
        "sys.addaudithook(lambda event, a: opened.append(str(a[0])) if event in ('open', 'socket.connect') else None)\n"
        "load('main.eff'); print(*opened, sep='\\n')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    opened = {Path(name).name for name in run.stdout.split() if not name.isdecimal()}  # a number is a descriptor
    assert {name for name in opened if not name.endswith((".pyc", ".py"))} == {"main.eff", "conv.eff"}
