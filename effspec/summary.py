"""The JSON documents that `--json` prints: each has a name and a version, and a published JSON Schema.

A number counts elements, operations or bytes; a shape has no batch axis.  A field that changes its meaning raises the
document's version.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, prod
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from effspec import diagnostics as problems
from effspec.pipeline import Compiled, plain
from effspec.syntax import nodes

if TYPE_CHECKING:
    from effspec.backend import Backend
    from effspec.codes import Code
    from effspec.commands.check import Result
    from effspec.commands.verify import Result as Verification
    from effspec.commands.weights import Converted
    from effspec.modules import Module
    from effspec.runtime.runners import Runner
    from effspec.runtime.verify import Layer
    from effspec.weights.checkpoint import Checkpoint
    from effspec.weights.difference import Difference
    from effspec.weights.store import TensorFile


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)


class Place(_Part):
    """Characters of a source: 1-based line and column, and the words there."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int
    text: str = Field(description="what is said about the place")


class Problem(_Part):
    """One diagnostic."""

    code: str
    message: str
    primary: Place | None
    secondary: list[Place]
    notes: list[str]
    help: str | None
    trail: list[str] = Field(description="the chain of lines of an expansion, from the variant inwards")


class Point(_Part):
    """One compiled point of a model."""

    spec: str
    model: str
    variant: str | None
    scaling: list[str] = Field(description="the scaling rules, the model's own or those in their place")
    settings: dict[str, Any]
    with_preprocessing: bool = Field(description="whether the input is a picture with values from 0 to 255")
    preparation: dict[str, dict[str, Any]] = Field(description="how a picture becomes each input")
    parameters: dict[str, Any]
    inputs: dict[str, list[int]]
    params: int
    training_params: int
    macs: int
    activations: int
    peak_bytes: int
    depth: int
    blocks: int
    hashes: dict[str, str]


class NearestPoint(_Part):
    """The published variant nearest to the point, and the numbers that it has in the point's place."""

    variant: str
    point: dict[str, float]
    published: list[str]


class Stage(_Part):
    """A line of the model's body."""

    line: int
    label: str
    layer: str
    arguments: dict[str, Any]
    repeats: int | None
    outputs: list[list[int]]
    params: int
    macs: int
    activations: int
    peak_bytes: int


class CompileDocument(_Part):
    """`effspec compile --json`."""

    schema_: Literal["effspec.compile/1"] = Field(default="effspec.compile/1", serialization_alias="schema")
    target: str
    path: str
    paths: list[str] = Field(description="all files: a large model has a second one, of weights")
    point: Point
    nearest: NearestPoint | None
    new_head: list[str] = Field(description="tensors that are not those of the checkpoint, but initial values")


class ShowDocument(_Part):
    """`effspec show --json`."""

    schema_: Literal["effspec.show/1"] = Field(default="effspec.show/1", serialization_alias="schema")
    point: Point
    stages: list[Stage]


class CostPart(_Part):
    """Operators taken together; `receptive_field` is null where they see the whole input."""

    name: str
    outputs: list[list[int]]
    params: int
    buffers: int
    operations: int
    activations: int
    peak_bytes: int
    receptive_field: list[int] | None


class CostDocument(_Part):
    """`effspec cost --json`."""

    schema_: Literal["effspec.cost/1"] = Field(default="effspec.cost/1", serialization_alias="schema")
    point: Point
    operations: dict[str, int] = Field(description="of one image, by convention")
    buffers: int
    depth: int
    by: str
    convention: str = Field(description="of the operations of the parts")
    parts: list[CostPart]


class Checked(_Part):
    """What `check` found in one spec."""

    spec: str
    points: int
    checks: int = Field(description="`expect` lines' checks that hold")
    skipped: list[str] = Field(description="peers that were not compared")
    diagnostics: list[Problem]


class CheckDocument(_Part):
    """`effspec check --json`."""

    schema_: Literal["effspec.check/1"] = Field(default="effspec.check/1", serialization_alias="schema")
    specs: list[Checked]


class DiagnosticsDocument(_Part):
    """What a command with `--json` prints when it fails."""

    schema_: Literal["effspec.diagnostics/1"] = Field(default="effspec.diagnostics/1", serialization_alias="schema")
    diagnostics: list[Problem]


class Definition(_Part):
    """A block, function, scaling or model of a file."""

    kind: str
    name: str
    signature: str = Field(description="its name and parameters, as they are written")
    doc: str


class Listed(_Part):
    """The models, variants and definitions of a spec, and the peers' models that variants equal."""

    spec: str
    models: list[str]
    variants: list[str]
    equals: dict[str, list[str]]
    definitions: list[Definition]


class ListDocument(_Part):
    """`effspec list --json`."""

    schema_: Literal["effspec.list/1"] = Field(default="effspec.list/1", serialization_alias="schema")
    specs: list[Listed]


class OptionOfTarget(_Part):
    """A choice that a target offers."""

    default: bool | int | str
    doc: str
    choices: list[bool | int | str]


class Runtime(_Part):
    """What runs a target's files; `version` is null where it is not installed, and `install` what to give pip."""

    name: str
    dtype: str
    version: str | None
    install: str


class Target(_Part):
    """What a spec can be compiled to."""

    name: str
    doc: str
    suffix: str
    binary: bool
    options: dict[str, OptionOfTarget]
    runtimes: list[Runtime]


class TargetsDocument(_Part):
    """`effspec targets --json`."""

    schema_: Literal["effspec.targets/1"] = Field(default="effspec.targets/1", serialization_alias="schema")
    targets: list[Target]
    broken: dict[str, str] = Field(description="targets that cannot be loaded, and why")


class PartedLayer(_Part):
    """The first layer of a model whose value a target does not compute."""

    path: str
    operator: str
    place: Place | None
    model_line: int | None = Field(description="the line of the model's body that it belongs to")


class Verdict(_Part):
    """What one runtime made of the input; `difference` is null where it gave no outputs to compare."""

    target: str
    runtime: Runtime
    agrees: bool
    difference: float | None = Field(description="the largest of an output over its largest value")
    allowed: float
    output: str
    layer: PartedLayer | None
    trouble: str


class VerifyDocument(_Part):
    """`effspec verify --json`."""

    schema_: Literal["effspec.verify/1"] = Field(default="effspec.verify/1", serialization_alias="schema")
    point: Point
    weights: str | None = Field(description="a checkpoint; null for weights drawn from the seed")
    images: list[str]
    batch: int
    seed: int
    agrees: bool
    verdicts: list[Verdict]
    refused: dict[str, list[Problem]] = Field(description="targets that cannot express the model, and why")
    missing: list[Runtime]


class ExplainDocument(_Part):
    """`effspec explain --json`."""

    schema_: Literal["effspec.explain/1"] = Field(default="effspec.explain/1", serialization_alias="schema")
    code: str
    title: str
    why: str
    bad: str
    good: str


class TensorOfFile(_Part):
    """A tensor of a checkpoint."""

    name: str
    shape: list[int]
    dtype: str = Field(description="as safetensors calls it: F32, BF16, I64")
    elements: int
    bytes: int


class WeightsShowDocument(_Part):
    """`effspec weights show --json`."""

    schema_: Literal["effspec.weights-show/1"] = Field(default="effspec.weights-show/1", serialization_alias="schema")
    path: str
    format: str
    bytes: int = Field(description="of the file, all its parts together")
    metadata: dict[str, str]
    elements: int
    tensors: list[TensorOfFile]


class NewTensor(_Part):
    """A tensor of a new head, beside what the checkpoint has in its place; shapes as PyTorch has them."""

    path: str
    shape: list[int]
    source: str
    source_shape: list[int]


class WeightsConvertDocument(_Part):
    """`effspec weights convert --json`."""

    schema_: Literal["effspec.weights-convert/1"] = Field(
        default="effspec.weights-convert/1", serialization_alias="schema"
    )
    path: str
    tensors: dict[str, str] = Field(description="the checkpoint's name of each tensor of the model")
    outputs: Literal["first", "last"] = Field(description="where the checkpoint's kernels have their outputs")
    reshaped: list[str] = Field(description="tensors whose shapes differ in axes of length 1")
    counters: int = Field(description="how many counts of batches were left out")
    preparation: list[str] = Field(description="tensors of the checkpoint that prepare a picture, left out")
    initial: list[str] = Field(description="tensors of training outputs that the checkpoint lacks: initial values")
    new_head: list[NewTensor]
    class_names: int = Field(description="how many the file carries")


class TwoShapes(_Part):
    """A tensor of another shape in either file."""

    name: str
    shapes: tuple[list[int], list[int]]


class TwoDtypes(_Part):
    """A tensor of another element type in either file."""

    name: str
    dtypes: tuple[str, str]


class ChangedTensor(_Part):
    """A tensor whose numbers differ."""

    name: str
    shape: list[int]
    elements: int = Field(description="how many differ")
    absolute: float | None = Field(description="the largest difference of two elements; null: infinite, or of a NaN")
    relative: float | None = Field(description="that over the largest magnitude of the tensor in either file")


class WeightsDiffDocument(_Part):
    """`effspec weights diff --json`."""

    schema_: Literal["effspec.weights-diff/1"] = Field(default="effspec.weights-diff/1", serialization_alias="schema")
    paths: tuple[str, str]
    equal: bool
    only_first: list[str]
    only_second: list[str]
    shapes: list[TwoShapes]
    dtypes: list[TwoDtypes]
    changes: list[ChangedTensor] = Field(description="the largest relative difference first")
    equal_tensors: int


DOCUMENTS: dict[str, type[BaseModel]] = {
    "compile": CompileDocument,
    "show": ShowDocument,
    "cost": CostDocument,
    "check": CheckDocument,
    "diagnostics": DiagnosticsDocument,
    "verify": VerifyDocument,
    "list": ListDocument,
    "targets": TargetsDocument,
    "explain": ExplainDocument,
    "weights-convert": WeightsConvertDocument,
    "weights-show": WeightsShowDocument,
    "weights-diff": WeightsDiffDocument,
}


def compiled(made: Compiled, target: str, paths: list[str], checkpoint: Checkpoint | None = None) -> CompileDocument:
    from effspec.nearest import nearest

    near = nearest(made.module, made.name, made.request, made.elaborated.parameters)
    found = None
    if near is not None:
        point = {name: float(value) for name, value in near.point.items()}
        found = NearestPoint(variant=near.variant, point=point, published=list(near.published))
    new = [one.parameter.path for one in checkpoint.new] if checkpoint is not None else []
    return CompileDocument(target=target, path=paths[0], paths=paths, point=_point(made), nearest=found, new_head=new)


def shown(made: Compiled) -> ShowDocument:
    from effspec.stages import stages

    rows = [
        Stage(
            line=row.line,
            label=row.label,
            layer=row.layer,
            arguments={name: plain(value) for name, value in row.arguments.items()},
            repeats=row.repeats,
            outputs=[list(kind.shape) for kind in row.cost.types],
            params=row.cost.params,
            macs=row.cost.macs,
            activations=row.cost.acts,
            peak_bytes=row.cost.peak,
        )
        for row in stages(made.elaborated, made.cost)
    ]
    return ShowDocument(point=_point(made), stages=rows)


def costed(made: Compiled, by: str, convention: str) -> CostDocument:
    from effspec.conventions import CONVENTIONS, counted, parts

    rows = [
        CostPart(
            name=part.cost.name,
            outputs=[list(kind.shape) for kind in part.cost.types],
            params=part.cost.params,
            buffers=part.cost.buffers,
            operations=part.operations,
            activations=part.cost.acts,
            peak_bytes=part.cost.peak,
            receptive_field=list(part.field) if part.field is not None else None,
        )
        for part in parts(made.cost, by, convention)
    ]
    return CostDocument(
        point=_point(made),
        operations={name: counted(made.cost, name) for name in CONVENTIONS},
        buffers=made.cost.buffers,
        depth=made.cost.depth,
        by=by,
        convention=convention,
        parts=rows,
    )


def checked(results: Sequence[Result]) -> CheckDocument:
    return CheckDocument(
        specs=[
            Checked(
                spec=result.spec,
                points=result.points,
                checks=result.held,
                skipped=list(result.skipped),
                diagnostics=[_problem(diagnostic) for diagnostic in result.diagnostics],
            )
            for result in results
        ]
    )


def failed(diagnostics: Sequence[problems.Diagnostic]) -> DiagnosticsDocument:
    return DiagnosticsDocument(diagnostics=[_problem(diagnostic) for diagnostic in diagnostics])


def listed(modules: Sequence[Module]) -> ListDocument:
    from effspec.expectations import claims
    from effspec.listing import defined

    return ListDocument(
        specs=[
            Listed(
                spec=module.name,
                models=models_of(module),
                variants=list(module.variants),
                equals=claims(module.expects),
                definitions=[Definition(**vars(one)) for one in defined(module)],
            )
            for module in modules
        ]
    )


def models_of(module: Module) -> list[str]:
    """The models that a file itself defines."""
    return [name for name in module.definitions if (own := module.own(name)) and isinstance(own.node, nodes.Model)]


def verified(result: Verification) -> VerifyDocument:
    return VerifyDocument(
        point=_point(result.compiled),
        weights=result.weights,
        images=list(result.images),
        batch=result.batch,
        seed=result.seed,
        agrees=not result.diagnostics,
        verdicts=[
            Verdict(
                target=verdict.runner.target,
                runtime=_runtime(verdict.runner),
                agrees=verdict.agrees,
                difference=verdict.difference if isfinite(verdict.difference) else None,
                allowed=verdict.allowed,
                output=verdict.output,
                layer=_parted(verdict.layer) if verdict.layer else None,
                trouble=verdict.trouble,
            )
            for verdict in result.verdicts
        ],
        refused={
            target: [_problem(diagnostic) for diagnostic in error.diagnostics]
            for target, error in result.refused.items()
        },
        missing=[_runtime(runner) for runner in result.missing],
    )


def _parted(layer: Layer) -> PartedLayer:
    span = layer.node.span
    return PartedLayer(
        path=layer.node.path,
        operator=layer.node.op,
        place=_place(problems.Label(span)) if span else None,
        model_line=layer.lines[0].line if layer.lines else None,
    )


def _runtime(runner: Runner) -> Runtime:
    return Runtime(name=runner.name, dtype=runner.dtype, version=runner.version, install=runner.install)


def targets(backends: Sequence[Backend], runners: Sequence[Runner], broken: dict[str, str]) -> TargetsDocument:
    return TargetsDocument(
        broken=broken,
        targets=[
            Target(
                name=backend.name,
                doc=backend.doc,
                suffix=backend.suffix,
                binary=backend.binary,
                options={
                    name: OptionOfTarget(default=option.default, doc=option.doc, choices=list(option.choices))
                    for name, option in backend.options.items()
                },
                runtimes=[_runtime(runner) for runner in runners if runner.target == backend.name],
            )
            for backend in backends
        ],
    )


def explained(entry: Code) -> ExplainDocument:
    return ExplainDocument(code=entry.code, title=entry.title, why=entry.why, bad=entry.bad, good=entry.good)


def weights_shown(file: TensorFile) -> WeightsShowDocument:
    from effspec.weights.store import nbytes

    tensors = [
        TensorOfFile(
            name=name, shape=list(shape), dtype=file.dtypes[name], elements=prod(shape), bytes=nbytes(file, name)
        )
        for name, shape in file.shapes.items()
    ]
    return WeightsShowDocument(
        path=str(file.path),
        format=file.kind,
        bytes=file.path.stat().st_size,
        metadata=dict(file.metadata),
        elements=sum(tensor.elements for tensor in tensors),
        tensors=tensors,
    )


def weights_converted(path: str, done: Converted) -> WeightsConvertDocument:
    matching = done.matching
    return WeightsConvertDocument(
        path=path,
        tensors=dict(matching.names),
        outputs=matching.layout.value,
        reshaped=list(matching.reshaped),
        counters=matching.counters,
        preparation=list(matching.preparation),
        initial=[parameter.path for parameter in matching.absent],
        new_head=[
            NewTensor(
                path=one.parameter.path, shape=list(one.parameter.shape), source=one.name, source_shape=list(one.found)
            )
            for one in matching.new
        ],
        class_names=len(done.class_names),
    )


def weights_compared(first: TensorFile, second: TensorFile, found: Difference) -> WeightsDiffDocument:
    return WeightsDiffDocument(
        paths=(str(first.path), str(second.path)),
        equal=not found,
        only_first=list(found.only_first),
        only_second=list(found.only_second),
        shapes=[
            TwoShapes(name=name, shapes=(list(first.shapes[name]), list(second.shapes[name]))) for name in found.shapes
        ],
        dtypes=[TwoDtypes(name=name, dtypes=(first.dtypes[name], second.dtypes[name])) for name in found.dtypes],
        changes=[
            ChangedTensor(
                name=change.name,
                shape=list(change.shape),
                elements=change.count,
                # JSON has no word for infinity.
                absolute=change.absolute if isfinite(change.absolute) else None,
                relative=change.relative if isfinite(change.relative) else None,
            )
            for change in found.changes
        ],
        equal_tensors=found.equal,
    )


def _point(made: Compiled) -> Point:
    values = {name: plain(value) for name, value in made.parameters.items()}
    return Point(
        spec=made.module.name,
        model=made.name,
        variant=made.variant,
        scaling=list(made.rules),
        settings={setting.name: values[setting.name] for setting in made.request.settings},
        with_preprocessing=made.with_preprocessing,
        preparation={
            name: {key: plain(value) for key, value in stated.items()}
            for name, stated in made.elaborated.preparation.items()
        },
        parameters=values,
        inputs={name: list(sizes) for name, sizes in made.input_shapes.items()},
        params=made.params,
        training_params=made.cost.training_params,
        macs=made.macs,
        activations=made.cost.acts,
        peak_bytes=made.cost.peak,
        depth=made.cost.depth,
        blocks=made.elaborated.blocks,
        hashes=dict(made.hashes),
    )


def _problem(diagnostic: problems.Diagnostic) -> Problem:
    return Problem(
        code=diagnostic.code,
        message=diagnostic.message,
        primary=_place(diagnostic.primary) if diagnostic.primary else None,
        secondary=[_place(label) for label in diagnostic.secondary],
        notes=list(diagnostic.notes),
        help=diagnostic.help,
        trail=list(diagnostic.trail),
    )


def _place(label: problems.Label) -> Place:
    span = label.span
    line, column = span.source.line_column(span.start)
    end_line, end_column = span.source.line_column(span.end)
    return Place(
        file=span.source.name, line=line, column=column, end_line=end_line, end_column=end_column, text=label.text
    )
