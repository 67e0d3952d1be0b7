"""The wheel holds what the checkout holds, its data is readable, and nothing is imported under two names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*command, "--wheel-dir", folder, ROOT], check=True)
    [made] = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as it is installed, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(folder: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Python with the installed package in front of the checkout's."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def checkout() -> set[str]:
    """The files of the package, as git (or, in an unpacked archive, the folder) has them."""
    folders = ["effspec", "grammars", "specs", "backends"]
    if (ROOT / ".git").exists():
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
        names = [name for name in names if name and (ROOT / name).exists()]
    else:
        paths = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
        names = [path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts]
    return {name if name.startswith("effspec/") else f"effspec/{name}" for name in names}


def test_wheel_and_checkout_hold_the_same_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == checkout()


def test_site_packages_gains_one_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {re.sub(r"-.*", "", top) for top in tops} == {"effspec"}


def test_the_licence_travels(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
        assert "Apache License" in archive.read(name).decode()


def test_the_wheel_compiles(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "-m", "effspec", "compile", "b0", "--target", "torch", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "5,288,548 parameters" in done.stderr
    assert (tmp_path / "efficientnet.py").is_file()


def test_the_wheel_and_the_checkout_write_the_same_bytes(installed: Path, tmp_path: Path) -> None:
    outputs = []
    for folder in (installed, ROOT):
        done = run(folder, "-m", "effspec", "compile", "b0", "--phi", "0.5", "-o", "-", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]


def test_data_is_read_through_the_package(installed: Path, tmp_path: Path) -> None:
    script = (
        "import effspec; from importlib.resources import files\n"
        "print(effspec.__file__)\n"
        "for place, name in (('grammars', 'effspec.lark'), ('specs', 'b0.eff'), ('specs', 'std/conv.eff')):\n"
        "    assert files(f'effspec.{place}').joinpath(name).read_text()\n"
    )
    done = run(installed, "-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed))


@pytest.mark.parametrize("place", ["installed", "checkout"])
def test_nothing_is_imported_under_two_names(place: str, installed: Path, tmp_path: Path) -> None:
    script = (
        "import sys, effspec\n"
        "net = effspec.compile('b0', phi=-1)\n"
        "net.emit('torch'), net.emit('onnx'), net.emit('ir')\n"
        "files = {}\n"
        "for name, module in list(sys.modules.items()):\n"
        "    path = getattr(module, '__file__', None)\n"
        "    if path and name.split('.')[0] in ('effspec', 'backends', 'grammars', 'specs'):\n"
        "        assert name.startswith('effspec'), name\n"
        "        assert files.setdefault(path, name) == name, (path, name)\n"
        "print(len(files))\n"
    )
    done = run(installed if place == "installed" else ROOT, "-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30


def test_importing_effspec_costs_next_to_nothing(tmp_path: Path) -> None:
    script = "import sys; before = set(sys.modules); import effspec; print(*sorted(set(sys.modules) - before))"
    loaded = run(ROOT, "-c", script, cwd=tmp_path).stdout.split()
    heavy = {"click", "jinja2", "lark", "networkx", "numpy", "onnx", "pydantic", "torch"}
    assert not heavy & {name.split(".")[0] for name in loaded}


@pytest.mark.parametrize(
    ("words", "forbidden"),
    [
        (["--version"], {"jinja2", "lark", "networkx", "numpy", "onnx", "pydantic", "torch"}),
        (["compile", "b0", "--target", "torch", "-o", "-"], {"networkx", "numpy", "onnx", "pydantic", "torch"}),
        (["compile", "b0", "--target", "onnx", "-o", "-", "--phi", "-2"], {"jinja2", "pydantic", "torch"}),
    ],
)
def test_commands_import_only_what_they_need(words: list[str], forbidden: set[str], tmp_path: Path) -> None:
    script = f"import sys; from effspec.cli import main; main({words}); print(*sys.modules, file=sys.stderr)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, check=True
    )
    loaded = done.stderr.decode().split()
    assert not forbidden & {name.split(".")[0] for name in loaded}


def test_an_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [archive] = tmp_path.glob("*.tar.gz")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*command, "--wheel-dir", tmp_path, archive], check=True)
    [again] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert {n: first.read(n) for n in first.namelist() if "RECORD" not in n} == {
            n: second.read(n) for n in second.namelist() if "RECORD" not in n
        }


def test_dependencies_are_declared() -> None:
    import tomllib

    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    names = {re.split(r"[<>=\[]", line)[0] for line in project["dependencies"]}
    assert names == {"click", "jinja2", "lark", "networkx", "numpy", "onnx", "pydantic"}
