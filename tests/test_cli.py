"""The command line as a user meets it: what is printed where, exit statuses, files that are written or left alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import effspec
from effspec import output, request
from effspec.cli import main
from effspec.expectations import LIBRARIES

ROOT = Path(__file__).parent.parent
B0 = str(ROOT / "specs" / "b0.eff")
B0_TEXT = Path(B0).read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


class Run:
    """A command that ran in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
        capture.readouterr()
        self.status = main(words)
        self.out, self.err = capture.readouterr()


@pytest.fixture
def effspec_(capfd: pytest.CaptureFixture[str]) -> Any:
    return lambda *words: Run(capfd, words)


# Compiling ------------------------------------------------------------------------------------------------------------


def test_first_command(effspec_: Any) -> None:
    done = effspec_("compile", B0, "--phi", "2", "--target", "torch")
    assert done.status == 0 and done.out == ""
    lines = done.err.splitlines()
    assert lines[0] == "EfficientNet  phi 2: depth x1.44, width x1.21, resolution x1.3225, input 3 x 296 x 296"
    assert re.fullmatch(
        r"  12,255,408 parameters   1\.81 G multiply-adds   26 blocks   function [0-9a-f]{12}", lines[1]
    )
    assert lines[2] == (
        "  nearest published: b3 (depth x1.4, width x1.2, size 300); phi is the paper's formula, "
        "the published models are --variant b0 ... l2"
    )
    text = Path("efficientnet_phi2.py").read_text()
    assert lines[3] == f"  wrote efficientnet_phi2.py ({len(text.splitlines())} lines)"
    assert lines[1].split()[-1] in text


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ((), "efficientnet.ir.txt"),
        (("--variant", "b2"), "efficientnet_b2.ir.txt"),
        (("--phi", "0.5"), "efficientnet_phi0_5.ir.txt"),
        (("--phi", "-1"), "efficientnet_phi_minus_1.ir.txt"),
        (("--variant", "tf_b0", "--set", "classes=10"), "efficientnet_tf_b0_classes10.ir.txt"),
        (("--set", 'pad="same"'), "efficientnet_pad_same.ir.txt"),
    ],
)
def test_default_names(effspec_: Any, words: tuple[str, ...], name: str) -> None:
    assert effspec_("compile", "b0", "--target", "ir", *words).status == 0
    assert listed() == [name]


def test_standard_output_is_data_alone(effspec_: Any) -> None:
    done = effspec_("compile", "b0", "--target", "torch", "-o", "-")
    assert done.status == 0 and done.err == ""
    compile(done.out, "emitted", "exec")
    assert output.is_sealed(done.out.encode())
    assert listed() == []


def test_onnx_to_standard_output(here: Path) -> None:
    words = [sys.executable, "-m", "effspec", "compile", "b0", "--phi", "-2", "--target", "onnx", "-o", "-"]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
    import onnx

    assert onnx.load_from_string(done.stdout).producer_name == "effspec"


def test_options_of_a_target(effspec_: Any) -> None:
    import onnx

    words = ("compile", "b0", "--phi", "-2", "--target", "onnx", "-o", "a.onnx")
    assert effspec_(*words, "--no-fold", "--opset", "17", "--batch", "2").status == 0
    model = onnx.load("a.onnx")
    assert model.opset_import[0].version == 17
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    assert any(node.op_type == "BatchNormalization" for node in model.graph.node)
    assert effspec_(*words, "--fold", "batch-norm", "--option", "dtype=float64").status == 0
    assert not any(node.op_type == "BatchNormalization" for node in onnx.load("a.onnx").graph.node)
    for bad in (("--opset", "99"), ("--fold", "everything"), ("--option", "opst=18"), ("--dtype", "int8")):
        done = effspec_(*words, *bad)
        assert done.status == 1 and "E0703" in done.err


def test_json_of_a_compilation(effspec_: Any) -> None:
    done = effspec_("compile", "b0", "--phi", "2", "--target", "ir", "--json")
    found = json.loads(done.out)
    assert done.status == 0 and done.err == ""
    assert found["schema"] == "effspec.compile/1" and found["path"] == "efficientnet_phi2.ir.txt"
    assert found["point"]["params"] == 12_255_408 and found["point"]["inputs"] == {"image": [3, 296, 296]}
    assert found["nearest"]["variant"] == "b3"
    assert set(found["point"]["hashes"]) == {"function", "weights", "artefact"}


# Contradictions and mistakes ------------------------------------------------------------------------------------------


def test_phi_beside_a_variant(effspec_: Any) -> None:
    done = effspec_("compile", B0, "--variant", "b2", "--phi", "3", "--target", "torch")
    assert done.status == 1 and done.out == "" and listed() == []
    lines = done.err.splitlines()
    assert lines[0] == "error[E0612]: phi has no effect"
    assert lines[1].strip().startswith("--> command line:1:")
    carets = lines[4].index("^"), lines[4].rindex("^") + 1
    assert lines[3][slice(*carets)] == "--phi 3"
    assert "gives width, depth and size" in done.err and "b0.eff:" in done.err


@pytest.mark.parametrize(
    ("words", "code", "under"),
    [
        (("--set", "clases=10"), "E0602", "--set clases=10"),
        (("--set", "classes=1x"), "E0101", "1x"),
        (("--set", "classes"), "E0605", "--set classes"),
        (("--set=classes=10", "--set", "classes=11"), "E0604", "--set classes=11"),
        (("--phi", "nan"), "E0201", "nan"),
        (("--phi", "2", "--set", "phi=2"), "E0604", "--set phi=2"),
    ],
)
def test_settings_that_are_wrong(effspec_: Any, words: tuple[str, ...], code: str, under: str) -> None:
    done = effspec_("compile", "b0", "--target", "ir", *words)
    assert done.status == 1 and done.err.startswith(f"error[{code}]"), done.err
    lines = done.err.splitlines()
    carets = lines[4].index("^"), lines[4].rindex("^") + 1
    assert lines[3][slice(*carets)] == under
    assert listed() == []


@pytest.mark.parametrize("words", [("--variant", "b9"), ("--model", "ResNet")])
def test_points_that_do_not_exist(effspec_: Any, words: tuple[str, ...]) -> None:
    done = effspec_("compile", "b0", *words)
    assert done.status == 1 and "E0601" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("nope",),
        ("compile",),
        ("compile", "b0", "--nope"),
        ("compile", "b0", "--json", "-o", "-"),
        ("compile", "b0", "--no-fold", "--fold", "linear"),
        ("compile", "b0", "--seed", "x"),
        ("compile", "b0", "--seed", "3"),
        ("compile", "b0", "--target", "onnx", "--seed", "3", "--weights", "b0.safetensors"),
        ("compile", "b0", "-o", "b0.onnx"),
        ("compile", "b0", "--target", "onnx", "-o", "b0.py"),
        ("compile", "b0", "--variant", "b2", "--variant", "b3"),
        ("compile", "b0", "--phi", "1", "--phi", "1"),
        ("compile", "b0", "--target", "onnx", "--opset", "18", "--option", "opset=17"),
        ("compile", "b0", "--target", "onnx", "--option", "opset=18", "--option", "opset=17"),
        ("weights", "init", "b0", "-o", "a", "-o", "b"),
        ("schema", "nope"),
    ],
)
def test_usage(effspec_: Any, words: tuple[str, ...]) -> None:
    done = effspec_(*words)
    assert done.status == 2 and done.out == "" and "Error:" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("compile", "b0", "-o", "b0.onnx"),
            "b0.onnx is called as what --target onnx makes, and the target is torch: give --target onnx, or -o b0.py",
        ),
        (("compile", "b0", "--seed", "3"), "--seed has no effect: target torch holds no numbers; drop it"),
        (("compile", "b0", "--phi", "1", "--phi", "1"), "--phi is given twice: keep one of them"),
        (
            ("compile", "b0", "--target", "onnx", "--opset", "18", "--option", "opset=17"),
            "the option opset is given twice: keep one of them",
        ),
        (
            ("weights", "convert", "a.pth", "--spec", "b0", "-o", "d.pth"),
            "d.pth would hold safetensors, which its name does not say: -o d.safetensors",
        ),
    ],
)
def test_contradictions(effspec_: Any, words: tuple[str, ...], said: str) -> None:
    done = effspec_(*words)
    assert done.status == 2 and done.err.splitlines()[-1] == f"Error: {said}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--variant", "B2"), "did you mean `b2`?"),
        (("--target", "ONNX"), "did you mean `onnx`?"),
        (("--set", "pad=same"), "a text stands in quotes: 'NAME=\"same\"'"),
        (("--phi", "nan"), "a number is finite"),
        (("--set", "classes=0"), "::: command line:1:20\n   |\n 1 | effspec compile b0 --set classes=0\n"),
    ],
)
def test_mistakes_of_the_impatient(effspec_: Any, words: tuple[str, ...], said: str) -> None:
    done = effspec_("compile", "b0", *words)
    assert done.status == 1 and said in done.err, done.err
    assert "from `dropout`" not in done.err, "what the layer is applied to has nothing to do with it"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "a spec begins with the line `effspec 1`"),
        (b"\xef\xbb\xbf", "a spec begins with the line `effspec 1`"),
        (b"effspec 1\n# caf\xe9\n", "is not UTF-8: byte 15 (line 2) cannot be decoded"),
        ("effspec 1\nmodel Café() on image: [3, 8, 8] { relu() }".encode(), "names are made of the letters a to z"),
        (b"effspec 2\n", "this effspec reads edition 1"),
    ],
)
def test_files_that_are_no_specs(effspec_: Any, text: bytes, said: str) -> None:
    Path("x.eff").write_bytes(text)
    for command in ("check", "compile", "fmt", "list"):
        done = effspec_(command, "x.eff")
        assert done.status == 1 and said in done.err, done.err


def test_places_that_cannot_be_written(effspec_: Any) -> None:
    Path("d").mkdir()
    for words in (("new", "d/"), ("compile", "b0", "-o", "d"), ("compile", "b0", "-o", "no/x.py"), ("fmt", "b0")):
        done = effspec_(*words)
        assert done.status == 1 and re.search("E0713|E0109", done.err), done.err
    assert listed() == ["d"] and list(Path("d").iterdir()) == []


@pytest.mark.parametrize(
    "command", ["show b0", "show b0 --json", "compile b0 -o -", "list", "compile b0 -o - --target ir"]
)
def test_standard_output_that_ends_early(command: str, here: Path) -> None:
    """`| head -1` is no mistake, a full disk is one, and neither shows a traceback."""
    words = [sys.executable, "-m", "effspec", *command.split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(words, env=environment, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
    full = Path("/dev/full")
    if full.exists():
        with full.open("wb") as out:
            done = subprocess.run(words, env=environment, stdout=out, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 1 and done.stderr.splitlines() == [
            b"error[E0716]: cannot write to standard output: no space left on device"
        ]


def test_nobody_to_tell(here: Path) -> None:
    """Where messages cannot be written, the work is done all the same."""
    words = [sys.executable, "-m", "effspec", "compile", "b0", "--phi", "-2", "-o", "a.py"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=write, check=False)
    os.close(write)
    assert done.returncode == 0 and listed() == ["a.py"]


def test_errors_as_json(effspec_: Any) -> None:
    done = effspec_("show", "b0", "--set", "clases=10", "--json")
    [problem] = json.loads(done.out)["diagnostics"]
    assert done.status == 1 and problem["code"] == "E0602" and problem["primary"]["file"] == "command line"
    assert "did you mean `classes`" in problem["help"]


def test_no_colours_unless_on_a_terminal(effspec_: Any) -> None:
    assert "\x1b" not in effspec_("compile", "b0", "--variant", "zz").err


def test_colours_on_a_terminal(here: Path) -> None:
    pty = pytest.importorskip("pty", reason="no terminals here")
    for environment, colored in (({}, True), ({"NO_COLOR": "1"}, False)):
        parent, child = pty.openpty()
        words = [sys.executable, "-m", "effspec", "compile", "b0", "--variant", "zz"]
        base = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
        base.pop("NO_COLOR", None)
        subprocess.run(words, stderr=child, env={**base, **environment}, check=False)
        os.close(child)
        shown = os.read(parent, 10_000)
        os.close(parent)
        assert (b"\x1b[" in shown) is colored


def test_a_fault_of_effspec(effspec_: Any, monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("effspec.resolve.load", broken)
    monkeypatch.setenv("TMPDIR", str(here))
    monkeypatch.setattr("tempfile.tempdir", None)
    done = effspec_("compile", "b0")
    assert done.status == 70 and "Traceback" not in done.err and "ZeroDivisionError" in done.err
    [report] = [name for name in listed() if name.startswith("effspec-report-")]
    assert report in done.err and "secret" in Path(report).read_text()
    monkeypatch.setenv("EFFSPEC_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main(["compile", "b0"])


def test_interruption(effspec_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("effspec.resolve.load", interrupted)
    done = effspec_("compile", "b0")
    assert done.status == 130 and done.err.strip() == "interrupted"


# Files ----------------------------------------------------------------------------------------------------------------


def test_an_edited_file_is_kept(effspec_: Any) -> None:
    words = ("compile", "b0", "--phi", "-2")
    assert effspec_(*words).status == 0
    path = Path("efficientnet_phi_minus_2.py")
    emitted = path.read_text()
    assert effspec_(*words).status == 0, "an untouched file may be written again"
    assert effspec_("compile", "b0", "--phi", "-1", "-o", str(path)).status == 0, "and replaced by another point"
    path.write_text(emitted.replace("import torch\n", "import torch  # mine\n"))
    edited = path.read_text()
    done = effspec_(*words)
    assert done.status == 1 and "E0711" in done.err and "was edited" in done.err
    assert path.read_text() == edited
    assert effspec_(*words, "--force").status == 0
    assert path.read_text() == emitted


@pytest.mark.parametrize("target", ["torch", "onnx", "ir"])
def test_what_others_wrote_is_kept(effspec_: Any, target: str) -> None:
    Path("mine").write_text("print('mine')\n")
    words = ("compile", "b0", "--phi", "-2", "--target", target, "-o", "mine")
    done = effspec_(*words)
    assert done.status == 1 and "was not written by effspec" in done.err
    assert Path("mine").read_text() == "print('mine')\n"
    assert effspec_(*words, "--force").status == 0
    assert effspec_(*words).status == 0, "now it is ours"
    assert listed() == ["mine"]


def test_line_ends_are_no_edit(effspec_: Any) -> None:
    assert effspec_("compile", "b0", "--phi", "-2", "-o", "a.py").status == 0
    path = Path("a.py")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert effspec_("compile", "b0", "--phi", "-2", "-o", "a.py").status == 0
    assert b"\r" not in path.read_bytes()


def test_places_that_are_refused(effspec_: Any, here: Path) -> None:
    Path("b0.eff").write_bytes(Path(B0).read_bytes())
    Path("folder").mkdir()
    Path("real.py").write_text("")
    Path("link.py").symlink_to("real.py")
    os.mkfifo("pipe.py")
    cases = {
        "b0.eff": "E0714",
        "folder": "E0713",
        "folder/": "E0713",
        "nowhere/a.py": "E0713",
        "link.py": "E0712",
        "pipe.py": "E0713",
        "CON": "E0715",
        "nul.py": "E0715",
        "a.py.": "E0715",
        "a\nb.py": "E0715",
        "x" * 300: "E0715",
    }
    for path, code in cases.items():
        done = effspec_("compile", "b0.eff", "-o", path, "--force")
        assert done.status == 1 and code in done.err, (path, done.err)
    assert Path("real.py").read_text() == "" and Path("b0.eff").read_bytes() == Path(B0).read_bytes()


def test_no_half_file(effspec_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert effspec_("compile", "b0", "--phi", "-2", "-o", "a.py").status == 0
    before = Path("a.py").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = effspec_("compile", "b0", "--phi", "-1", "-o", "a.py")
    assert done.status == 1 and "no space left on device" in done.err
    assert Path("a.py").read_bytes() == before and listed() == ["a.py"]


def test_two_writers_of_one_path(here: Path) -> None:
    words = [sys.executable, "-m", "effspec", "compile", "b0", "-o", "a.py", "--phi"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen([*words, phi], env=environment, stderr=subprocess.DEVNULL) for phi in ("-1", "-2")]
    assert [process.wait() for process in running] == [0, 0]
    assert output.is_sealed(Path("a.py").read_bytes()) and listed() == ["a.py"]


# Other commands -------------------------------------------------------------------------------------------------------


def test_show(effspec_: Any) -> None:
    done = effspec_("show", "b0", "--variant", "b2")
    assert done.status == 0 and done.err == ""
    lines = done.out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    [total] = [line for line in lines if "total" in line]
    assert "9,109,994" in total and "994M" in total
    [stem] = [line for line in lines if " stem " in line]
    assert stem.split()[1:] == ["stem", "ConvNormAct", "k3", "s2", "32x130x130", "928", "14.6M", "541k", "4.33M"]


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "examples").glob("*.eff")), ids=lambda path: path.stem)
def test_tables_add_up(effspec_: Any, path: Path) -> None:
    from effspec.commands.check import requests
    from effspec.resolve import load

    point = requests(load(str(path)))[0]
    words = ("--variant", point.variant) if point.variant else ("--model", point.model)
    found = json.loads(effspec_("show", str(path), *words, "--json").out)
    for field in ("params", "macs", "activations"):
        assert sum(row[field] for row in found["stages"]) == found["point"][field]
    assert max(row["peak_bytes"] for row in found["stages"]) == found["point"]["peak_bytes"]
    lines = effspec_("show", str(path), *words).out.splitlines()
    assert all(len(line) <= 80 for line in lines)


def test_list(effspec_: Any) -> None:
    done = effspec_("list")
    assert done.status == 0 and "b0: EfficientNet" in done.out and "tf_lite0" in done.out
    [found] = json.loads(effspec_("list", "b0", "--json").out)["specs"]
    assert found["models"] == ["EfficientNet"] and found["variants"][:3] == ["b0", "b1", "b2"]
    # A spec may be variants of another one's model.
    assert effspec_("list", "resnet_rs").out.startswith("resnet_rs: no model of its own\n    rs50 rs101 ")


def test_the_standard_library_is_listed(effspec_: Any) -> None:
    """Every name that can be imported, with its parameters as they are written and what is said of it."""
    done = effspec_("list", "std")
    assert done.status == 0 and all(len(line) <= 80 for line in done.out.splitlines())
    assert (
        "std/conv.eff\n"
        "  fn make_divisible(v, divisor = 8, least = divisor, shrink = 0.9)\n"
        "      The number of channels nearest to v that is allowed (Howard et al. 2017).\n"
    ) in done.out
    found = {spec["spec"]: spec for spec in json.loads(effspec_("list", "std", "--json").out)["specs"]}
    files = {f"specs/std/{path.name}": path.read_text() for path in (ROOT / "specs" / "std").glob("*.eff")}
    assert found.keys() == files.keys()
    for spec, text in files.items():
        names = re.findall(r"^(?:fn|block|scaling|model) (\w+)", text, re.MULTILINE)
        assert [one["name"] for one in found[spec]["definitions"]] == names
        assert all(one["signature"].startswith(one["name"] + "(") for one in found[spec]["definitions"])
    assert effspec_("list").out.endswith("    effspec list std\n") and effspec_("list").err == ""
    assert effspec_("list", "std/conv.eff").out.splitlines()[0] == "std/conv.eff"
    assert effspec_("list", "std/../b0.eff").status == 1


def test_names_are_explained(effspec_: Any) -> None:
    assert effspec_("explain", "MBConv").out == (
        "  block MBConv(out, k = 3, s = 1, expand = 6, se = 0.25, drop = default.drop)\n"
        "      Mobile inverted bottleneck (Sandler et al. 2018) with\n"
        "      squeeze-and-excitation.\n"
        '      import MBConv from "std/conv.eff"\n'
    )
    assert effspec_("explain", "silu").out == "  operator silu()\n      x * sigmoid(x), also called swish.\n"
    done = effspec_("explain", "MBCnv")
    assert done.status == 2 and done.err.splitlines()[-1] == (
        "Error: no diagnostic has the code 'MBCnv', and no operator or block the name: did you mean `MBConv`?"
    )
    from effspec.codes import CODES

    assert [line[:5] for line in effspec_("explain").out.splitlines()] == list(CODES)


def test_one_target(effspec_: Any) -> None:
    lines = effspec_("targets", "torch").out.splitlines()
    assert lines[0].startswith("torch ") and not any(line.startswith(("ir", "onnx")) for line in lines)
    done = effspec_("targets", "tarch")
    assert done.status == 1 and "did you mean `torch`?" in done.err


def test_targets(effspec_: Any) -> None:
    assert {"ir", "onnx", "torch"} <= {line.split()[0] for line in effspec_("targets").out.splitlines()}
    found = json.loads(effspec_("targets", "--json").out)["targets"]
    assert next(target for target in found if target["name"] == "onnx")["options"]["opset"]["default"] == 18


def test_new_teaches_a_spec_that_works(effspec_: Any) -> None:
    assert effspec_("new", "my_net").status == 0
    assert effspec_("check", "my_net.eff").err.strip() == "my_net.eff: 2 points compile, 2 checks hold"
    assert effspec_("compile", "my_net.eff", "--variant", "small").status == 0
    assert Path("mynet_small.py").is_file()
    assert effspec_("compile", "my_net.eff", "--phi", "1.5").status == 0
    Path("my_net.eff").write_text("mine")
    assert effspec_("new", "my_net").status == 1
    assert Path("my_net.eff").read_text() == "mine"
    assert effspec_("new", "7seas").status == 1


def test_check_finds_what_fails(effspec_: Any) -> None:
    assert effspec_("new", "net").status == 0
    text = Path("net.eff").read_text()
    Path("net.eff").write_text(text.replace("expect small: params == ", "expect small: params == 1"))
    done = effspec_("check", "net.eff")
    assert done.status == 1 and "E0901" in done.err and "params is 120,894" in done.err
    assert done.err.strip().endswith("net.eff: 1 error")
    Path("net.eff").write_text(text.replace("count(", "cuont(").replace("relu", "rleu").replace("k = 5", "k = 4"))
    done = effspec_("check", "net.eff", "--json")
    assert done.status == 1
    assert [problem["code"] for problem in json.loads(done.out)["specs"][0]["diagnostics"]]


def test_check_compares_with_peers(effspec_: Any) -> None:
    """A spec that claims the wrong flavour of a peer is caught, and the right one is not."""
    head = B0_TEXT[: B0_TEXT.index("# As trained")].replace("variant b1", "# variant b1")
    head = "\n".join(line for line in head.splitlines() if not line.startswith(("variant b", "variant l")))
    lines = [
        "variant small = EfficientNet(size = 96)",
        'variant same = EfficientNet(size = 96, pad = "same", eps = 1e-3, momentum = 0.01)',
        'expect small: equals("timm/efficientnet_b0"), equals("torchvision/efficientnet_b0")',
        'expect same: equals("timm/tf_efficientnet_b0")',
    ]
    Path("x.eff").write_text("\n".join([head, *lines]))
    done = effspec_("check", "x.eff", "--peers")
    assert done.err.strip() == "x.eff: 2 points compile, 3 checks hold", done.err
    wrong = lines[2].replace("torchvision/efficientnet_b0", "timm/tf_efficientnet_b0")
    Path("x.eff").write_text("\n".join([head, *lines[:2], wrong]))
    done = effspec_("check", "x.eff", "--peers")
    assert done.status == 1 and "E0903" in done.err and "outputs differ by" in done.err
    assert effspec_("check", "x.eff").status == 0, "without --peers nothing is compared"
    # A misspelt peer is an error, not a comparison that is left out.
    Path("x.eff").write_text("\n".join([head, *lines]).replace("tf_efficientnet_b0", "tf_eficientnet_b0"))
    done = effspec_("check", "x.eff", "--peers", "--variant", "same")
    assert done.status == 1 and "timm has no model `tf_eficientnet_b0`" in done.err, done.err
    assert "did you mean `tf_efficientnet_b0`?" in done.err
    Path("x.eff").write_text("\n".join([head, *lines]).replace("timm/tf_", "time/tf_"))
    done = effspec_("check", "x.eff")
    assert done.status == 1 and "E0902" in done.err and "timm/MODEL or torchvision/MODEL" in done.err


def test_every_output_is_compared(effspec_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from effspec.runtime import peers

    assert tuple(peers._LIBRARIES) == LIBRARIES

    class TwoOutputs(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 5, 1)

        def forward(self, x: Any) -> Any:
            x = self.first(x)
            return x, [self.second(x).relu()]

    monkeypatch.setitem(peers._LIBRARIES, "effdet", lambda: (["two"], lambda name: TwoOutputs()))
    text = """effspec 1
model Two() on image: [3, 8, 8] {
    a: conv(4)
    output a
    output b = it |> b: conv(5) |> relu()
}
variant v = Two()
expect v: equals("effdet/two")
"""
    Path("two.eff").write_text(text)
    done = effspec_("check", "two.eff", "--peers")
    assert (done.status, done.err.strip()) == (0, "two.eff: 1 point compiles, 1 check holds")
    Path("two.eff").write_text(text.replace(" |> relu()", ""))
    done = effspec_("check", "two.eff", "--peers")
    assert "this is not effdet/two: with the same weights, outputs differ by" in done.err
    Path("two.eff").write_text(text.replace("    output a\n", ""))
    done = effspec_("check", "two.eff", "--peers")
    assert "outputs of shape (1, 5, 8, 8), not (1, 4, 8, 8) and (1, 5, 8, 8)" in done.err


def test_peers_that_are_not_installed(effspec_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    done = effspec_("check", "efficientnet_lite", "--variant", "lite0", "--peers")
    assert done.status == 0 and done.err.strip() == (
        "efficientnet_lite: 1 point compiles, 2 checks hold, "
        "1 comparison with a peer not run (their packages are not installed)"
    )


@pytest.mark.parametrize(
    ("spec", "variant"),
    [
        ("b0", "b0"),
        ("b0", "tv_b0"),
        ("efficientnet_lite", "tf_lite0"),
        ("efficientnet_v2", "tf_v2_b0"),
        ("hrnet", "w18_small"),
        ("efficientdet", "d0"),
        ("efficientdet", "lite0"),
    ],
)
def test_shipped_specs_equal_their_peers(effspec_: Any, spec: str, variant: str) -> None:
    """The `equals` lines of every shipped spec; the campaign of test_parity.py judges every variant."""
    from effspec.resolve import load

    if spec == "efficientdet":
        pytest.importorskip("effdet")
    module = load(spec)
    checks = [check for expect in module.expects if expect.variant.id == variant for check in expect.checks]
    assert any(check.span.text.startswith("equals(") for check in checks)
    done = effspec_("check", spec, "--variant", variant, "--peers")
    counted = f"{len(checks)} check{'s' * (len(checks) != 1)} hold{'s' * (len(checks) == 1)}"
    assert done.status == 0 and done.err.strip() == f"{spec}: 1 point compiles, {counted}", done.err


def test_check_one_variant(effspec_: Any) -> None:
    assert effspec_("check", "b0", "--variant", "b1", "--variant", "b2").err.startswith(
        "b0: 2 points compile, 4 checks hold"
    )
    done = effspec_("check", "b0", "--variant", "B1")
    assert done.status == 1 and "did you mean `b1`?" in done.err


def test_check_several(effspec_: Any) -> None:
    done = effspec_("check", "efficientnet_lite", "nowhere.eff")
    assert done.status == 1
    assert "efficientnet_lite: 10 points compile" in done.err and "nowhere.eff: 1 error" in done.err


def test_schemas_are_published_and_true(effspec_: Any) -> None:
    names = effspec_("schema").out.split()
    assert set(names) >= {
        "compile",
        "show",
        "check",
        "diagnostics",
        "list",
        "targets",
        "explain",
        "weights-convert",
        "weights-show",
        "weights-diff",
    }
    for name in names:
        schema = json.loads(effspec_("schema", name).out)
        assert schema["properties"]["schema"]["const"] == f"effspec.{name}/1"


def test_help_and_targets_fit(effspec_: Any) -> None:
    for words in (("--help",), ("targets",)):
        lines = effspec_(*words).out.splitlines()
        assert all(len(line) <= 80 and "..." not in line for line in lines[1:]), lines
    assert "dynamic_size = false: " in effspec_("targets").out


def test_shapes_that_do_not_fit(effspec_: Any) -> None:
    """Both values in conflict, and where in this file each comes from, though operators of other files made them."""
    lines = [
        'effspec 1; import ConvNormAct, ConvNorm from "std/conv.eff"',
        "block Odd(out) {",
        "    expand: ConvNormAct(out * 2)",
        "    project: ConvNorm(out)",
        "    it + input",
        "}",
        "model Net() on image: [3, 8, 8] {",
        "    default norm = batch_norm(), act = relu",
        "    stage: Odd() -> 24",
        "}",
        "variant base = Net()",
    ]
    Path("net.eff").write_text("\n".join(lines))
    done = effspec_("check", "net.eff")
    assert done.status == 1
    assert (
        done.err
        == """\
error[E0410]: add needs equal sizes (or 1) on each axis, found (24, 8, 8) and (3, 8, 8)
 --> net.eff:5:5
  |
5 |     it + input
  |     ^^^^^^^^^^
4 |     project: ConvNorm(out)
  |     ---------------------- left: (24, 8, 8) from `project` here
  = right: (3, 8, 8) is the input of the block
  = in variant base > stage
  = help: axis 0 is 24 on one side and 3 on the other; guard a shortcut: `if it.shape == input.shape`

net.eff: 1 error
"""
    )
    Path("net.eff").write_text("\n".join(lines).replace("it + input", "it + input if it.shape == input.shape"))
    done = effspec_("check", "net.eff")
    assert done.err == "net.eff: 1 point compiles, no `expect` line checks it\n"


def test_explain(effspec_: Any) -> None:
    for word in ("E0612", "e0612", "612"):
        done = effspec_("explain", word)
        assert done.status == 0 and done.out.startswith("E0612: ") and "--variant b2 --phi 3" in done.out
        assert all(len(line) <= 80 for line in done.out.splitlines())
    assert effspec_("explain", "E9999").status == 2
    assert json.loads(effspec_("explain", "E0612", "--json").out)["code"] == "E0612"


def test_fmt(effspec_: Any) -> None:
    Path("b0.eff").write_text(B0_TEXT.replace("k = 3, s = 2)", "k=3,s = 2)"))
    done = effspec_("fmt", "--check", "b0.eff")
    assert done.status == 1 and "would reformat b0.eff" in done.err
    done = effspec_("fmt", "--diff", "b0.eff")
    assert done.status == 1 and "+    stem:   ConvNormAct(k = 3, s = 2)" in done.out
    before = effspec.compile("b0.eff").hashes
    assert effspec_("fmt", "b0.eff").status == 0 and "k = 3, s = 2)" in Path("b0.eff").read_text()
    assert effspec.compile("b0.eff").hashes == before
    done = effspec_("fmt", "--check", "b0.eff")
    assert done.status == 0 and done.err == ""
    assert effspec_("new", "net").status == 0
    assert effspec_("fmt", "--check", "net.eff").status == 0, "the starter is in canonical form"


def test_weights_travel(effspec_: Any) -> None:
    import torch
    from safetensors.numpy import load_file

    words = ("b0", "--phi", "-2")
    assert effspec_("weights", "init", *words, "--seed", "7", "-o", "a.safetensors").status == 0
    found = load_file("a.safetensors")
    net = effspec.compile("b0", phi=-2)
    state = net.to_torch(seed=7).state_dict()
    for name, value in found.items():
        assert (state[name].numpy() == value).all()
    assert set(found) == {name for name in state if not name.endswith("num_batches_tracked")}
    # The same weights in every target, from the seed and from the file.
    one = effspec_("compile", *words, "--target", "onnx", "--seed", "7", "-o", "one.onnx")
    two = effspec_("compile", *words, "--target", "onnx", "--weights", "a.safetensors", "-o", "two.onnx")
    assert (one.status, two.status) == (0, 0), two.err
    assert Path("one.onnx").read_bytes() == Path("two.onnx").read_bytes()
    done = effspec_("compile", *words, "--weights", "a.safetensors", "-o", "a.py")
    assert done.status == 0 and done.err.splitlines()[-1] == (
        "  a.safetensors fits it: model.load_state_dict(safetensors.torch.load_file('a.safetensors'))"
    )
    # What is advised for a checkpoint of PyTorch does what it says.
    torch.save(state, "a.pth")
    torch.save({"epoch": 3, "state_dict": state}, "b.pth")
    done = effspec_("compile", *words, "--weights", "a.pth", "-o", "a.py")
    advice = done.err.splitlines()[-1].partition("fits it: model.load_state_dict(")[2].removesuffix(")")
    assert advice == "torch.load('a.pth', weights_only=True)"
    net.to_torch(seed=8).load_state_dict(eval(advice))
    done = effspec_("compile", *words, "--weights", "b.pth", "-o", "a.py")
    assert done.err.splitlines()[-1] == "  b.pth fits it: `effspec weights convert` makes a file that torch loads"
    done = effspec_("compile", "b0", "--weights", "a.safetensors", "-o", "b.py")
    assert done.status == 1 and "E0804" in done.err and not Path("b.py").exists()
    done = effspec_("compile", *words, "--weights", "a.safetensors", "-o", "a.safetensors", "--force")
    assert done.status == 1 and "E0714" in done.err


def test_checkpoints_are_converted(effspec_: Any) -> None:
    import timm
    import torch

    torch.save(timm.create_model("efficientnet_lite0").state_dict(), "timm.pth")
    words = ("weights", "convert", "timm.pth", "--spec", "efficientnet_lite", "--variant")
    done = effspec_(*words, "lite0", "-o", "lite0.safetensors")
    assert done.status == 0
    assert done.err.splitlines()[0] == (
        "matched 247 of 247 tensors by structure and shape; 49 counters (num_batches_tracked) ignored"
    )
    assert effspec_(*words, "lite0", "-o", "lite0.safetensors").status == 0, "what effspec wrote may be written again"
    assert effspec_(*words, "lite1", "-o", "x.safetensors").status == 1
    Path("timm.pth").rename("timm")  # a checkpoint is known by its content
    done = effspec_("weights", "convert", "timm", *words[3:], "lite0", "-o", "timm", "--force")
    assert done.status == 1 and "E0714" in done.err


def test_a_part_of_a_checkpoint_is_converted(effspec_: Any) -> None:
    """What timm's training script saves, and two models side by side in one file."""
    import torch
    from safetensors.numpy import load_file
    from safetensors.torch import save_file

    net = effspec.compile("b0", phi=-2)
    weights, average = (
        {name: value.clone() for name, value in net.to_torch(seed=seed).state_dict().items()} for seed in (1, 2)
    )
    saved = {"epoch": 7, "arch": "tiny", "state_dict": weights, "state_dict_ema": average, "metric": 81.5}
    torch.save(saved, "last.pth")
    words = ("weights", "convert", "last.pth", "--spec", "b0", "--phi", "-2", "-o", "x.safetensors")
    done = effspec_(*words)
    count, numbers = len(weights), sum(not name.endswith("num_batches_tracked") for name in weights)
    assert done.status == 1 and done.err == (
        "error[E0801]: last.pth holds 2 sets of weights\n"
        f"  = `state_dict`: {count} tensors\n"
        f"  = `state_dict_ema`: {count} tensors\n"
        "  = help: choose one with `--part state_dict_ema` of `effspec weights convert`, `show` or `diff`; "
        "a moving average is what is usually evaluated\n"
    )
    for part, expected in (("state_dict", weights), ("state_dict_ema", average)):
        assert effspec_(*words, "--part", part).status == 0
        found = load_file("x.safetensors")
        assert all((expected[name].numpy() == value).all() for name, value in found.items())
    both = {f"{who}.{name}": value for who, one in (("net", weights), ("ema", average)) for name, value in one.items()}
    save_file(both, "both.safetensors")
    words = ("weights", "convert", "both.safetensors", *words[3:])
    done = effspec_(*words)
    assert done.status == 1 and done.err.splitlines()[-1] == (
        f"  = help: it holds `ema` ({numbers} tensors) and `net` ({numbers} tensors): choose one with `--part ema`"
    ), done.err
    assert effspec_(*words, "--part", "ema").status == 0
    found = load_file("x.safetensors")
    assert all((average[name].numpy() == value).all() for name, value in found.items())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(effspec_: Any, shell: str) -> None:
    done = effspec_("completion", shell)
    assert done.status == 0 and "_EFFSPEC_COMPLETE" in done.out


def test_completion_answers(here: Path) -> None:
    def answers(*words: str) -> set[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_EFFSPEC_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["effspec", *words]),
            "COMP_CWORD": str(len(words)),
        }
        script = "import sys; from effspec.cli import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
        )
        return {line.split(",", 1)[1] for line in done.stdout.splitlines() if line}

    assert "compile" in answers("comp")
    assert "efficientnet_lite" in answers("compile", "eff")
    assert answers("compile", "b0", "--variant", "tf_b7") == {"tf_b7"}
    assert answers("compile", "b0", "--target", "o") == {"onnx"}
    Path("my.eff").write_text(
        "effspec 1\nmodel Mine(classes = 2, width = 8) on image: [3, 8, 8] { conv(width + classes) }\n"
        "variant good = Mine()\nvariant great = Mine(width = 9)\n"
    )
    for spec in ("my.eff", "./my.eff"):
        assert answers("compile", spec, "--variant", "") == {"good", "great"}
    assert answers("show", "my.eff", "--variant", "gr") == answers("check", "my.eff", "--variant", "gr") == {"great"}
    assert answers("show", "gone.eff", "--variant", "") == set()
    assert answers("weights", "convert", "x.pth", "--spec", "my.eff", "--variant", "go") == {"good"}
    assert answers("compile", "my.eff", "--set", "") == {"classes=", "width="}
    assert answers("compile", "my.eff", "--model", "") == {"Mine"}
    assert answers("compile", "my.eff", "--scaling", "Co") == {"Compound", "Co"}
    assert answers("compile", "my.eff", "--scaling", "LinearDepth", "--set", "") == {"classes=", "width=", "n="}
    assert answers("compile", "my.eff", "--fold", "l") == {"linear"}
    assert answers("compile", "my.eff", "--target", "torch", "--fold", "l") == set()
    assert answers("compile", "my.eff", "--dtype", "") == {"float32", "float64"}
    assert answers("compile", "my.eff", "--target", "onnx", "--option", "d") == {
        "dynamic_size=false", "dynamic_size=true", "dtype=float32", "dtype=float64",
    }  # fmt: skip
    assert answers("explain", "e060") == {"E0601", "E0602", "E0603", "E0604", "E0605", "E0606"}
    assert answers("schema", "c") == {"compile", "cost", "check"}


def test_help_fits(effspec_: Any) -> None:
    assert effspec_("--version").out.strip() == f"effspec {effspec.__version__}"
    for words in ((), ("compile",), ("check",), ("show",), ("weights", "convert"), ("weights", "diff")):
        done = effspec_(*words, "--help")
        assert done.status == 0 and all(len(line) <= 100 for line in done.out.splitlines())


# Other scaling rules --------------------------------------------------------------------------------------------------

HALF = ("--scaling", "Compound", "--set", "alpha=1.2", "--set", "beta=1.1", "--set", "gamma=1.15", "--phi", "-2")


def test_a_model_under_another_rule(effspec_: Any) -> None:
    done = effspec_("compile", "mobilenet_v1", *HALF)
    assert done.status == 0
    assert done.err.startswith("MobileNetV1 with Compound  phi -2, alpha 1.2, beta 1.1, gamma 1.15: depth x0.69444, ")
    [name] = listed()
    assert name.startswith("mobilenetv1_compound_")
    assert "\nScaled by Compound, in place of the model's own rule.\n" in Path(name).read_text()
    coefficients = {"alpha": 1.2, "beta": 1.1, "gamma": 1.15}
    net = effspec.compile("mobilenet_v1", phi=-2, set=coefficients, scaling="Compound")
    assert net.rules == ("Compound",) and net.scaling == "Compound"
    own = effspec.compile("mobilenet_v1")
    assert own.rules == ("Multiplier",) and own.scaling == ""
    assert net.hash != own.hash and net.input_shape == (3, 168, 168)
    together = effspec.compile("mobilenet_v1", phi=-2, scaling="Compound(alpha = 1.2, beta = 1.1, gamma = 1.15)")
    assert together.hash == net.hash
    assert together.title == "MobileNetV1 with Compound(alpha = 1.2, beta = 1.1, gamma = 1.15), phi = -2"


def test_a_rule_of_a_file(effspec_: Any) -> None:
    Path("rules.eff").write_text(
        "effspec 1\nscaling Deep(n = 1) { repeats(d) = d * n }\nscaling Wide(w = 1) { channels(c) = c * w }\n"
    )
    Path("one.eff").write_text("effspec 1\nscaling Deeper(n = 1) { repeats(d) = d * n }\n")
    Path("net.eff").write_text("effspec 1\nmodel Net() on image: [3, 8, 8] { conv(k = 3) -> 8 x 2 }\n")
    for rule in ("one.eff", "one.eff:Deeper(n = 1)", "rules.eff:Deep"):
        done = effspec_("show", "net.eff", "--scaling", rule, "--set", "n=3", "--json")
        assert done.status == 0, done.err
        point = json.loads(done.out)["point"]
        assert (point["depth"], point["settings"]) == (6, {"n": 3})
        assert point["scaling"] == [rule.partition(":")[2].partition("(")[0] or "Deeper"]
    both = effspec_(
        "show", "net.eff", "--scaling", "rules.eff:Deep(n = 2)", "--scaling", "rules.eff:Wide", "--set", "w=2"
    )
    assert both.out.startswith("Net with Deep(n = 2), Wide w = 2")
    net = effspec.compile("net.eff", scaling=["rules.eff:Deep(n = 2)", "rules.eff:Wide(w = 2)"])
    assert net.cost.depth == 4 and net.params == (3 * 16 * 9 + 16) + 3 * (16 * 16 * 9 + 16)
    assert effspec_("show", "net.eff", "--scaling", "rules.eff").err == (
        "error[E0601]: rules.eff has 2 scaling rules: Deep, Wide\n"
        " --> command line:1:32\n"
        "  |\n"
        "1 | effspec show net.eff --scaling rules.eff\n"
        "  |                                ^^^^^^^^^\n"
        "  = help: choose one: rules.eff:Deep\n"
    )


def test_what_an_onnx_file_says_of_its_rule(effspec_: Any) -> None:
    import onnx

    words = ("--target", "onnx", "-o", "net.onnx", "--set", "width=0.25", "--set", "size=32")
    assert effspec_("compile", "mobilenet_v2", "--scaling", "NearestMultiplier(depth = 0.5)", *words).status == 0
    facts = {entry.key: entry.value for entry in onnx.load("net.onnx").metadata_props}
    assert facts["effspec.scaling"] == "NearestMultiplier(depth = 0.5)"
    assert facts["effspec.scale"] == "width = 0.25, size = 32"


# Python ---------------------------------------------------------------------------------------------------------------


def test_python_api() -> None:
    net = effspec.compile("b0", variant="b2", set={"classes": 10})
    assert net.params == 9_109_994 - 1409 * 990
    assert net.input_shape == (3, 260, 260)
    assert len(net.hash) == 64 and net.hashes["function"] == net.hash
    assert net.graph.nx.number_of_nodes() == len(net.graph)
    assert isinstance(net.emit("torch"), str) and isinstance(net.emit("onnx"), bytes)


def test_python_numbers_are_their_shortest_decimals() -> None:
    import numpy

    for value in (0.1, Fraction(1, 10), numpy.float64(0.1)):
        [setting] = request.from_call("f", variant=None, phi=None, settings={"x": value}, model=None).settings
        assert setting.value == Fraction(1, 10)
    settings = {"a": numpy.int64(3), "b": [1, (2, 0.5)], "c": 2.0, "d": True, "e": "same"}
    made = request.from_call("f", variant=None, phi=None, settings=settings, model=None).settings
    assert [setting.value for setting in made] == [3, (1, (2, Fraction(1, 2))), 2, True, "same"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {"a": 1}, b"x", None])
def test_python_values_without_a_counterpart(value: Any) -> None:
    with pytest.raises(effspec.EffspecError) as caught:
        effspec.compile("b0", set={"classes": value})
    assert caught.value.diagnostics[0].code == "E0606"


def test_the_exception_prints_its_diagnostics() -> None:
    with pytest.raises(effspec.EffspecError) as caught:
        effspec.compile("b0", variant="b2", phi=3)
    text = str(caught.value)
    assert text.startswith("error[E0612]") and "effspec.compile('b0', variant='b2', phi=3)" in text
    assert {problem.code for problem in caught.value.diagnostics} == {"E0612"}


def test_python_and_the_command_line_agree(effspec_: Any) -> None:
    assert effspec_("compile", "b0", "--phi", "0.5", "--set", "classes=7", "-o", "a.py").status == 0
    assert effspec.compile("b0", phi=0.5, set={"classes": 7}).emit("torch") == Path("a.py").read_text()


def test_write_from_python() -> None:
    net = effspec.compile("b0", phi=-2)
    assert net.write("torch") == "efficientnet_phi_minus_2.py"
    Path("mine.onnx").write_text("mine")
    with pytest.raises(effspec.EffspecError, match="E0711"):
        net.write("onnx", "mine.onnx")
    assert Path(net.write("onnx", "mine.onnx", force=True)).stat().st_size > 10**6


def test_live_module() -> None:
    import copy
    import pickle
    import traceback

    import torch

    net = effspec.compile("b0", phi=-2, set={"size": 32})
    model, again = net.to_torch(), net.to_torch()
    other = net.to_torch(seed=1)
    assert sum(p.numel() for p in model.parameters()) == net.params
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    assert not torch.equal(other.state_dict()["stem.conv.weight"], state["stem.conv.weight"])
    x = torch.rand(2, 3, 32, 32)
    expected = model.eval()(x)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(x), expected)
    try:
        model(x[:, :1])
    except RuntimeError:
        assert "self.stem(x)" in traceback.format_exc(), "tracebacks show the emitted source"
