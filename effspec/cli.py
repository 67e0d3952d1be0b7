"""The commands of `effspec`: parse arguments, call, print, exit.

Messages go to standard error, data to standard output.  Exit status: 0, 1 (the spec or the request is wrong), 2 (the
command line is wrong), 70 (a fault of effspec), 130 (interrupted), 128 + N (stopped by the signal N).
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from effspec import __version__, progress
from effspec.options import (
    Commands,
    Trains,
    complete_choice,
    complete_code,
    complete_document,
    complete_option,
    complete_spec,
    complete_target,
    complete_variant,
    json_option,
    point_options,
    preprocessing_option,
    spec_argument,
    train_size_option,
)

if TYPE_CHECKING:
    from effspec.diagnostics import Diagnostic
    from effspec.pipeline import Compiled

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _compiled(
    spec: str, variant: str | None, phi: str | None, settings: Sequence[str], model: str | None,
    with_preprocessing: bool = False,
) -> Compiled:  # fmt: skip
    from effspec.pipeline import Compiled
    from effspec.request import from_words
    from effspec.resolve import load

    context = click.get_current_context()
    words = ["effspec", *context.find_root().obj]
    progress.doing(f"compiling {Path(spec).name}")
    rules = context.params["scaling"]
    request = from_words(words, variant=variant, phi=phi, settings=settings, model=model, scaling=rules)
    return Compiled(load(spec), request, with_preprocessing)


def say(text: str) -> None:
    """A message: standard error."""
    progress.hide()
    # Where nobody can be told, the work itself is done all the same.
    with suppress(OSError):
        click.echo(text, err=True)


def data(text: str) -> None:
    """What the command was asked for: standard output."""
    progress.hide()
    click.echo(text)


def document(name: str, *arguments: Any) -> None:
    """Print a JSON document that `effspec.summary` makes."""
    from effspec import summary

    made = getattr(summary, name)(*arguments)
    data(made.model_dump_json(indent=2, by_alias=True))


def diagnose(diagnostics: Sequence[Diagnostic]) -> None:
    from effspec.diagnostics import render_all

    say(render_all(tuple(diagnostics), color=_colored()))


def _colored() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


# Commands -------------------------------------------------------------------------------------------------------------


@click.group(cls=Commands, context_settings=_CONTEXT)
@click.version_option(__version__, message="effspec %(version)s")
def cli() -> None:
    """Compile convolutional architectures, kept as text, to PyTorch source and ONNX.

    SPEC is a file that ends in .eff, or the name of a shipped spec (`effspec list`).
    """


@cli.command(name="compile", short_help="Compile one point of a model to a target.")
@spec_argument
@point_options
@click.option(
    "--target", default="torch", show_default=True, metavar="NAME", shell_complete=complete_target, help="What to make."
)
@click.option("-o", "--output", metavar="PATH", help="Where to write; `-` is standard output.")
@click.option("--weights", metavar="FILE", type=click.Path(), help="A checkpoint with the spec's names.")
@click.option("--new-head", is_flag=True, help="Last layers of another size start from initial values.")
@click.option("--seed", metavar="N", type=int, help="Draws the initial values; 0 if not given.")
@click.option(
    "--fold", metavar="WHAT", shell_complete=complete_choice,
    help="Fold batch-norm (the default of onnx), linear branches too, or none.",
)  # fmt: skip
@click.option("--no-fold", is_flag=True, help="The same as --fold none.")
@click.option("--opset", metavar="N", type=int, shell_complete=complete_choice, help="ONNX operator set.")
@click.option("--batch", metavar="N", type=int, help="A fixed batch size; left open otherwise.")
@click.option("--dynamic", is_flag=True, help="Leave height and width open, where nothing depends on them.")
@click.option("--dtype", metavar="TYPE", shell_complete=complete_choice, help="float32 or float64.")
@click.option(
    "--option", "options", metavar="NAME=VALUE", multiple=True, shell_complete=complete_option,
    help="Any option of a target.",
)  # fmt: skip
@preprocessing_option
@click.option("--with-training", is_flag=True, help="Write a folder: the model, and a script that trains it.")
@train_size_option
@click.option("--force", is_flag=True, help="Overwrite a file that was edited, or that effspec did not write.")
@json_option
def compile_command(
    spec: str, variant: str | None, phi: str | None, settings: tuple[str, ...], model: str | None,
    target: str, output: str | None, weights: str | None, new_head: bool, seed: int | None, fold: str | None,
    no_fold: bool, opset: int | None, batch: int | None, dynamic: bool, dtype: str | None, options: tuple[str, ...],
    with_preprocessing: bool, with_training: bool, train_size: tuple[int, int] | None, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Compile one point of a model to a target, and say what it is and where it was written."""
    if with_training:
        _check_training(target, weights=weights, output=output, as_json=as_json)
    elif train_size is not None:
        raise click.UsageError("--train-size has no effect without --with-training")
    if as_json and output == "-":
        raise click.UsageError("--json and `-o -` both want standard output")
    if no_fold and fold not in (None, "none"):
        raise click.UsageError(f"--no-fold contradicts --fold {fold}")
    from effspec import backend as backends

    backend = backends.find(target)
    if new_head and (weights is None or not backend.reads_weights):
        why = (
            "no --weights are given"
            if weights is None
            else (f"target {target} holds no numbers; `effspec weights convert --new-head` makes a file that fits")
        )
        raise click.UsageError(f"--new-head has no effect: {why}")
    if seed is not None and ((weights is not None and not new_head) or not backend.reads_weights):
        why = "--weights gives the numbers" if weights is not None else f"target {target} holds no numbers"
        raise click.UsageError(f"--seed has no effect: {why}; drop it")
    _check_suffix(backend, output or "")
    given: dict[str, Any] = {
        "fold": "none" if no_fold else fold.replace("-", "_") if fold else None,
        "opset": opset, "batch": batch, "dynamic_size": dynamic or None, "dtype": dtype,
    }  # fmt: skip
    chosen = {name: value for name, value in given.items() if value is not None}
    for name, value in (_option(backend, text) for text in options):
        if name in chosen:
            raise click.UsageError(f"the option {name} is given twice: keep one of them")
        chosen[name] = value
    written = {"opset": opset, "batch": batch, "dtype": dtype, "fold": fold}
    backends.choose(backend, chosen, dict(_places(chosen, written, options)))
    compiled = _compiled(spec, variant, phi, settings, model, with_preprocessing)
    if with_training:
        from effspec.commands.train import write
        from effspec.report import summary

        place = write(compiled, output or f"{compiled.stem}_training", train_size=train_size, force=force)
        for line in (*summary(compiled), f"  wrote {place}: python {place / 'train.py'} --data PICTURES trains it"):
            say(line)
        return
    checkpoint = compiled.checkpoint(weights, new_head=new_head, seed=seed or 0) if weights is not None else None
    if output == "-":
        _to_stdout(compiled, backend, checkpoint, seed or 0, chosen)
        for line in checkpoint.lines() if checkpoint is not None else ():
            say(line)
        return
    paths = compiled.write_all(backend, output, checkpoint, seed=seed or 0, force=force, **chosen)
    if as_json:
        document("compiled", compiled, target, paths, checkpoint)
        return
    from effspec.report import summary

    for line in (*summary(compiled), *(f"  {line}" for line in (checkpoint.lines() if checkpoint is not None else ()))):
        say(line)
    say("  wrote " + " and ".join(f"{path} ({_size(path, backend.binary)})" for path in paths))
    if weights is not None and not backend.reads_weights:
        from effspec.weights.checkpoint import loading

        state = loading(weights)
        how = f"model.load_state_dict({state})" if state else "`effspec weights convert` makes a file that torch loads"
        say(f"  {weights} fits it: {how}")


def _check_training(target: str, *, weights: str | None, output: str | None, as_json: bool) -> None:
    """A training script is a folder of PyTorch code, and nothing else."""
    if target != "torch":
        raise click.UsageError(f"--with-training writes PyTorch code: drop --target {target}")
    if weights is not None:
        raise click.UsageError("--weights has no effect: give them to the script, python train.py --weights FILE")
    if output == "-" or as_json:
        other = "`-o -`" if output == "-" else "--json"
        raise click.UsageError(f"--with-training writes a folder, which {other} has no use for: drop one of them")


def _check_suffix(backend: Any, output: str) -> None:
    """A name that says one target, and an option that says another, contradict each other."""
    from effspec import backend as backends

    if output.endswith(backend.suffix):
        return
    for other in map(backends.find, backends.BUILT_IN):
        if output.endswith(other.suffix):
            stem = output.removesuffix(other.suffix)
            raise click.UsageError(
                f"{output} is called as what --target {other.name} makes, and the target is {backend.name}: "
                f"give --target {other.name}, or -o {stem}{backend.suffix}"
            )


def _places(chosen: Iterable[str], written: Mapping[str, object], options: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Where the command line chooses each option of the target."""
    from effspec.request import place

    words = ["effspec", *click.get_current_context().find_root().obj]
    texts = {text.partition("=")[0]: text for text in options}
    for name in chosen:
        if name in texts:
            yield name, place(words, "--option", texts[name])
        elif written.get(name) is not None:
            yield name, place(words, f"--{name}", str(written[name]))


def _check_weights(output: str) -> None:
    """Weights are written as safetensors, whatever the name says: so it may not say another format."""
    stem, dot, suffix = output.rpartition(".")
    if suffix in ("pth", "pt", "bin", "ckpt", "onnx", "npz", "h5", "msgpack") and dot and stem:
        raise click.UsageError(f"{output} would hold safetensors, which its name does not say: -o {stem}.safetensors")


def _option(backend: Any, text: str) -> tuple[str, Any]:
    """`NAME=VALUE` as the type of the target's option."""
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--option takes NAME=VALUE, found {text!r}")
    option = backend.options.get(name)
    if option is not None and isinstance(option.default, bool) and value in ("true", "false"):
        return name, value == "true"
    if option is not None and type(option.default) is int and value.lstrip("-").isdecimal():
        return name, int(value)
    return name, value


def _to_stdout(compiled: Compiled, backend: Any, weights: Any, seed: int, options: dict[str, Any]) -> None:
    from effspec.diagnostics import fail

    stream = sys.stdout.buffer
    if backend.binary and stream.isatty():
        raise fail(
            "E0717", "a binary file would garble the terminal", help="choose a file with -o, or redirect the output"
        )
    files = compiled.files(backend, weights, seed=seed, options=options)
    if len(files) > 1:
        raise fail("E0706", f"this model takes {len(files)} files", help="choose a file's name with -o")
    for chunk in files[0].chunks():
        stream.write(chunk)
    stream.flush()


def _size(path: str, binary: bool) -> str:
    from effspec.report import quantity

    if binary:
        return quantity(Path(path).stat().st_size, "B")
    lines = Path(path).read_bytes().count(b"\n")
    return f"{lines} line{'s' * (lines != 1)}"


@cli.command(short_help="Find every mistake of specs, in every variant.")
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True, shell_complete=complete_spec)
@click.option(
    "--variant", "variants", metavar="NAME", multiple=True, shell_complete=complete_variant,
    help="Only this variant. Repeatable.",
)  # fmt: skip
@click.option("--peers", is_flag=True, help="Run `equals(...)` too, against the installed timm, torchvision, effdet.")
@json_option
def check(specs: tuple[str, ...], variants: tuple[str, ...], peers: bool, as_json: bool) -> None:
    """Find every mistake of specs: compile every variant, and run every `expect` line.

    `expect b0: equals("timm/efficientnet_b0")` says that a variant is that network. With --peers, each such line moves
    random weights from the peer's model and compares the outputs, in float64 and at the variant's own size: seconds for
    a small network, minutes for a large one.
    """
    from effspec.commands.check import check_spec

    places = {}
    if variants:
        from effspec.request import place

        words = ["effspec", *click.get_current_context().find_root().obj]
        places = {name: place(words, "--variant", name) for name in variants}
    results = [check_spec(spec, peers=peers, variants=variants, places=places) for spec in specs]
    if as_json:
        document("checked", results)
    for result in results:
        if result.diagnostics:
            diagnose(result.diagnostics)
            say("")
        if not as_json:
            say(result.line)
    if any(result.diagnostics for result in results):
        raise SystemExit(1)


@cli.command(cls=Trains, short_help="Train a model on pictures.")
@spec_argument
@point_options
@click.option("--data", metavar="PATH", required=True, type=click.Path(), help="Pictures: train/CLASS/*, val/CLASS/*.")
@click.option("-o", "--output", metavar="FOLDER", help="Where code, logs and weights go; a run there goes on.")
@train_size_option
@preprocessing_option
@click.option(
    "--processes", metavar="N", type=click.IntRange(1, 1024), default=1, help="One for each GPU; 1 if not given."
)
@click.option("--force", is_flag=True, help="Overwrite code of the script that was edited.")
def train(
    spec: str, variant: str | None, phi: str | None, settings: tuple[str, ...], model: str | None, data: str,
    output: str | None, train_size: tuple[int, int] | None, with_preprocessing: bool, processes: int, force: bool,
    words: list[str],
) -> None:  # fmt: skip
    """Train a model on pictures: write a script that does (`compile --with-training`), and run it.

    A run that was interrupted goes on when the same command is given again.
    """
    compiled = _compiled(spec, variant, phi, settings, model, with_preprocessing)
    from effspec.commands.train import begin, run
    from effspec.report import summary

    folder = output or f"runs/{compiled.stem}"
    code = begin(compiled, folder, train_size=train_size, force=force)
    for line in summary(compiled):
        say(line)
    progress.rest()
    raise SystemExit(run(code, folder, ["--data", data, *words], processes))


@cli.command(short_help="Run every target here, and compare.")
@spec_argument
@point_options
@click.option("--targets", metavar="NAMES", help="Only these targets, with commas between them.")
@click.option("--weights", metavar="FILE", type=click.Path(), help="A checkpoint with the spec's names.")
@click.option("--seed", metavar="N", type=int, help="Draws the input, and the weights; 0 if not given.")
@click.option("--batch", metavar="N", type=click.IntRange(1, 1024), help="How many random inputs; 1 if not given.")
@click.option("--image", "images", metavar="FILE", multiple=True, type=click.Path(), help="A picture. Repeatable.")
@preprocessing_option
@json_option
def verify(
    spec: str, variant: str | None, phi: str | None, settings: tuple[str, ...], model: str | None,
    targets: str | None, weights: str | None, seed: int | None, batch: int | None, images: tuple[str, ...],
    with_preprocessing: bool, as_json: bool,
) -> None:  # fmt: skip
    """Compile to every target that can run here, run them on one input, and compare with what the graph means.

    The reference is every operator's meaning in numpy, in float64. What runs in float64 has to equal it; what runs in
    float32 may be as far from it as rounding explains. Where a target differs, the first layer that does is named.
    Without --weights, weights are drawn with which every part makes a difference.
    """
    if images and batch is not None:
        raise click.UsageError("--batch has no effect: each --image is one of the batch; drop it")
    if images and weights is not None and seed is not None:
        raise click.UsageError("--seed has no effect: --weights and --image give the numbers; drop it")
    compiled = _compiled(spec, variant, phi, settings, model, with_preprocessing)
    from effspec.commands.verify import check as run
    from effspec.request import place

    span = place(["effspec", *click.get_current_context().find_root().obj], "--targets", targets)
    result = run(
        compiled, targets=targets, weights=weights, images=images, batch=batch or 1, seed=seed or 0, place=span
    )
    if as_json:
        document("verified", result)
    else:
        for line in result.lines():
            data(line)
    if result.diagnostics:
        diagnose(result.diagnostics)
        raise SystemExit(1)


@cli.command(short_help="Print what every line of a spec costs.")
@spec_argument
@point_options
@json_option
def show(
    spec: str, variant: str | None, phi: str | None, settings: tuple[str, ...], model: str | None, as_json: bool
) -> None:
    """Print the stage table: shapes, parameters, multiply-adds, activations and peak memory of every line."""
    compiled = _compiled(spec, variant, phi, settings, model)
    if as_json:
        document("shown", compiled)
        return
    import shutil

    from effspec.report import WIDTH, table

    width = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
    for line in table(compiled, min(max(width, WIDTH), 120)):
        data(line)


@cli.command(short_help="Print what a point costs, as several tools count.")
@spec_argument
@point_options
@click.option("--by", type=click.Choice(["stage", "block", "layer"]), help="A line for each of these, too.")
@click.option(
    "--convention",
    type=click.Choice(["paper", "pycls", "fvcore", "torchvision"]),
    help="Of those lines; paper if not given.",
)
@json_option
def cost(
    spec: str, variant: str | None, phi: str | None, settings: tuple[str, ...], model: str | None, by: str | None,
    convention: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Print what a point costs, without building it: parameters, operations, activations and memory of one image.

    Tools that call what they count FLOPs count different things: each convention gives the number of its tool.
    `sees` is the receptive field of windows alone, in pixels of the input.
    """
    if convention is not None and by is None:
        raise click.UsageError("--convention has no effect without --by: the totals are in all of them")
    compiled = _compiled(spec, variant, phi, settings, model)
    if as_json:
        document("costed", compiled, by or "stage", convention or "paper")
        return
    from effspec.commands.cost import lines

    for line in lines(compiled, by, convention or "paper"):
        data(line)


@cli.command(short_help="Explain the code of an error (E0301), or a name (MBConv, conv).")
@click.argument("code", required=False, shell_complete=complete_code)
@json_option
def explain(code: str | None, as_json: bool) -> None:
    """Explain a diagnostic's code (E0301): why it is an error, an example, and the repair.

    A name is explained, too: an operator's, or one of the standard library. Without either, the codes are listed.
    """
    from effspec.codes import CODES
    from effspec.commands.explain import find, lines

    if code is None:
        if as_json:
            raise click.UsageError("--json explains one code")
        for row in CODES.values():
            data(f"{row.code}  {row.title}")
        return
    entry = find(code)
    if entry is not None and as_json:
        document("explained", entry)
        return
    from effspec.listing import about

    found = list(lines(entry)) if entry is not None else about(code) if not as_json else None
    if found is None:
        from effspec.diagnostics import suggest
        from effspec.listing import known

        near = suggest(code, known())
        raise click.UsageError(
            f"no diagnostic has the code {code!r}, and no operator or block the name"
            + (f": {near}" if near else f"; codes are {min(CODES)} to {max(CODES)}")
        )
    for line in found:
        data(line)


@cli.command()
@click.argument("names", metavar="[TARGET]...", nargs=-1, shell_complete=complete_target)
@json_option
def targets(names: tuple[str, ...], as_json: bool) -> None:
    """List the targets, what can run them here, and their options."""
    from effspec import backend as backends
    from effspec.diagnostics import EffspecError
    from effspec.runtime.runners import runners

    found: list[Any] = []
    broken: dict[str, str] = {}
    for name in names or backends.names():
        try:
            found.append(backends.find(name))
        except EffspecError as error:
            if names:
                raise
            broken[name] = error.diagnostics[0].message
    if as_json:
        document("targets", found, list(runners()), broken)
        return
    from effspec.report import options_of

    for backend in found:
        data(f"{backend.name:<6} {backend.suffix:<7} {backend.doc}")
        for runner in runners(backend.name):
            data(f"        {runner.state}")
        for line in options_of(backend):
            data(line)
    for name, message in broken.items():
        data(f"{name:<6} {message}")


@cli.command(name="list", short_help="List the shipped specs, models and variants.")
@click.argument("specs", metavar="[SPEC]...", nargs=-1, shell_complete=complete_spec)
@json_option
def list_command(specs: tuple[str, ...], as_json: bool) -> None:
    """List the shipped specs, or the models and variants of specs; `std` is the standard library."""
    from effspec.listing import lines, names
    from effspec.resolve import load

    asked = names(specs)
    modules = [load(spec) for spec in asked]
    if as_json:
        document("listed", modules)
        return
    for name, module in zip(asked, modules, strict=True):
        for line in lines(name, module):
            data(line)
    if not specs:
        data("std: blocks and scaling rules that specs import")
        data("    effspec list std")


@cli.command(short_help="Write a starter spec that compiles.")
@click.argument("path", type=click.Path())
@click.option("--force", is_flag=True, help="Overwrite a file.")
def new(path: str, force: bool) -> None:
    """Write a starter spec that compiles, and that teaches the language in its comments."""
    from effspec.commands.new import write

    written = write(path, force=force)
    say(f"wrote {written}; compile it:  effspec compile {written} --variant small")


@cli.command()
@click.argument("paths", metavar="SPEC...", nargs=-1, required=True, type=click.Path())
@click.option("--check", "check_only", is_flag=True, help="Change nothing; exit with 1 if something would change.")
@click.option("--diff", is_flag=True, help="Print what would change; change nothing.")
def fmt(paths: tuple[str, ...], check_only: bool, diff: bool) -> None:
    """Rewrite specs in their canonical form."""
    from effspec.commands.fmt import format_file

    changed = [path for path in paths if format_file(path, write=not (check_only or diff), show=data if diff else None)]
    for path in changed:
        say(f"{'would reformat' if check_only or diff else 'reformatted'} {path}")
    if changed and (check_only or diff):
        raise SystemExit(1)


@cli.group(short_help="Look into checkpoints, move them, write initial values.")
def weights() -> None:
    """Look into checkpoints, move them to the names of a spec, and write initial values."""


@weights.command()
@click.argument("checkpoint", type=click.Path())
@click.option("--spec", required=True, metavar="SPEC", shell_complete=complete_spec, help="The spec of the model.")
@click.option("--part", metavar="KEY", help="Which of several sets of weights, such as state_dict_ema.")
@point_options
@click.option("--new-head", is_flag=True, help="Last layers of another size start from initial values.")
@click.option("--class-names", metavar="FILE", type=click.Path(), help="Names of the outputs, one a line.")
@click.option("--seed", metavar="N", type=int, help="Draws the initial values of a new head; 0 if not given.")
@click.option("-o", "--output", required=True, metavar="FILE", type=click.Path(), help="A .safetensors file.")
@click.option("--force", is_flag=True, help="Overwrite a file that effspec did not write.")
@json_option
def convert(
    checkpoint: str, spec: str, part: str | None, variant: str | None, phi: str | None, settings: tuple[str, ...],
    model: str | None, new_head: bool, class_names: str | None, seed: int | None, output: str, force: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Move a checkpoint of another code base to a spec's names, by structure and shape.

    CHECKPOINT is safetensors, .pth, .npz, or a file of Keras (.weights.h5, .keras, .h5; these take the package h5py).
    """
    from effspec.commands.weights import convert as run

    _check_weights(output)
    compiled = _compiled(spec, variant, phi, settings, model)
    done = run(
        compiled, checkpoint, output,
        part=part, new_head=new_head, class_names=class_names, seed=seed or 0, force=force,
    )  # fmt: skip
    if as_json:
        document("weights_converted", output, done)
        return
    for line in done.lines:
        say(line)


@weights.command()
@spec_argument
@point_options
@click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Draws the initial values.")
@click.option("-o", "--output", required=True, metavar="FILE", type=click.Path(), help="A .safetensors file.")
@click.option("--force", is_flag=True, help="Overwrite a file that effspec did not write.")
def init(
    spec: str, variant: str | None, phi: str | None, settings: tuple[str, ...], model: str | None, seed: int,
    output: str, force: bool,
) -> None:  # fmt: skip
    """Write a model's seeded initial values: the same numbers that every target starts from."""
    from effspec.commands.weights import initial

    _check_weights(output)
    compiled = _compiled(spec, variant, phi, settings, model)
    for line in initial(compiled, output, seed=seed, force=force):
        say(line)


@weights.command(name="show", short_help="Print what is in a checkpoint.")
@click.argument("checkpoint", type=click.Path())
@click.option("--part", metavar="KEY", help="Which of several sets of weights, such as state_dict_ema.")
@json_option
def show_weights(checkpoint: str, part: str | None, as_json: bool) -> None:
    """Print what is in a checkpoint: its tensors with shapes, types and sizes, and which model it was written for."""
    from effspec.weights.checkpoint import load

    file = load(checkpoint, part)
    if as_json:
        document("weights_shown", file)
        return
    from effspec.commands.weights import shown

    for line in shown(file):
        data(line)


@weights.command(short_help="Compare two checkpoints.")
@click.argument("first", metavar="A", type=click.Path())
@click.argument("second", metavar="B", type=click.Path())
@click.option("--part-a", metavar="KEY", help="Which of several sets of weights of A.")
@click.option("--part-b", metavar="KEY", help="Which of several sets of weights of B.")
@json_option
def diff(first: str, second: str, part_a: str | None, part_b: str | None, as_json: bool) -> None:
    """Compare two checkpoints: what only one of them has, what differs in shape or element type, and where numbers
    differ by how much: the largest difference of two elements, and that over the largest magnitude of the tensor.

    Exit status, as of `diff`: 0 where all tensors are equal, 1 where some differ, 2 where a file cannot be read.
    """
    from effspec.diagnostics import EffspecError
    from effspec.weights.checkpoint import load
    from effspec.weights.difference import compare

    try:
        files = load(first, part_a), load(second, part_b)
        found = compare(*files)
    except EffspecError as error:
        _failed(error, click.get_current_context().find_root().obj)
        raise SystemExit(2) from None
    if as_json:
        document("weights_compared", *files, found)
    else:
        from effspec.commands.weights import compared

        for line in compared(*files, found):
            data(line)
    if found:
        raise SystemExit(1)


@cli.command(short_help="Print the JSON Schema of a `--json` document.")
@click.argument("name", required=False, shell_complete=complete_document)
def schema(name: str | None) -> None:
    """Print the JSON Schema of a document that `--json` prints, or list their names."""
    from effspec.summary import DOCUMENTS

    if name is None:
        for known in DOCUMENTS:
            data(known)
        return
    if name not in DOCUMENTS:
        raise click.UsageError(f"no document is called {name!r}: there are {', '.join(DOCUMENTS)}")
    import json

    data(json.dumps(DOCUMENTS[name].model_json_schema(mode="serialization"), indent=2))


@cli.command(short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell's completion script: eval "$(effspec completion bash)"."""
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    data(made(cli, {}, "effspec", "_EFFSPEC_COMPLETE").source())


# From arguments to the exit status ------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status.  Never shows a traceback, unless EFFSPEC_TRACEBACK is set."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), _stopped)
    # A command is short and makes much that lives to its end: looking for garbage costs a tenth of its time.
    gc.set_threshold(100_000, 50, 100)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (as long as the process)
    try:
        try:
            with nullcontext() if "--json" in words else progress.shown(sys.stderr), warnings.catch_warnings():
                warnings.showwarning = _warned
                status = cli.main(words, "effspec", standalone_mode=False, obj=words)
            sys.stdout.flush()
            return status if isinstance(status, int) else 0
        except SystemExit as stop:
            if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):
                return 0  # click, too, saw that whoever read the output has gone
            sys.stdout.flush()
            return stop.code if isinstance(stop.code, int) else 1
        except BrokenPipeError:
            raise
        except Exception as error:
            return _failed(error, words)
    except BrokenPipeError:
        # Whoever read the output has what it wanted.  Python would complain when it flushes the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def _warned(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Say what a backend remarks as a message of the command; other warnings as Python writes them."""
    from effspec.backend import Remark

    say(f"note: {message}" if issubclass(category, Remark) else warnings.formatwarning(message, category, *place[:2]))


def _stopped(number: int, _: object) -> NoReturn:
    """Leave through every `finally`, so that no temporary file stays."""
    raise SystemExit(128 + number)


def _failed(error: Exception, words: Sequence[str]) -> int:
    from effspec.diagnostics import EffspecError, fail

    if isinstance(error, click.exceptions.Abort):
        say("interrupted")
        return 130
    if isinstance(error, click.ClickException):
        error.show(sys.stderr)
        return 2
    if isinstance(error, OSError) and error.filename is None:
        # Every file that is read or written reports its own trouble: this is standard output.
        error = fail("E0716", f"cannot write to standard output: {(error.strerror or str(error)).lower()}")
    if isinstance(error, EffspecError):
        if "--json" in words:
            with suppress(OSError):
                document("failed", error.diagnostics)
        diagnose(error.diagnostics)
        return 1
    if os.environ.get("EFFSPEC_TRACEBACK"):
        raise error
    from effspec.commands.fault import report

    for line in report(error, words):
        say(line)
    return 70
