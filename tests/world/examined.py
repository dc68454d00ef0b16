"""What does `topup doctor` find in a world?"""

import asyncio
from pathlib import Path

from topup.commands.doctor import Check, examine
from topup.sandbox.world import World


def looked(world: World, directory: Path, **changes: str | None) -> dict[str, Check]:
    """Examine with the world's settings and these changes (None removes one); return the checks by name."""
    environment = world.environment() | {"TOPUP_STATE_DIR": str(directory), "TOPUP_CONFIG": "/dev/null"}
    environment |= {f"TOPUP_{name.upper()}": value for name, value in changes.items() if value is not None}
    for name in [f"TOPUP_{name.upper()}" for name, value in changes.items() if value is None]:
        environment.pop(name, None)
    return {check.name: check for check in asyncio.run(examine(environment))}


def failed(found: dict[str, Check]) -> set[str]:
    """The names of the failed checks, which all have to say what to do unless they were skipped."""
    bad = {name for name, check in found.items() if not check.ok}
    for name in bad:
        assert found[name].remedy or found[name].says.startswith("skipped:"), found[name].line()
    return bad
