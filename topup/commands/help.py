"""How does the command line explain itself? Commands in groups, within 80 columns, in colour where a terminal has it.

A command says by `rich_help_panel` which group it is listed in. With `--json` a mistake on the command line is a
document as well.
"""

import re
from itertools import groupby
from typing import Any, Final

import typer
from typer.core import TyperGroup

from topup.app.output import document
from topup.commands.answer import refusal
from topup.commands.colour import coloured
from topup.domain.errors import Exit

# In the order in which somebody needs them.
START: Final = "Getting started"
PAY: Final = "Paying"
LOOK: Final = "Looking"
SETTLE: Final = "When something is unclear"
BOOKS: Final = "Books"
SHELL: Final = "Shell"
GROUPS: Final = (START, PAY, LOOK, SETTLE, BOOKS, SHELL)

# A heading stands at the margin before indented lines; a command's or an option's name before its meaning.
HEADING: Final = re.compile(r"^(Usage|\S.*(?=:\n  \S))(?=:)", re.MULTILINE)
NAME: Final = re.compile(r"^  (--?[a-z].*?|[a-z]+( [a-z]+)?)(?=  |\n   )", re.MULTILINE)


class Explained(typer.Context):
    """A command's context, whose help has colour on a terminal."""

    def get_help(self) -> str:
        """Return the help, its headings and names in colour where `coloured` says so."""
        text = super().get_help()
        if not coloured():
            return text
        text = HEADING.sub(lambda found: typer.style(found[0], bold=True), text)
        return NAME.sub(lambda found: typer.style(found[0], fg="cyan"), text)


class Commands(TyperGroup):
    """The commands; those of a group below are listed with its name, beside the others."""

    context_class = Explained

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, such that its help is drawn as this one's."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            command.context_class = Explained
        return command

    def listed(self, before: str = "") -> list[tuple[str, Any]]:
        """Return every command by the words that call it, group by group."""
        found: list[tuple[str, Any]] = []
        for name, command in self.commands.items():
            inside = command.listed(f"{name} ") if isinstance(command, Commands) else [(name, command)]
            found += [(before + words, one) for words, one in inside]
        return sorted(found, key=lambda one: GROUPS.index(one[1].rich_help_panel))

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - typer dictates the signature
        """List the commands in their groups, each with the whole of its first sentence."""
        listed = self.listed()
        width = max(len(name) for name, _ in listed)
        for group, commands in groupby(listed, key=lambda one: one[1].rich_help_panel):
            with formatter.section(group):
                formatter.write_dl([(name.ljust(width), summary(command.help)) for name, command in commands])

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read the options of the whole; see `_refuse`."""
        self._as_json = "--json" in args
        try:
            return super().make_context(info_name, args, parent, **extra)
        except Exception as error:
            if parent is None:  # what is inside a group is told by the outermost
                self._refuse(error)
            raise

    def invoke(self, ctx: Any) -> Any:
        """Read a command's options and run it; see `_refuse`."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if ctx.parent is None:
                self._refuse(error)
            raise

    def _refuse(self, error: Any) -> None:
        """Print a mistake on the command line as a document where one is asked for; typer itself prints the lines."""
        if not self._as_json or not hasattr(error, "format_message"):
            return
        options = getattr(getattr(error, "param", None), "opts", None) or [getattr(error, "option_name", None)]
        document(refusal("usage", error.format_message(), Exit.USAGE, field=options[0], remedy="see --help"))


def summary(text: str | None) -> str:
    """Return what a command's help says before its example, without the full stop."""
    return (text or "").partition(" Example: ")[0].removesuffix(".")
