"""Hostile specs, requests, files and surroundings: refused at once, never a traceback or half a file."""

from __future__ import annotations

import getpass
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import effspec
from effspec import building, frames
from effspec.cli import main
from effspec.commands.check import requests
from effspec.diagnostics import EffspecError
from effspec.pipeline import Compiled
from effspec.request import from_words
from effspec.resolve import load

ROOT = Path(__file__).parent.parent
B0 = (ROOT / "specs" / "b0.eff").read_text(encoding="utf-8")
SECONDS = 10
"""Of the processor that a refusal may take: far less than what it refuses would; it takes one or two."""

HEAD = "effspec 1\n"
TAIL = "\nmodel M(n = 1) on image: [3, 8, 8] { conv(8) }\nvariant m = M()\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capfd: pytest.CaptureFixture[str], *words: str, code: str = "") -> str:
    """The diagnostics of a command that fails as it should."""
    capfd.readouterr()
    start = time.process_time()
    status = main(words)
    seconds = time.process_time() - start
    out, err = capfd.readouterr()
    assert status == 1, (words, status, err)
    assert err.startswith("error[E") and "Traceback" not in err and out == ""
    assert code in err.split("\n")[0], err
    assert seconds < SECONDS, f"{words} took {seconds:.1f} s"
    assert len(err) < 20_000
    return err


def run(*words: str, stdin: Any = None, **changed: Any) -> subprocess.CompletedProcess[bytes]:
    """effspec as a process, with at most 1.5 GiB of memory."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **changed.pop("environment", {})}
    limit = 3 << 29
    return subprocess.run(
        [sys.executable, *changed.pop("python", ()), "-m", "effspec", *words],
        env=environment,
        stdin=stdin,
        stdout=changed.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        **changed,
    )


# Reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    {
        "empty": b"",
        "comments alone": b"# nothing\n# more\n",
        "byte-order mark alone": b"\xef\xbb\xbf",
        "NUL": b"effspec 1\n\0",
        "UTF-16": "effspec 1\n".encode("utf-16"),
        "not UTF-8": b'effspec 1\nx = "\xff"\n',
        "lone surrogate": b'effspec 1\nx = "\xed\xa0\x80"\n',
        "bare CR": b"effspec 1\rx = 1\n",
        "line separator": "effspec 1\n# a\u2028b\n".encode(),
        "bidi control in a comment": "effspec 1\n# \u202e\n".encode(),
        "zero-width space": "effspec 1\nx\u200b = 1\n".encode(),
        "Cyrillic letter": "effspec 1\n\u0430 = 1\n".encode(),
        "ligature": "effspec 1\n\ufb01lter = 1\n".encode(),
        "other digits": "effspec 1\nx = \u0663\n".encode(),
        "unterminated string": b'effspec 1\nx = "' + b"a" * 10**6,
        "too large": b"effspec 1\n" + b"# padding\n" * 200_000,
        "one long line": b"effspec 1\nx = " + b"1 + " * 200_000 + b"1\n",
        "brackets": b"effspec 1\nx = " + b"(" * 100_000 + b"1" + b")" * 100_000,
        "minus signs": b"effspec 1\nx = " + b"-" * 100_000 + b"1\n",
        "nots": b"effspec 1\nx = " + b"not " * 50_000 + b"true\n",
        "long name": b"effspec 1\n" + b"a" * 70 + b" = 1\n",
    }.items(),
    ids=lambda case: case[0],
)
def test_texts_that_are_refused(data: tuple[str, bytes], capfd: pytest.CaptureFixture[str]) -> None:
    Path("x.eff").write_bytes(data[1])
    refused(capfd, "show", "x.eff")
    refused(capfd, "compile", "x.eff")


def test_line_ends_and_a_mark_mean_nothing() -> None:
    Path("a.eff").write_bytes(B0.encode())
    Path("b.eff").write_bytes(b"\xef\xbb\xbf" + B0.replace("\n", "\r\n").encode())
    a, b = (effspec.compile(name, phi=-2) for name in ("a.eff", "b.eff"))
    assert a.emit("ir") == b.emit("ir") and a.hashes == b.hashes


def test_places_that_are_no_files(capfd: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe.eff")
    Path("folder.eff").mkdir()
    Path("loop.eff").symlink_to("loop.eff")
    for name in ("pipe.eff", "folder.eff", "loop.eff", "nowhere.eff", "/dev/zero", "", "a\0b.eff", "x" * 5000 + ".eff"):
        refused(capfd, "show", name)
        refused(capfd, "compile", name)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.eff",
        "/etc/passwd",
        "~/secret.eff",
        "http://x/y.eff",
        "%2e%2e/secret.eff",
        "..\\secret.eff",
        "link.eff",
    ],
)
def test_imports_stay_beside_the_spec(path: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "secret.eff").write_text(HEAD + "secret_number = 42\n")
    (here / "inner").mkdir()
    (here / "inner" / "link.eff").symlink_to(here / "secret.eff")
    (here / "inner" / "x.eff").write_text(HEAD + f'import secret_number from "{path}"\n' + TAIL)
    err = refused(capfd, "show", "inner/x.eff")
    assert "42" not in err and "root:" not in err


# Evaluating -----------------------------------------------------------------------------------------------------------

DOUBLED = "\n".join(
    ["block A0() { conv(8) }", *(f"block A{n}() {{ a: A{n - 1}(); b: A{n - 1}() }}" for n in range(1, 41))]
)
LAYERS = "\n".join(
    ["block Twice(f) { a: f(); b: f() }", "f0 = conv(8)", *(f"f{n} = Twice(f{n - 1})" for n in range(1, 41))]
)


@pytest.mark.parametrize(
    "text",
    {
        "tower of powers": HEAD + "n = 9**9**9\nmodel M() on image: [3, n, n] { conv(8) }",
        "power of a power": HEAD + "model M(n = 2**(2**64)) on image: [3, n, n] { conv(8) }",
        "digits": HEAD + f"n = {'9' * 5000}\nmodel M() on image: [3, n, n] {{ conv(8) }}",
        "exponent": HEAD + "n = 1e400\nmodel M() on image: [3, n, n] { conv(8) }",
        "division": HEAD + "model M(n = 8 / 0) on image: [3, n, n] { conv(8) }",
        "blocks doubled": HEAD + DOUBLED + "\nmodel M() on image: [3, 8, 8] { A40() }",
        "layers doubled": HEAD + LAYERS + "\nmodel M() on image: [3, 8, 8] { f40() }",
        "repeats": HEAD + "model M() on image: [3, 8, 8] { a: conv(8) x 1_000_000_000 }",
        "loop": HEAD
        + "model M() on image: [3, 8, 8] { for i in 0 ..< 60_000 { a[i]: conv(8); relu(); relu(); relu(); relu() } }",
        "nested loops": HEAD
        + "model M() on image: [3, 8, 8] { for i in 0 ..< 9999 { for j in 0 ..< 9999 { clip(-1 - i, j) } } }",
        "nested lists": HEAD + "n = [[[0 for _ in 0..999] for _ in 0..999] for _ in 0..999]\n"
        "model M() on image: [len(n), 8, 8] { conv(8) }",
        "wide lists": HEAD + f"n = [len([{', '.join(['i + 1'] * 300)}]) for i in 0 ..< 60_000]\n"
        "model M() on image: [len(n), 8, 8] { conv(8) }",
        "sums of long lists": HEAD + "xs = 0 ..< 60_000\nn = [sum(xs) + i for i in 0 ..< 60_000]\n"
        "model M() on image: [len(n), 8, 8] { conv(8) }",
        "roots": HEAD + "n = [sqrt(i) for i in 0 ..< 60_000]\nmodel M() on image: [len(n), 8, 8] { conv(8) }",
        "range": HEAD + "n = len(0 .. 10**12)\nmodel M() on image: [n, 8, 8] { conv(8) }",
        "itself": HEAD + "block A() { A() }\nmodel M() on image: [3, 8, 8] { A() }",
        "each other": HEAD + "fn f(n) = g(n)\nfn g(n) = f(n)\nmodel M(n = f(1)) on image: [3, n, n] { conv(8) }",
        "layer of itself": HEAD + "block A(f) { f(f) }\nmodel M() on image: [3, 8, 8] { A(A) }",
        "huge size": HEAD + "model M() on image: [3, 2**40, 8] { conv(8) }",
        "huge channels": HEAD + "model M() on image: [3, 8, 8] { conv(2**33) }",
        "stride 0": HEAD + "model M() on image: [3, 8, 8] { conv(8, s = 0) }",
        "dilation 0": HEAD + "model M() on image: [3, 8, 8] { conv(8, k = 3, dil = 0) }",
        "kernel larger than the picture": HEAD + "model M() on image: [3, 8, 8] { conv(8, k = 33, pad = 0) }",
        "groups": HEAD + "model M() on image: [3, 8, 8] { conv(8, groups = 5) }",
        "no channels": HEAD + "model M() on image: [3, 8, 8] { conv(0) }",
        "fraction of a channel": HEAD + "model M() on image: [3, 8, 8] { conv(7 / 2) }",
    }.items(),
    ids=lambda case: case[0],
)
def test_meanings_that_are_refused(text: tuple[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    Path("x.eff").write_text(text[1])
    refused(capfd, "compile", "x.eff", "--target", "ir")


@pytest.mark.parametrize(
    "phi", ["1e6", "100", "-1e6", "1e-300", "nan", "inf", "2,5", "0x10", "9**9**9", "1/0", "'2'", ""]
)
def test_phis_that_are_refused(phi: str, capfd: pytest.CaptureFixture[str]) -> None:
    if phi == "1e-300":
        assert effspec.compile("b0", phi=1e-300).params == 5_288_548, "tiny, and exact"
        return
    refused(capfd, "compile", "b0", f"--phi={phi}", "--target", "ir")


def test_refusals_take_little_memory() -> None:
    Path("x.eff").write_text(HEAD + DOUBLED + "\nmodel M() on image: [3, 8, 8] { A40() }")
    for words in (("compile", "x.eff"), ("compile", "b0", "--phi", "100"), ("compile", "b0", "--set", "width=1e9")):
        limit = 1 << 29
        done = subprocess.run(
            [sys.executable, "-m", "effspec", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
        assert done.returncode == 1 and done.stderr.startswith("error[E"), (words, done.stderr)


# Long networks --------------------------------------------------------------------------------------------------------


def deep(layers: int) -> Any:
    """A network of bottlenecks, which are three layers each."""
    from tests.bench.lowering import DEEP

    Path("deep.eff").write_text(DEEP)
    return effspec.compile("deep.eff", set={"blocks": (layers - 2) // 3})


def test_work_grows_with_the_number_of_layers() -> None:
    """Not one step more for a block of a long network than for one of a short, and 20,000 layers are within bounds."""
    nets = [deep(layers) for layers in (20, 200, 1_001)]
    steps, operators = [net.elaborated.steps for net in nets], [len(net.graph) for net in nets]
    blocks = [net.elaborated.blocks for net in nets]
    for counts, most in ((steps, frames.MAX_STEPS), (operators, building.MAX_NODES)):
        each = (counts[1] - counts[0]) / (blocks[1] - blocks[0])
        assert (counts[2] - counts[1]) / (blocks[2] - blocks[1]) == each
        assert counts[0] + each * 20_000 / 3 < most


@pytest.mark.campaign
def test_twenty_thousand_layers() -> None:
    net = deep(20_000)
    assert net.cost.depth == 20_000 and net.macs > 0


# Mutated specs --------------------------------------------------------------------------------------------------------

WORDS = sorted(set("".join(c if c.isalnum() or c == "_" else " " for c in B0).split()))
SIGNS = list('()[]{}:;=,.|>-+*/%#"\n x01')


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = B0[: B0.index("# As trained")]
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        length = draw(st.sampled_from([0, 0, 1, 1, 2, 5, 20, 80]))
        new = draw(
            st.one_of(
                st.just(""),
                st.sampled_from(SIGNS),
                st.sampled_from(WORDS),
                st.sampled_from(["9999999999", "-1", "0", "1e9", "at.block", "it", "input", "default.act", "identity"]),
                st.just(text[start : start + length] * 2),
                st.text(max_size=3),
            )
        )
        text = text[:start] + new + text[start + length :]
    return text


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=mutated())
@example(text=B0[:200])
def test_mutated_specs_compile_or_are_refused(text: str) -> None:
    path = Path("mutated.eff")
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    start = time.process_time()
    try:
        module = load(str(path))
        for request in requests(module)[:1]:
            compiled = Compiled(module, request)
            assert compiled.params >= 0 and compiled.hash
    except EffspecError as error:
        assert str(error).startswith("error[E")
    assert time.process_time() - start < SECONDS


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.one_of(st.text(max_size=30), st.sampled_from(WORDS), st.from_regex(r"[0-9a-z()\[\]*+. /-]{1,12}")))
def test_any_setting_is_taken_or_refused(text: str) -> None:
    module = load("b0")
    try:
        words = ["effspec", "show", "b0", "--set", f"width={text}"]
        request = from_words(words, variant=None, phi=None, settings=[f"width={text}"], model=None)
        assert Compiled(module, request).params > 0
    except EffspecError as error:
        assert str(error).startswith("error[E")


def test_messages_cannot_steer_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert "\x1b" not in refused(capfd, "compile", "b0", "--set", "width=\x1b[31m")
    assert "\x1b" not in refused(capfd, "compile", "\x1b[31m.eff")
    assert "\x1b" not in refused(capfd, "compile", "b0", "--variant", "\x1b[31m")
    assert "\x1b" not in refused(capfd, "compile", "b0", "-o", "nowhere\x1b[31m/x.py")
    assert len(refused(capfd, "compile", "b0", "--set", "width=" + "x" * 100_000)) < 2_000


# Surroundings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["torch", "ir", "onnx"])
def test_the_same_bytes_everywhere(target: str, here: Path) -> None:
    """Hash seeds, locales, time zones, folders, users and optimisation change nothing."""
    (here / "elsewhere").mkdir()
    surroundings = [
        ({"PYTHONHASHSEED": "0"}, here, ()),
        ({"PYTHONHASHSEED": "1", "LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Tokyo"}, here / "elsewhere", ()),
        ({"PYTHONHASHSEED": "2", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "USER": "other"}, Path("/"), ("-O",)),
        ({"PYTHONHASHSEED": "3", "HOME": "/nonexistent", "PYTHONUTF8": "0", "COLUMNS": "20"}, here, ("-OO",)),
    ]
    outputs = set()
    for environment, cwd, python in surroundings:
        words = ("compile", "b0", "--phi", "-2", "--target", target, "-o", "-")
        done = run(*words, environment=environment, cwd=cwd, python=python)
        assert done.returncode == 0 and done.stderr == b"", done.stderr
        outputs.add(done.stdout)
    assert len(outputs) == 1


def test_outputs_tell_nothing_of_who_and_where(here: Path) -> None:
    (here / "private_folder").mkdir()
    spec = here / "private_folder" / "net.eff"
    spec.write_text(B0)
    for target in ("torch", "ir", "onnx"):
        content = effspec.compile(spec, phi=-2).emit(target)
        data = content if isinstance(content, bytes) else content.encode()
        for secret in ("private_folder", str(ROOT), platform.node(), f"/{getpass.getuser()}/"):
            assert len(secret) < 5 or secret.encode() not in data


def test_a_reader_that_leaves() -> None:
    for words in (("compile", "b0", "--target", "ir", "-o", "-"), ("show", "b0"), ("list",), ("schema", "show")):
        command = f"'{sys.executable}' -m effspec {' '.join(words)} | head -n 1"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == "" and done.stdout.count("\n") == 1


def test_closed_output() -> None:
    for redirect in (">&-", "2>&-", ">&- 2>&-", "> /dev/full"):
        command = f"'{sys.executable}' -m effspec show b0 {redirect}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr and done.returncode in (0, 1), (redirect, done)


def test_places_that_cannot_be_written(capfd: pytest.CaptureFixture[str]) -> None:
    refused(capfd, "compile", "b0", "--phi", "-2", "-o", "/proc/effspec.py", code="E0716")


def test_modules_beside_the_user_are_not_imported(here: Path) -> None:
    for name in ("lark", "click", "networkx", "jinja2", "torch", "json"):
        (here / f"{name}.py").write_text("raise SystemExit('imported')")
    (here / "bin").mkdir()
    script = here / "bin" / "effspec"
    script.write_text("import sys\nfrom effspec.cli import main\nsys.exit(main())\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script, "compile", "b0"], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


WATCH = """
import sys
forbidden = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.putenv")
forbidden += ("pickle.", "ctypes.")
import effspec.cli
sys.argv[1:] = {words}

def watch(event, arguments):
    if event.startswith(forbidden):
        print("FORBIDDEN", event, arguments, file=sys.stderr)
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        print("WRITES", arguments[0], file=sys.stderr)
    if event in ("exec", "compile") and getattr(arguments[0], "co_filename", "").endswith(".eff"):
        print("RUNS", arguments[0], file=sys.stderr)

sys.addaudithook(watch)
effspec.cli.main()
"""


@pytest.mark.parametrize("target", ["torch", "ir"])
def test_a_spec_reaches_nothing(target: str) -> None:
    """No network, no other program, no file written: as Python's own audit sees it."""
    words = ["compile", "b0", "--phi", "-2", "--target", target, "-o", "-"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    script = WATCH.format(words=words)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout


def test_killed_while_writing(here: Path) -> None:
    """The old file stays whole; what is left over has a recognisable name."""
    words = [sys.executable, "-m", "effspec", "compile", "b0", "--target", "onnx", "-o", "a.onnx", "--phi"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*words, "-2"], env=environment, check=True, capture_output=True)
    before = Path("a.onnx").read_bytes()
    running = subprocess.Popen([*words, "4"], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(here.glob(".a.onnx.*.effspec-tmp")) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    running.kill()
    running.wait()
    assert Path("a.onnx").read_bytes() == before
    assert {path.suffix for path in here.iterdir()} <= {".onnx", ".effspec-tmp"}
