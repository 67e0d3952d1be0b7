"""Class names travel with weights, from a text file or a checkpoint's metadata to the ONNX model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import effspec
from effspec.cli import main

SPEC = ("net.eff", "--set", "classes=3")
NAMES = ["tench", "Tinca tinca, Schleie", "gröber; \"x\" = 'y'"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    body = "conv(4); global_avg_pool; flatten; fc: linear(classes)"
    Path("net.eff").write_text(f"effspec 1\nmodel Net(classes = 3) on image: [3, 8, 8] {{ {body} }}\n")
    Path("names.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    effspec.compile("net.eff").write("onnx", "plain.onnx")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Any:
    def command(*words: str) -> tuple[int, list[str]]:
        capfd.readouterr()
        status = main(words)
        return status, capfd.readouterr().err.splitlines()

    return command


def convert(run: Any, source: str, target: str, *words: str, spec: tuple[str, ...] = SPEC) -> tuple[int, list[str]]:
    found: tuple[int, list[str]] = run("weights", "convert", source, "--spec", *spec, *words, "-o", target)
    return found


@pytest.fixture
def named(run: Any) -> str:
    """A checkpoint that carries names."""
    assert run("weights", "init", *SPEC, "-o", "plain.safetensors")[0] == 0
    status, said = convert(run, "plain.safetensors", "named.safetensors", "--class-names", "names.txt")
    assert status == 0 and said[1] == "3 class names, from names.txt"
    return "named.safetensors"


def properties(path: str) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_from_a_file_to_every_artefact(run: Any, named: str) -> None:
    with safe_open(named, "numpy") as file:
        assert json.loads(file.metadata()["class_names"]) == NAMES
    # Through another move, and into ONNX under the same key.
    status, said = convert(run, named, "again.safetensors")
    assert status == 0 and said[1] == "3 class names, from named.safetensors"
    assert run("compile", *SPEC, "--weights", "again.safetensors", "--target", "onnx", "-o", "x.onnx")[0] == 0
    assert json.loads(properties("x.onnx")["class_names"]) == NAMES
    assert "class_names" not in properties("plain.onnx")
    # Emitted PyTorch holds no weights, so its text does not depend on them.
    assert run("compile", *SPEC, "--weights", named, "-o", "a.py")[0] == 0
    assert Path("a.py").read_text() == effspec.compile("net.eff", set={"classes": 3}).emit("torch")
    # What effspec wrote may be written again, however many names stand before its tensors.
    Path("names.txt").write_text("a\n" * 3, encoding="utf-8")
    assert convert(run, "plain.safetensors", named, "--class-names", "names.txt")[0] == 0


def test_shown(run: Any, named: str, capfd: pytest.CaptureFixture[str]) -> None:
    main(["weights", "show", named])
    assert '  class_names: "tench", "Tinca tinca, Schleie", "gröber; ' in capfd.readouterr().out


def test_of_another_code_base(run: Any) -> None:
    state = {"0.weight": np.ones((4, 3, 1, 1)), "0.bias": np.ones(4), "3.weight": np.ones((3, 4)), "3.bias": np.ones(3)}
    arrays = {name: value.astype(np.float32) for name, value in state.items()}
    save_file(arrays, "theirs.safetensors", {"class_names": json.dumps(NAMES), "format": "pt"})
    status, said = convert(run, "theirs.safetensors", "x.safetensors")
    assert status == 0 and said[1] == "3 class names, from theirs.safetensors"
    with safe_open("x.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["class_names"]) == NAMES and "format" not in file.metadata()
    save_file(arrays, "theirs.safetensors", {"class_names": "tench, goldfish"})
    status, said = convert(run, "theirs.safetensors", "x.safetensors")
    assert status == 1 and said == [
        "error[E0802]: theirs.safetensors is damaged: `class_names` of its metadata is not a JSON list of texts"
    ]


def test_a_new_head_has_other_names(run: Any, named: str) -> None:
    spec = ("net.eff", "--set", "classes=2")
    status, said = convert(run, named, "x.safetensors", "--new-head", spec=spec)
    assert status == 0 and "its 3 class names are left out" in said
    with safe_open("x.safetensors", "numpy") as file:
        assert "class_names" not in file.metadata()
    words = ("compile", *spec, "--weights", named, "--new-head", "--target", "onnx", "-o", "x.onnx")
    status, said = run(*words)
    assert status == 0 and "  its 3 class names are left out" in said and "class_names" not in properties("x.onnx")
    Path("two.txt").write_text("one\ntwo\n")
    status, said = convert(run, named, "x.safetensors", "--new-head", "--class-names", "two.txt", spec=spec)
    assert status == 0 and "2 class names, from two.txt" in said
    assert np.array_equal(load_file("x.safetensors")["conv.weight"], load_file(named)["conv.weight"])


def test_as_many_as_outputs(run: Any, named: str) -> None:
    Path("two.txt").write_text("one\ntwo\n")
    help = "  = help: `--class-names FILE` of `effspec weights convert` gives others, `--set classes=N` another head"
    status, said = convert(run, "plain.safetensors", "x.safetensors", "--class-names", "two.txt")
    assert status == 1 and said[-2:] == [
        "error[E0807]: two.txt has 2 class names, and output `output` of the model has 3 channels", help,
    ]  # fmt: skip
    assert not Path("x.safetensors").exists()
    Path("gap.txt").write_text("one\n\nthree\n")
    status, said = convert(run, "plain.safetensors", "x.safetensors", "--class-names", "gap.txt")
    assert status == 1 and said[-2:] == [
        "error[E0807]: line 2 of gap.txt is empty", "  = help: class names are one name a line",
    ]  # fmt: skip
    save_file(load_file(named), "wrong.safetensors", {"class_names": '["a"]'})
    status, said = run("compile", *SPEC, "--weights", "wrong.safetensors", "--target", "onnx", "-o", "x.onnx")
    assert status == 1 and said == [
        "error[E0807]: wrong.safetensors has 1 class names, and output `output` of the model has 3 channels", help,
    ]  # fmt: skip
