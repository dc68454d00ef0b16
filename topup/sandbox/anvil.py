"""How does the sandbox run on anvil instead? The binary as a child process, mined and disturbed like the chain here.

Differences that a payer can see, found with anvil 1.7.1: a replacement needs no more than a higher fee; a waiting
transaction whose fee falls below the base fee is dropped; receipts never tell an L1 fee, even when one was charged.
"""

import atexit
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from topup.sandbox import contracts
from topup.sandbox.rpc import RpcError

BASE_FEE_WEI = 5_000_000
START_S_MAX = 20
ANSWER_S_MAX = 60

# Storage of the L1Block predeploy since Ecotone: the L1 base fee in wei, two scalars in millionths packed into one
# slot, the L1 blob base fee in wei. With these values a payment's L1 fee is some 1e10 wei.
_L1_BLOCK = "0x4200000000000000000000000000000000000015"
_L1_STORAGE = {1: 10**9, 3: 2269 << 96 | 1_055_762 << 64, 7: 1}

# Ends anvil with the process that started it. Set between fork and exec by a small Python of its own, for a hook in
# the forked child is not safe beside threads. 1 is PR_SET_PDEATHSIG; elsewhere than on Linux `stop` has to do.
_LAUNCH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Anvil:
    """An anvil that mines only when told to; call it from one thread, the one that made it: anvil ends with it.

    Attributes:
        url: where anvil itself listens.
        base_fee: of the blocks to come, in wei per gas.
        before_mine: called before each block, after what was simulated and before what will be.
    """

    def __init__(
        self,
        binary: Path,
        genesis: Mapping[str, contracts.Account],
        *,
        timestamp: int,
        now: Callable[[], int] = lambda: int(time.time()),
        optimism: bool = False,
    ) -> None:
        """Start it with these accounts; return once it answers.

        `timestamp` of the genesis, and `now`, in unix seconds. With `optimism` an L1 fee is charged. The safe block
        is one behind the newest, the finalized block two; on a younger chain both are the genesis.
        Raises RuntimeError, with what anvil said, when it does not start.
        """
        self.base_fee = BASE_FEE_WEI
        self.before_mine: list[Callable[[], None]] = []
        self._now = now
        options = ["--no-mining", "--slots-in-an-epoch", "1"]
        options += ["--optimism"] if optimism else ["--hardfork", "prague"]
        with tempfile.TemporaryDirectory(prefix="topup-anvil-") as folder:
            world = Path(folder) / "genesis.json"
            world.write_text(json.dumps(contracts.genesis_json(genesis, timestamp)), encoding="utf-8")
            self._start([str(binary), "--init", str(world), *options], contracts.CHAIN_ID)
        if optimism:
            for slot, value in _L1_STORAGE.items():
                self.set_storage(_L1_BLOCK, slot, value)
            # Here a call without a sender must be able to pay the L1 fee too.
            self.set_balance("0x" + "00" * 20, 10**24)

    def _start(self, command: list[str], chain_id: int) -> None:
        # Older states go to the disk, gigabytes in a day, and anvil would leave them in the home when it is killed.
        self._folder = tempfile.TemporaryDirectory(prefix="topup-anvil-", ignore_cleanup_errors=True)
        options = ["--chain-id", str(chain_id), "--port", "0", "--accounts", "0", "--base-fee", str(self.base_fee)]
        options += ["--cache-path", self._folder.name]
        try:
            self._process, port = _started([*command, *options], Path(self._folder.name) / "log")
        except BaseException:
            self._folder.cleanup()
            raise
        atexit.register(self.stop)
        self.url = f"http://127.0.0.1:{port}"
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S_MAX)
        self.rpc("anvil_setLoggingEnabled", [False])

    def mine(self, timestamp: int | None = None) -> int:
        for hook in list(self.before_mine):
            hook()
        parent = self.rpc("eth_getBlockByNumber", ["latest", False])
        at = max(int(parent["timestamp"], 16) + 1, self._now() if timestamp is None else timestamp)
        self.rpc("anvil_setNextBlockBaseFeePerGas", [hex(self.base_fee)])
        self.rpc("evm_setNextBlockTimestamp", [hex(at)])
        self.rpc("evm_mine", [])
        return int(parent["number"], 16) + 1

    def set_storage(self, address: str, slot: int, value: int) -> None:
        self.rpc("anvil_setStorageAt", [address, f"0x{slot:064x}", f"0x{value:064x}"])

    def set_balance(self, address: str, wei: int) -> None:
        self.rpc("anvil_setBalance", [address, hex(wei)])

    def set_code(self, address: str, code: bytes) -> None:
        self.rpc("anvil_setCode", [address, "0x" + code.hex()])

    def pending(self) -> int:
        return sum(int(count, 16) for count in self.rpc("txpool_status", []).values())

    def drop_pending(self) -> int:
        count = self.pending()
        self.rpc("anvil_dropAllTransactions", [])
        return count

    def reorg(self, depth: int, *, drop: bool = False) -> None:
        head = int(self.rpc("eth_blockNumber", []), 16)
        if not 0 < depth <= head:
            raise ValueError(f"cannot take back {depth} of {head} blocks")
        blocks = [
            self.rpc("eth_getBlockByNumber", [hex(number), False]) for number in range(head + 1 - depth, head + 1)
        ]
        raws = [self.rpc("eth_getRawTransactionByHash", [sent]) for block in blocks for sent in block["transactions"]]
        self.rpc("anvil_rollback", [depth])
        for raw in [] if drop else raws:
            self.rpc("eth_sendRawTransaction", [raw])

    def rpc(self, method: str, params: list[Any]) -> Any:
        """Answer one JSON-RPC question, or raise RpcError; OSError when anvil does not answer."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        try:
            self._connection.request("POST", "/", body, {"content-type": "application/json"})
            answer = json.loads(self._connection.getresponse().read())
        except (http.client.HTTPException, OSError) as error:
            self._connection.close()  # the next question opens it again
            raise OSError(f"anvil did not answer {method}: {type(error).__name__}") from error
        if "error" in answer:
            refusal = answer["error"]
            raise RpcError(refusal["code"], refusal["message"], refusal.get("data"))
        return answer["result"]

    def stop(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()
        atexit.unregister(self.stop)


def _started(command: list[str], log: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start anvil; return its process and the port it chose, which it tells nowhere but in its output."""
    own = str(os.getpid())
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - the program the user named, and no shell
            [sys.executable, "-I", "-S", "-c", _LAUNCH, own, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us: we end it when we have finished
        )
    end = time.monotonic() + START_S_MAX
    while time.monotonic() < end:
        ended = process.poll() is not None
        output_text = log.read_text(encoding="utf-8", errors="replace")
        listening = re.search(r"Listening on 127\.0\.0\.1:(\d+)", output_text)
        if listening and not ended:
            return process, int(listening[1])
        if ended:
            raise RuntimeError(f"anvil ended with {process.returncode}: {output_text[-500:]}")
        time.sleep(0.005)
    process.kill()
    process.wait()
    raise RuntimeError(f"anvil did not listen within {START_S_MAX} s")
