"""What several commands take, and how a shell completes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class Once(click.Command):
    """A command whose options are given once, unless they say that they are repeatable: click would take the last."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(list(args))
            for position, option in enumerate(order):
                single = isinstance(option, click.Option) and not option.multiple and not option.is_flag
                if single and option in order[:position]:
                    raise click.UsageError(f"{option.opts[-1]} is given twice", ctx)
        return super().parse_args(ctx, args)


class Commands(click.Group):
    """A group of such commands."""

    command_class = Once
    group_class = type


def complete_spec(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    from effspec.library import shipped

    names = [CompletionItem(name) for name in shipped() if name.startswith(incomplete)]
    return [*names, CompletionItem(incomplete, type="file")]


def complete_variant(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from effspec.diagnostics import EffspecError
    from effspec.resolve import load

    try:
        return [name for name in load(context.params.get("spec") or "b0").variants if name.startswith(incomplete)]
    except EffspecError:
        return []


def complete_target(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from effspec.backend import names

    return [name for name in names() if name.startswith(incomplete)]


def spec_argument(command: F) -> F:
    return click.argument("spec", shell_complete=complete_spec)(command)


def point_options(command: F) -> F:
    """Which point of which model."""
    for option in (
        click.option("--model", metavar="NAME", help="Which model of the file, if it has several."),
        click.option(
            "--set", "settings", metavar="NAME=VALUE", multiple=True,
            help='Give a parameter: a number, true, false, "text", [a, b] or a name of the file. Repeatable.',
        ),
        click.option("--phi", metavar="X", help="The coefficient of a compound scaling rule: any number."),
        click.option("--variant", metavar="NAME", shell_complete=complete_variant, help="A published point."),
    ):  # fmt: skip
        command = option(command)
    return command


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")(command)
