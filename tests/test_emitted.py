"""Emitted PyTorch files in real PyTorch: the text, what it computes, its arguments, how it starts."""

from __future__ import annotations

import ast
import copy
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from effspec.backends.torch.proof.replay import replay

from effspec.ir.graph import leaves
from effspec.params import Distribution, distribution
from effspec.pipeline import Compiled
from effspec.resolve import load
from tests.emitted import (
    CASES,
    EVERY,
    ROOT,
    TOLERANCE,
    Case,
    Held,
    arrays,
    awake,
    built,
    drop_rates,
    frozen,
    inputs,
    lively,
    module_of,
    published,
    small,
    tensors,
    text_of,
)
from tests.graphs import images, torch_outputs
from tests.test_onnx import distance, ort, reference

# The text ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case, published and small, as a file."""
    place = tmp_path_factory.mktemp("emitted")
    for case in CASES:
        for compiled in (published(case), small(case)):
            (place / f"{name_of(case, compiled)}.py").write_text(text_of(compiled))
    return place


def name_of(case: Case, compiled: Compiled) -> str:
    return f"{'full' if compiled is published(case) else 'small'}_{case}".replace("-", "_")


def test_every_spec_has_a_case() -> None:
    specs = [*ROOT.glob("specs/*.eff"), *ROOT.glob("tests/examples/*.eff")]
    assert {case.spec for case in CASES} == {str(path.relative_to(ROOT).with_suffix("")) for path in specs}


def tool(*command: str, cwd: Path) -> str:
    """What a tool of this Python has to say: nothing where all is well."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"{done.stdout}\n{done.stderr}"


def ruff(folder: Path) -> str:
    options = ("--isolated", "--no-cache", "--line-length", "120")
    formatted = tool("ruff", "format", "--diff", *options, ".", cwd=folder)
    return formatted + tool("ruff", "check", "--extend-select", "I", *options, ".", cwd=folder)


def mypy(folder: Path, config: pytest.Config) -> list[str]:
    assert config.cache is not None
    place = config.cache.mkdir("emitted_mypy")
    files = sorted(path.name for path in folder.glob("*.py"))
    said = tool("mypy", "--config-file=", "--no-error-summary", f"--cache-dir={place}", *files, cwd=folder)
    return said.splitlines()


def test_ruff_leaves_the_files_as_they_are(folder: Path) -> None:
    assert ruff(folder) == ""


def test_mypy_passes(folder: Path, pytestconfig: pytest.Config) -> None:
    assert mypy(folder, pytestconfig) == []


@pytest.mark.campaign
def test_every_variant_is_formatted_and_typed(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    for spec in sorted({case.spec for case in CASES}):
        for variant in load(f"{ROOT / spec}.eff").variants:
            case = Case(spec, variant)
            (tmp_path / f"{name_of(case, published(case))}.py").write_text(text_of(published(case)))
    assert ruff(tmp_path) == ""
    assert mypy(tmp_path, pytestconfig) == []


ALONE = """
import importlib, json, pathlib, sys
sys.modules["effspec"] = None
sys.path.insert(0, ".")
import torch
found = {}
for path in sorted(pathlib.Path().glob("full_*.py")):
    name = path.stem
    try:
        module = importlib.import_module(name)
        models = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == name]
        with torch.device("meta"):
            model = models[-1]()
        found[name] = [[key, list(value.shape), value.is_meta] for key, value in model.state_dict().items()]
    except Exception as error:
        found[name] = repr(error)
print(json.dumps(found))
"""


def test_files_alone_have_the_state_of_their_graphs(folder: Path) -> None:
    """On the meta device, by an interpreter that has no effspec."""
    command = [sys.executable, "-c", ALONE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    states = json.loads(done.stdout)
    for case in CASES:
        state = states[name_of(case, published(case))]
        assert isinstance(state, list), (case, state)
        assert all(meta for *_, meta in state)
        parameters = published(case).graph.parameters(training=True, buffers=True)
        expected = {p.path: list(p.shape) for p in parameters}
        means = [path for path in expected if path.endswith("running_mean")]
        expected |= {path.replace("running_mean", "num_batches_tracked"): [] for path in means}
        assert {key: shape for key, shape, _ in state} == expected, case


@EVERY
def test_only_torch_is_imported(case: Case) -> None:
    roots = set()
    for node in ast.walk(ast.parse(text_of(published(case)))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or ".").split(".")[0])
    assert "torch" in roots and roots <= {"torch", "collections", "functools"}


# The numbers ---------------------------------------------------------------------------------------------------------

# In ONNX's reference evaluator.
SLOW = ("10_inception", "16_classic", "inception_v3")
# Trained with parallel branches that deployment merges.
FOLDED = ("specs/repvgg", "specs/mobileone")


@EVERY
def test_outputs(case: Case) -> None:
    """In float64: the graph interpreted by PyTorch, in both modes; and the ONNX target, by its evaluator."""
    compiled, weights = small(case), Held(lively(case))
    pictures = images(compiled.graph)
    model = copy.deepcopy(lively(case)).double()
    with torch.no_grad():
        found = arrays(model(*[x.double() for x in inputs(compiled)]))
        trained = arrays(frozen(model)(*[x.double() for x in inputs(compiled)]))
    every = torch_outputs(compiled.graph, weights.tensor, pictures)
    # One tensor of `every` for each leaf of each output, in the graph's order: training's may come first.
    kinds = [output.training for output in compiled.graph.outputs for _ in leaves(output.value)]
    expected = [array for array, training in zip(every, kinds, strict=True) if not training]
    extra = [array for array, training in zip(every, kinds, strict=True) if training]
    assert distance(found, expected) <= TOLERANCE
    assert distance(trained, expected + extra) <= TOLERANCE
    slow = Path(case.spec).name in SLOW
    data = compiled.emit("onnx", weights=weights, dtype="float32" if slow else "float64")
    assert isinstance(data, bytes)
    if slow:
        assert distance(found, ort(data, pictures)) <= 1e-3
    else:
        assert distance(found, reference(data, pictures)) <= TOLERANCE


@pytest.mark.parametrize("case", [case for case in CASES if case.spec in FOLDED], ids=str)
def test_the_deploy_form_computes_what_is_trained(case: Case) -> None:
    """ONNX with parallel branches merged, and no sum of them left, against the PyTorch file; in float64."""
    import onnx

    compiled, model = small(case), copy.deepcopy(lively(case)).double()
    data = compiled.emit("onnx", weights=Held(lively(case)), fold="linear", dtype="float64")
    assert isinstance(data, bytes)
    assert not {node.op_type for node in onnx.load_from_string(data).graph.node} & {"Add", "Sum", "BatchNormalization"}
    with torch.no_grad():
        found = arrays(model(*[x.double() for x in inputs(compiled)]))
    assert distance(found, reference(data, images(compiled.graph))) <= TOLERANCE


@EVERY
def test_the_outputs_tell_images_apart(case: Case) -> None:
    """So what is compared here and elsewhere is what a network makes of its input."""
    with torch.no_grad():
        outputs = tensors(lively(case)(*inputs(small(case))))
    assert all(float((y[0] - y[1]).abs().max()) > 0.02 * float(y.abs().max()) for y in outputs)


def test_the_cases_have_training_outputs() -> None:
    assert [str(c) for c in CASES if any(o.training for o in small(c).graph.outputs)] == [
        "examples-10_inception-v3",
        "examples-16_classic-googlenet",
        "specs-googlenet-googlenet",
        "specs-inception_v3-v3",
        "specs-deeplab-fcn_resnet50_aux",
    ]


@EVERY
def test_every_parameter_is_trained(case: Case) -> None:
    """DDP refuses parameters without a gradient; so a forward pass in training mode has to reach all of them."""
    model = frozen(built(small(case)))
    total = sum(tensor.square().mean() for tensor in tensors(model(*inputs(small(case)))))
    assert isinstance(total, torch.Tensor)
    total.backward()
    assert [path for path, p in model.named_parameters() if p.grad is None] == []


def test_seeded_weights() -> None:
    """`to_torch` without weights holds the seeded initial values, those of the ONNX target."""
    import onnx

    compiled = small(CASES[4])
    data = compiled.emit("onnx", seed=5, fold="none")
    assert isinstance(data, bytes)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_from_string(data).graph.initializer}
    state = compiled.to_torch(seed=5).state_dict()
    paths = [p.path for p in compiled.graph.parameters(buffers=True)]
    assert len(paths) > 200
    for path in paths:
        assert numpy.array_equal(state[path].numpy().reshape(-1), stored[path].reshape(-1)), path


# Constructor arguments -----------------------------------------------------------------------------------------------

VALUES: dict[str, tuple[Any, Any]] = {
    "classes": (12, 7),
    "in_channels": (1, 4),
    "anchors": (3, 5),
    "drop_rate": (0.0, 0.35),
    "aux_drop_rate": (0.0, 0.35),
    "drop_path_rate": (0.0, 0.35),
}


def arguments_of(compiled: Compiled) -> list[str]:
    return list(inspect.signature(getattr(module_of(text_of(compiled)), compiled.name)).parameters)


@EVERY
def test_constructor_arguments_are_settings(case: Case) -> None:
    """Two more values of each argument against the graph elaborated with them: one alone, one with all the others'."""
    compiled = small(case)
    names = arguments_of(compiled)
    rows = [{name: VALUES[name][0]} for name in names] + [{name: VALUES[name][1] for name in names}]
    for row in rows:
        replay(text_of(compiled), compiled.name, case.compiled(**{**case.small, **row}).graph, row)


@EVERY
def test_which_arguments_there_are(case: Case) -> None:
    """The model's parameters of these names are constructor arguments, all of them."""
    names = set(small(case).parameters) & set(VALUES)
    if not any(node.op == "drop_path" for node in small(case).graph):
        names -= {"drop_path_rate"}  # no block has a branch that could be dropped
    assert set(arguments_of(small(case))) == names


def test_changed_arguments_in_torch() -> None:
    case = CASES[0]
    ours = case.compiled(**case.small, classes=10, in_channels=1)
    model = built(small(case), classes=10, in_channels=1, drop_rate=0.5, drop_path_rate=0.1).eval()
    expected = awake(ours)
    model.load_state_dict(expected.state_dict())
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        assert model(x).shape == (2, 10)
        assert torch.equal(model(x), expected(x))
    assert model.dropout.p == 0.5
    assert max(drop_rates(model)) == pytest.approx(0.1 * 9 / 10)


# Initial values ------------------------------------------------------------------------------------------------------


def below(law: Distribution, x: torch.Tensor) -> torch.Tensor:
    """The law's distribution function."""
    if law.kind == "uniform":
        return ((x - law.low) / (law.high - law.low)).clamp(0, 1)
    assert law.kind == "normal"

    def normal(z: torch.Tensor) -> torch.Tensor:
        return (1 + torch.erf((z - law.mean) / law.std / 2**0.5)) / 2

    low, high = normal(torch.tensor(law.low)), normal(torch.tensor(law.high))
    return (normal(x.clamp(law.low, law.high)) - low) / (high - low)


@EVERY
def test_initial_values_have_the_laws_of_the_spec(case: Case) -> None:
    """Kolmogorov and Smirnov's test of every tensor: chance alone passes 3 / sqrt(n) once in thirty million times."""
    torch.manual_seed(0)
    state = built(small(case)).state_dict()
    for parameter in small(case).graph.parameters(training=True, buffers=True):
        values = state[parameter.path].flatten()
        law = distribution(parameter.init, parameter.shape)
        if law.kind == "constant":
            assert (values == float(numpy.float32(law.value))).all(), parameter.path
            continue
        assert len(values) > 1
        lowest, highest = (float(value) for value in values.aminmax())
        slack = 1e-6 * max(-lowest, highest)
        assert law.low - slack <= lowest and highest <= law.high + slack, parameter.path
        values = values[:: -(-len(values) // 50_000)].double().sort().values
        n = len(values)
        steps = torch.arange(n + 1, dtype=torch.float64) / n
        expected = below(law, values)
        furthest = torch.maximum((expected - steps[:-1]).abs(), (expected - steps[1:]).abs()).max()
        assert furthest < 3 / n**0.5, (parameter.path, law, float(values.std()))
