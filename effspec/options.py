"""What several commands take, and how a shell completes it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

F = TypeVar("F", bound=Callable[..., Any])


class Once(click.Command):
    """A command whose options are given once, unless they say that they are repeatable: click would take the last."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            # A shell asks for the value of the last option: what stands before it is to be known.
            args = args[:-1] if args and args[-1].startswith("-") else args
        else:
            _, _, order = self.make_parser(ctx).parse_args(list(args))
            for position, option in enumerate(order):
                single = isinstance(option, click.Option) and not option.multiple and not option.is_flag
                if single and option in order[:position]:
                    raise click.UsageError(f"{option.opts[-1]} is given twice: keep one of them", ctx)
        return super().parse_args(ctx, args)


class Trains(Once):
    """A command that takes the settings of a training script, too: as the parameter `words`, which the script reads."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        # Made here: other commands have no use for them.
        return [*super().get_params(ctx), *self._settings]

    @functools.cached_property
    def _settings(self) -> list[click.Option]:
        from dataclasses import fields

        from effspec.backends.torch.training.settings import Settings

        return [_setting(one) for one in fields(Settings) if one.name not in ("output", "data")]

    def invoke(self, ctx: click.Context) -> Any:
        words: list[str] = []
        for option in self._settings:
            value = ctx.params.pop(option.name or "")
            if isinstance(value, bool):
                words.append(option.opts[0] if value else option.secondary_opts[0])
            elif value is not None:
                words += [option.opts[0], str(value)]
        ctx.params["words"] = words
        return super().invoke(ctx)


def _setting(one: Any) -> click.Option:
    """A setting of a training script as an option: what is not given has no value, and the script knows its default."""
    name = "--" + one.name.replace("_", "-")
    known = one.default not in (None, "") and not isinstance(one.default, bool)
    help = one.metadata["help"] + (f"  [default: {one.default}]" if known else "")
    if isinstance(one.default, bool):
        return click.Option([f"{name}/--no-{name[2:]}", f"setting_{one.name}"], default=None, help=help)
    types: dict[str, Any] = {"int": int, "float": float, "float | None": float, "str": str}
    kind = click.Choice(one.metadata["choices"]) if one.metadata["choices"] else types[one.type]
    return click.Option([name, f"setting_{one.name}"], type=kind, help=help)


class Size(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """`N`, or `HEIGHTxWIDTH`: a size of pictures."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        numbers = value.lower().split("x")
        if len(numbers) > 2 or not all(n.isascii() and n.isdecimal() and 0 < int(n) < 1 << 16 for n in numbers):
            self.fail(f"{value!r} is no size: write N, or HEIGHTxWIDTH", param, ctx)
        return int(numbers[0]), int(numbers[-1])


class Commands(click.Group):
    """A group of such commands."""

    command_class = Once
    group_class = type


def complete_spec(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    from effspec.library import shipped

    names = [CompletionItem(name) for name in shipped() if name.startswith(incomplete)]
    return [*names, CompletionItem(incomplete, type="file")]


def _modules(context: click.Context) -> list[Any]:
    """The specs that the command line names so far, loaded; none where they do not load."""
    from effspec.diagnostics import EffspecError
    from effspec.resolve import load

    try:
        return [load(name) for name in context.params.get("specs") or [context.params["spec"]]]
    except (EffspecError, KeyError, TypeError):
        return []


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def complete_variant(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    return _beginning(incomplete, (name for module in _modules(context) for name in module.variants))


def _models(context: click.Context) -> dict[str, Any]:
    from effspec.syntax.nodes import Model

    own = ((name, module.definitions[name]) for module in _modules(context) for name in module.exports())
    return {name: definition for name, definition in own if isinstance(definition.node, Model)}


def complete_model(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    return _beginning(incomplete, _models(context))


def complete_setting(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from effspec.signatures import defined

    known = filter(None, map(defined, _models(context).values()))
    names = [name for signature in known for name in signature.parameters]
    names += [name for rule in _rules(context) for name in rule.names if not rule.is_hook(name)]
    return _beginning(incomplete, (f"{name}=" for name in names))


def _rules(context: click.Context) -> list[Any]:
    """The rules that the command line states in place of the model's own, as far as they are known."""
    from effspec.diagnostics import EffspecError
    from effspec.request import from_words
    from effspec.rescaling import stated

    texts = context.params.get("scaling") or ()
    try:
        request = from_words(texts, variant=None, phi=None, settings=(), model=None, scaling=texts)
        return [rule for module in _modules(context) for rule in stated(request.rules, module)]
    except EffspecError:
        return []


def complete_scaling(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    from effspec.rescaling import known

    names = dict.fromkeys(name for module in _modules(context) for name in known(module))
    return [*map(CompletionItem, _beginning(incomplete, names)), CompletionItem(incomplete, type="file")]


def complete_target(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from effspec.backend import names

    return _beginning(incomplete, names())


def _target_options(context: click.Context) -> dict[str, Any]:
    """The options of the target that the command line names, or of all."""
    from effspec import backend
    from effspec.diagnostics import EffspecError

    written = context.get_parameter_source("target") is ParameterSource.COMMANDLINE
    given = context.params.get("target") if written else None
    try:
        found = [backend.find(name) for name in ([given] if given else backend.BUILT_IN)]
    except EffspecError:
        return {}
    return {name: option for one in found for name, option in one.options.items()}


def _legal(option: Any) -> list[str]:
    choices = option.choices or ((False, True) if isinstance(option.default, bool) else ())
    return [str(value).lower() for value in choices]


def complete_choice(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The values of a target's option that has an option of the command."""
    option = _target_options(context).get(str(parameter.name))
    return _beginning(incomplete, _legal(option)) if option is not None else []


def complete_option(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    pairs = ((name, _legal(option) or [""]) for name, option in _target_options(context).items())
    return _beginning(incomplete, (f"{name}={value}" for name, values in pairs for value in values))


def complete_code(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from effspec.codes import CODES
    from effspec.listing import known

    return _beginning(incomplete.upper(), CODES) or _beginning(incomplete, known())


def complete_document(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from effspec.summary import DOCUMENTS

    return _beginning(incomplete, DOCUMENTS)


def spec_argument(command: F) -> F:
    return click.argument("spec", shell_complete=complete_spec)(command)


def point_options(command: F) -> F:
    """Which point of which model.  What --scaling says is read by `cli._compiled`, and not passed to the command."""

    @functools.wraps(command)
    def without_scaling(*arguments: Any, scaling: tuple[str, ...], **options: Any) -> Any:
        return command(*arguments, **options)

    made: Callable[..., Any] = without_scaling
    for option in (
        click.option(
            "--model", metavar="NAME", shell_complete=complete_model, help="Which model of the file, if it has several."
        ),
        click.option(
            "--set", "settings", metavar="NAME=VALUE", multiple=True, shell_complete=complete_setting,
            help='Give a parameter: a number, true, false, "text", [a, b] or a name of the file. Repeatable.',
        ),
        click.option("--phi", metavar="X", help="The coefficient of a compound scaling rule: any number."),
        click.option(
            "--scaling", metavar="RULE", multiple=True, shell_complete=complete_scaling,
            help="A rule in place of the model's own: Compound, 'Compound(alpha = 1.2)', FILE.eff:Rule. Repeatable.",
        ),
        click.option("--variant", metavar="NAME", shell_complete=complete_variant, help="A published point."),
    ):  # fmt: skip
        made = option(made)
    return made  # type: ignore[return-value]


def train_size_option(command: F) -> F:
    return click.option(
        "--train-size", metavar="N|HxW", type=Size(),
        help="Train on pictures of another size than the model is compiled for; by default the spec's train_size.",
    )(command)  # fmt: skip


def preprocessing_option(command: F) -> F:
    return click.option(
        "--with-preprocessing", is_flag=True, help="Take the picture, with values from 0 to 255, and normalise it."
    )(command)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")(command)
