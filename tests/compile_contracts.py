"""What do the contracts of the embedded world compile to? `python -m tests.compile_contracts` writes the answer.

The compiler is solc from npm at the version of `npm/package.json`, run by node. Metadata is left out of the code, so
the same source gives the same bytes on every machine.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CONTRACTS = Path(__file__).parent.parent / "topup" / "sandbox" / "contracts"
ARTIFACTS = CONTRACTS / "artifacts.json"
SOLC = Path(__file__).parent / "npm" / "node_modules" / "solc" / "solc.js"
SETTINGS: dict[str, Any] = {
    "evmVersion": "prague",
    "viaIR": True,
    "optimizer": {"enabled": True, "runs": 200},
    "metadata": {"bytecodeHash": "none", "appendCBOR": False},
    "outputSelection": {"*": {"*": ["abi", "evm.deployedBytecode.object"]}},
}


def compile_contracts(node: str = "node", solc: Path = SOLC) -> dict[str, Any]:
    """Compile every source: contract name -> {"abi": ..., "runtime": "0x..."}.

    Raises RuntimeError with the compiler's words when it finds an error or so much as a warning.
    """
    sources = {path.name: {"content": path.read_text()} for path in sorted(CONTRACTS.glob("*.sol"))}
    request = {"language": "Solidity", "sources": sources, "settings": SETTINGS}
    # Into a file: node may leave before a pipe has taken more than its 64 KiB.
    with tempfile.TemporaryFile("w+") as out:
        subprocess.run(
            [node, str(solc), "--standard-json"], input=json.dumps(request), stdout=out, text=True, check=True
        )
        out.seek(0)
        said = out.read()
    answer = json.loads(said[said.index("{") :])
    if complaints := [error["formattedMessage"] for error in answer.get("errors", [])]:
        raise RuntimeError("\n".join(complaints))
    return {
        name: {"abi": contract["abi"], "runtime": "0x" + contract["evm"]["deployedBytecode"]["object"]}
        for source in sources
        if source != "Interfaces.sol"
        for name, contract in answer["contracts"][source].items()
    }


def render(contracts: dict[str, Any]) -> str:
    """Return the text of artifacts.json: one line per contract and part, so that a change shows where it is."""
    return json.dumps(contracts, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    ARTIFACTS.write_text(render(compile_contracts()))
    print(f"wrote {ARTIFACTS.name}", file=sys.stderr)
