"""How does a shell learn which commands and options there are? It asks topup, by a script that is printed here."""

from typer.completion import get_completion_script  # type: ignore[attr-defined] # it is handed on without saying so

from topup.commands.answer import Answer
from topup.domain.errors import Exit


def answer(shell: str) -> Answer:
    """Return the script for this shell."""
    script = get_completion_script(prog_name="topup", complete_var="_TOPUP_COMPLETE", shell=shell)
    return Answer({}, (), Exit.OK, file=f"{script}\n")
