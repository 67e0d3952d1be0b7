"""The compiler on one page: a spec and a request in, counts, hashes, files and live models out."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effspec import request
from effspec.diagnostics import EffspecError, fail
from effspec.elaborate import Elaborated, Request, elaborate
from effspec.ir.graph import Graph
from effspec.ir.verify import verify
from effspec.progress import doing
from effspec.resolve import Module, load

if TYPE_CHECKING:
    import torch  # noqa: TID251 (a type)

    from effspec.backend import Backend, Choice, File, Unit, Weights
    from effspec.cost import Cost
    from effspec.preparation import Preparation
    from effspec.weights.checkpoint import Checkpoint


def compile(
    path: str | os.PathLike[str],
    *,
    variant: str | None = None,
    phi: float | None = None,
    set: Mapping[str, Any] | None = None,
    model: str | None = None,
    scaling: str | Sequence[str] = (),
    with_preprocessing: bool = False,
) -> Compiled:
    """Compile a model of a spec file, or of a shipped spec by its bare name (`"b0"`).

    `variant` is a published point, `phi` the coefficient of a compound scaling rule, `set` gives other parameters by
    name; a float means its shortest decimal (0.1 is 1/10).  `model` chooses one of a file that has several.  `scaling`
    is a rule (or several) in place of the model's own, as it would stand after `with`: `"Compound(alpha = 1.2)"`, of
    the spec, the standard library, or a file (`"rules.eff:Mine"`).  `with_preprocessing` makes the input a picture with
    values from 0 to 255, of which the model itself makes what `prepare` states.  Raises `effspec.EffspecError`, which
    carries and prints every diagnostic.
    """
    name = os.fspath(path)
    asked = request.from_call(name, variant=variant, phi=phi, settings=set, model=model, scaling=scaling)
    return Compiled(load(name), asked, with_preprocessing)


class Compiled:
    """One point of a model, lowered and verified.  Costs, hashes and files are made when they are asked for."""

    def __init__(self, module: Module, request: Request, with_preprocessing: bool = False) -> None:
        self.module = module
        self.request = request
        self.with_preprocessing = with_preprocessing
        with _collecting_later():
            self.elaborated: Elaborated = elaborate(module, request)
            if with_preprocessing:
                self.elaborated = self._on_pictures()
            self.graph: Graph = self.elaborated.graph
            """The operators; `graph.nx` is the networkx graph."""
            verify(self.graph, after="elaboration")

    def _on_pictures(self) -> Elaborated:
        """The model elaborated once more, with the arithmetic of its preparation in front."""
        from effspec.preprocessing import described, preprocessed

        stated = self.elaborated.preparation
        shapes = {node.path: node.types[0].shape for node in self.elaborated.graph.inputs}
        prepared = {name: self.prepared(name) for name in stated or list(shapes)[:1]}
        made = elaborate(self.module, self.request, lambda model: preprocessed(model, prepared))
        made.preparation = {name: described(stated[name], shapes[name][0]) for name in stated}
        return made

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.input_shape))
        return f"<{self.title}: {shape}, {self.params:,} parameters, {self.macs:,} multiply-adds>"

    @property
    def name(self) -> str:
        """The model's name."""
        return self.elaborated.model.name.id

    @property
    def variant(self) -> str | None:
        return self.request.variant

    @property
    def scale(self) -> str:
        """The settings as text (`phi = 2`), empty where there are none."""
        from effspec.values import show

        given = {setting.name: self.elaborated.parameters[setting.name].value for setting in self.request.settings}
        return ", ".join(f"{name} = {show(value)}" for name, value in given.items())

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of its scaling rules."""
        return tuple(rule.node.name.id for rule in self.elaborated.rules)

    @property
    def scaling(self) -> str:
        """The rules that are not the model's own, as they were stated (`Compound(alpha = 1.2)`); empty otherwise."""
        from effspec.syntax.write import rules

        return rules(rule.written for rule in self.elaborated.rules) if self.elaborated.rescaled else ""

    @property
    def point(self) -> str:
        """`EfficientNet b2`, `ResNet resnet50 with Compound(alpha = 1.2)`."""
        rule = f"with {self.scaling}" if self.scaling else ""
        return " ".join(filter(None, (self.name, self.variant, rule)))

    @property
    def title(self) -> str:
        """`EfficientNet b2, classes = 10`."""
        return ", ".join(filter(None, (self.point, self.scale)))

    @property
    def parameters(self) -> dict[str, Any]:
        """The model's parameters by name: integers, fractions, texts, tuples and layers."""
        return {name: parameter.value for name, parameter in self.elaborated.parameters.items()}

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each input by its name, without the batch axis."""
        return {node.path: node.types[0].shape for node in self.graph.inputs}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of the (first) input: channels, height, width."""
        return next(iter(self.input_shapes.values()))

    @cached_property
    def cost(self) -> Cost:
        """What it costs: in total, by operator and by stage."""
        from effspec.cost import Cost

        return Cost(self.graph)

    @property
    def params(self) -> int:
        """Trained parameters at inference."""
        return self.cost.params

    @property
    def macs(self) -> int:
        """Multiply-adds of one image at inference."""
        return self.cost.macs

    @property
    def metadata(self) -> dict[str, str]:
        """What travels in every artefact: the preparation of each input, as JSON (`image.mean`: `[0.485, ...]`)."""
        import json

        prepared = self.elaborated.preparation
        return {
            f"{name}.{key}": value if isinstance(value, str) else json.dumps(plain(value))
            for name, arguments in prepared.items()
            for key, value in arguments.items()
        }

    def prepared(self, name: str) -> Preparation:
        """How a picture becomes an input; E0719 where the model does not say."""
        from effspec.preparation import preparation

        [declared] = [node for node in self.elaborated.graph.inputs if node.path == name]
        stated = self.elaborated.preparation.get(name)
        if stated is not None:
            return preparation(stated, declared.types[0].shape)
        raise fail(
            "E0719",
            f"{self.name} does not say how a picture becomes its input `{name}`",
            declared.span,
            help=f"state it in the model's body, for example: prepare {name}(mean = [0.485, 0.456, 0.406], "
            'std = [0.229, 0.224, 0.225], interpolation = "bicubic", crop = 0.875)',
        )

    @cached_property
    def hashes(self) -> dict[str, str]:
        """`function` (what it computes), `weights` (which checkpoints fit), `artefact` (both, and everything else)."""
        from effspec.identity import hashes

        return hashes(self.graph, metadata=self.metadata, known=self._lasting)

    @cached_property
    def _lasting(self) -> dict[str, str]:
        """The two hashes that neither a target nor its options change."""
        from effspec import identity

        return {"function": identity.function(self.graph), "weights": identity.weights(self.graph)}

    @property
    def hash(self) -> str:
        """The hash of the function: 64 hexadecimal digits."""
        return self._lasting["function"]

    def unit(self, target: str, options: Mapping[str, Choice], carried: Mapping[str, str] | None = None) -> Unit:
        """What a backend is given; `carried` is metadata that comes with the weights."""
        from effspec.backend import Unit
        from effspec.identity import hashes

        metadata = {**self.metadata, **(carried or {})}
        digests = hashes(self.graph, target=target, options=options, metadata=metadata, known=self._lasting)
        spec = Path(self.module.name).name
        return Unit(
            self.graph, self.name, self.variant, spec, self.scale, self.params, self.macs, digests, metadata,
            self.elaborated, self.scaling,
        )  # fmt: skip

    def weights(self, source: str | os.PathLike[str] | Weights | None = None, seed: int = 0) -> Weights:
        """A checkpoint's tensors (a path; E0804 where they do not fit), or the seeded initial values."""
        if source is None:
            from effspec.weights.initial import Seeded

            return Seeded(seed)
        if not isinstance(source, str | os.PathLike):
            if not callable(getattr(source, "tensor", None)):
                raise fail(
                    "E0801",
                    f"a {type(source).__name__} is not the path of a checkpoint",
                    notes=("weights are the path of a checkpoint, or an object that has `tensor(parameter)`",),
                    help="tensors by their names are loaded by PyTorch: `net.to_torch().load_state_dict(...)`; "
                    'or save them: `safetensors.torch.save_file(..., "x.safetensors")`',
                )
            return source
        return self.checkpoint(source)

    def checkpoint(self, path: str | os.PathLike[str], *, new_head: bool = False, seed: int = 0) -> Checkpoint:
        """The tensors of a file by the model's own names; E0804 where they do not fit.

        With `new_head`, the last layers may have another number of outputs in the file: then they are the initial
        values of `seed`, and `new` of the result lists them.
        """
        from effspec.weights import classes
        from effspec.weights.checkpoint import Checkpoint, load
        from effspec.weights.head import head

        parameters = self.graph.parameters(training=True, buffers=True)
        found = Checkpoint(load(path), parameters, head=head(self.graph), new_head=new_head, seed=seed)
        classes.check(found.class_names, self.graph, os.fspath(path))
        return found

    def files(
        self,
        target: str | Backend,
        weights: str | os.PathLike[str] | Weights | None = None,
        *,
        seed: int = 0,
        filename: str | None = None,
        options: Mapping[str, Choice] | None = None,
    ) -> tuple[File, ...]:
        """The files of a target, to be written; the first is called `filename`."""
        from effspec import backend as backends
        from effspec import output

        backend = backends.find(target) if isinstance(target, str) else target
        chosen = backends.choose(backend, options or {})
        doing(f"compiling {self.title} to {backend.name}")
        with _collecting_later():
            unit = self.unit(backend.name, chosen)
            problems = backend.check(unit, chosen)
            if problems:
                raise EffspecError(tuple(problems))
            # A checkpoint that does not fit is an error for every target, whether it holds weights or not.
            source = self.weights(weights, seed) if backend.reads_weights or weights is not None else None
            if backend.reads_weights and (names := getattr(source, "class_names", ())):
                from effspec.weights import classes

                unit = self.unit(backend.name, chosen, classes.metadata(names))
            files = backend.emit(unit, source, chosen, filename or self.stem + backend.suffix)
        return files if backend.binary else tuple(output.sealed(file) for file in files)

    def emit(
        self,
        target: str,
        weights: str | os.PathLike[str] | Weights | None = None,
        *,
        seed: int = 0,
        **options: Choice,
    ) -> str | bytes:
        """The content of a target's file: text, or bytes where the target is binary.

        `weights` is a checkpoint's path, `seed` draws the initial values otherwise.  Raises
        EffspecError, E0706 where the model needs more than one file.
        """
        from effspec import backend as backends

        backend = backends.find(target)
        files = self.files(backend, weights, seed=seed, options=options)
        if len(files) > 1:
            names = " and ".join(file.name for file in files)
            raise fail("E0706", f"this model takes {len(files)} files: {names}", help="use `write(target, path)`")
        content = files[0].read()
        return content if backend.binary else content.decode()

    def write(
        self,
        target: str | Backend,
        path: str | os.PathLike[str] | None = None,
        weights: str | os.PathLike[str] | Weights | None = None,
        *,
        seed: int = 0,
        force: bool = False,
        **options: Choice,
    ) -> str:
        """Write a target's files and return where the first one is; `force` overwrites what effspec did not write."""
        return self.write_all(target, path, weights, seed=seed, force=force, **options)[0]

    def write_all(
        self,
        target: str | Backend,
        path: str | os.PathLike[str] | None = None,
        weights: str | os.PathLike[str] | Weights | None = None,
        *,
        seed: int = 0,
        force: bool = False,
        **options: Choice,
    ) -> list[str]:
        """`write`, and where every file is: a model above 2 GiB has a second one."""
        from effspec import backend as backends
        from effspec import output

        backend = backends.find(target) if isinstance(target, str) else target
        place = Path(path) if path is not None else Path(self.stem + backend.suffix)
        if path is None and not force:
            output.check_origin(place, Path(self.module.name).name)
        output.check(place, inputs=self.inputs(weights))
        files = self.files(backend, weights, seed=seed, filename=place.name, options=options)
        return [str(written) for written in output.write(place.parent, files, force=force)]

    def inputs(self, weights: object = None) -> list[str]:
        """The files that this compilation reads, which are never written to."""
        path = getattr(getattr(weights, "file", None), "path", weights)
        return [self.module.name, *([os.fspath(path)] if isinstance(path, str | os.PathLike) else [])]

    @property
    def stem(self) -> str:
        """The default name of a file without its ending, an identifier: `efficientnet_b2`, `efficientnet_phi2`."""
        from effspec.output import word

        given = [setting.name + word(self.parameters[setting.name]) for setting in self.request.settings]
        rules = [name.lower() for name in self.rules] if self.request.rules else []
        name = "_".join([self.name.lower(), *filter(None, [self.variant]), *rules, *given])
        name = name if len(name) <= 60 else f"{name[:48].rstrip('_')}_{self.hash[:8]}"
        return name + "_with_preprocessing" * self.with_preprocessing

    def to_torch(self, weights: str | os.PathLike[str] | Weights | None = None, *, seed: int = 0) -> torch.nn.Module:
        """The emitted model, live: with a checkpoint's weights, or its own seeded initial values."""
        from effspec.runtime.module import module

        text = self.emit("torch")
        assert isinstance(text, str)
        return module(text, self.name, self.stem, self.graph, self.weights(weights, seed))


@contextmanager
def _collecting_later() -> Iterator[None]:
    """Keep Python's cycle collector from looking, again and again, through what is being built: all of it stays."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def plain(value: Any) -> Any:
    """A compile-time value as JSON holds it: fractions are floats, tuples lists, layers their names."""
    if isinstance(value, tuple):
        return [plain(element) for element in value]
    if isinstance(value, Fraction):
        return float(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)
