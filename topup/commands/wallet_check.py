"""What does the wallet hold in every dollar, what has it sent, and is there code at its address?

A wallet may have been sent a dollar that nothing here pays with: each of those is looked for, and said with what can be
done about it. What too few providers show alike is unknown.
"""

from dataclasses import dataclass
from typing import Any, Final

from eth_utils.address import to_checksum_address

from topup.app import keys
from topup.app.assembly import pay_with
from topup.app.connections import Connections, opened
from topup.app.funding import Funding, funding
from topup.app.settings import Settings
from topup.chain.wallet_state import (
    CODE,
    NONCE,
    PENDING,
    Fact,
    Untold,
    WalletState,
    delegate,
    of_code,
    wallet_state,
)
from topup.commands.answer import Answer
from topup.commands.doctor.finding import Check
from topup.commands.start import load, wait_for
from topup.domain.dollars import BASE_DOLLAR, BASE_TOKENS, TEMPO_DOLLARS, TEMPO_TOKENS
from topup.domain.errors import ChainError, Exit, FileAway, MemoryShort, SettingsError
from topup.domain.money import Asset, Usdc, Wei, plain
from topup.payment.config import COINBASE, MPP, X402

AGAIN: Final = "try again, or name another provider"
UNDO: Final = (
    "take it back: let the key sign an EIP-7702 authorization of the zero address, as `cast send --auth` does; or make"
    " a new wallet. Where you have not set it, somebody else has the key: send what is left to a new wallet at once"
)
# What can be done about a dollar that no rail in use pays with.
ELSEWHERE: Final = {
    "USDC": "set rails.coinbase.pay_with = usdc where charges are paid, or send it on from another program",
    "USDbC": "swap it for USDC on an exchange on Base, with this key in another program",
    "USDC.e": "set rails.mpp.pay_with = usdc.e where mpp is used, or swap it on Tempo's exchange",
    "pathUSD": "set rails.mpp.pay_with = pathusd where mpp is used, or swap it on Tempo's exchange",
    "OUSD": "swap it on Tempo's exchange, with this key in another program; the fee is taken in USDC.e or pathUSD",
    "MACH": "spend it with whoever gave it: it is closed-loop credit, which no exchange takes",
}


@dataclass(frozen=True)
class Seen:
    """An address on one chain, of which `state` was told, or why nothing was; a wallet pays `pays` from it."""

    name: str
    address: bytes
    pays: frozenset[bytes]
    funds: Funding
    tokens: dict[bytes, str]
    state: WalletState | ChainError


def answer() -> Answer:
    """Look at the wallet; PERSON where something is wrong with it, LATER where something is only unknown."""
    return wait_for(examined(load()))


async def examined(settings: Settings) -> Answer:
    """Look at the wallet of these settings, as `answer` says.

    Raises:
        SettingsError: there is no wallet, or its key is another's than is stated.
    """
    account, key, checks = _whose(settings)
    seen, skipped = await _asked(settings, account, key)
    checks += [check for one in seen for check in _judged(one, account, settings.rails_in_use)]
    unknown = [check for check in checks if check.says.startswith("unknown:")]
    wrong = [check for check in checks if not check.ok and check not in unknown]
    code = Exit.PERSON if wrong else Exit.LATER if unknown else Exit.OK
    document = {
        "schema": 1,
        "ok": code == Exit.OK,
        "address": str(to_checksum_address(account)),
        "chains": [_document(one) for one in seen],
        "checks": [check.document() for check in (*checks, *skipped)],
        "exit_code": int(code),
    }
    return Answer(document, [check.line() for check in (*checks, *skipped)], code)


def _whose(settings: Settings) -> tuple[bytes, bytes | None, list[Check]]:
    """Return the account that pays, the key's own address, and whether the key opens; another's ends the command."""
    address, checks = keys.known(settings), []
    try:
        key = keys.signer(settings)
        if key is not None:
            address = key.address
            checks.append(Check("key", ok=True, says=f"opens: {to_checksum_address(address)}"))
    except (FileAway, MemoryShort) as error:
        if address is None:
            raise
        checks.append(Check("key", ok=True, says=f"warning: not opened: {error}", remedy=error.remedy))
    root = settings.rails.mpp.root
    account = bytes.fromhex(root[2:]) if root is not None else address
    if account is None:
        raise SettingsError("no wallet is set", remedy="`topup wallet new` makes one; or set wallet.address")
    access = "" if address in (None, account) else ", for which the key is an access key"
    return account, address, [Check("wallet", ok=True, says=f"{to_checksum_address(account)}{access}"), *checks]


async def _asked(settings: Settings, account: bytes, key: bytes | None) -> tuple[list[Seen], list[Check]]:
    """Ask the chain of each rail in use, and those whose providers are named; say which one was not asked.

    Where the key is an access key of the account, its own address is looked at, too: it may have been sent something.
    """
    whose = {account: ("", _paying(settings))}
    if key not in (None, account):
        whose[key] = (" access key", frozenset())
    seen, skipped = [], []
    async with opened(settings) as connections:
        for funds, tokens, used, said in (
            (funding(settings, X402), BASE_TOKENS, {COINBASE, X402}, settings.chain),
            (funding(settings, MPP), TEMPO_TOKENS, {MPP}, settings.rails.mpp),
        ):
            if used & set(settings.rails_in_use) or "rpc_urls" in said.model_fields_set:
                for address, (who, pays) in whose.items():
                    state = await _state(connections, funds, address, tokens)
                    seen.append(Seen(funds.chain + who, address, pays, funds, tokens, state))
            else:
                says = f"skipped: no rail in use pays there, and {funds.said} names no provider"
                skipped.append(Check(funds.chain, ok=True, says=says))
    return seen, skipped


async def _state(
    connections: Connections, funds: Funding, account: bytes, tokens: dict[bytes, str]
) -> WalletState | ChainError:
    providers, chain_id = connections.agreeing(funds), funds.dollar.chain_id
    try:
        # What a node of Tempo answers for the chain's own coin is a number that means nothing.
        return await wallet_state(providers, chain_id, account, tokens, coin=chain_id == BASE_DOLLAR.chain_id)
    except ChainError as error:
        return error


def _paying(settings: Settings) -> frozenset[bytes]:
    """Return the dollars that a rail in use pays with; no two chains have one at the same address."""
    use = settings.rails_in_use
    own = {X402: BASE_DOLLAR.token, MPP: TEMPO_DOLLARS[settings.rails.mpp.pay_with].token}
    if pay_with(settings) is Asset.USDC:
        own[COINBASE] = BASE_DOLLAR.token
    return frozenset(token for rail, token in own.items() if rail in use)


def _judged(chain: Seen, account: bytes, use: tuple[str, ...]) -> list[Check]:
    state, name = chain.state, chain.name
    if isinstance(state, ChainError):
        says = f"unknown: {state}" if state.again else str(state)
        remedy = AGAIN if state.again else f"correct {chain.funds.said}"
        return [Check(name, ok=False, says=says, remedy=remedy)]
    pays = {symbol for token, symbol in chain.tokens.items() if token in chain.pays}
    checks = []
    for what, fact in state.facts.items():
        ok, says, remedy = True, str(fact), ""
        match fact:
            case Untold(why) if what != PENDING:
                ok, says, remedy = False, f"unknown: {why}", AGAIN
            case Untold(why):
                says = f"warning: what waits for a block is unknown: {why}"
            case None if what in pays:
                ok, says, remedy = False, "unknown: nothing answers where it has to be", AGAIN
            case None:
                says = "no such token answers there"
            case bytes():
                ok, says, remedy = _code(fact, carried=chain.funds.dollar == BASE_DOLLAR, use=use)
            case Usdc():
                says = f"{plain(fact.usdc)} {what}"
                if fact.units and what not in pays:
                    says, remedy = f"warning: {says}, and no rail in use pays with it", ELSEWHERE[what]
                    if chain.address != account:
                        remedy = f"send it to the account that pays, {to_checksum_address(account)}"
            case int():
                aside = ", but for payments by mpp, which have nonces of their own" if chain.funds.rail == MPP else ""
                says = f"{fact} transactions{' with what waits for a block' if what == PENDING else aside}"
        checks.append(Check(f"{name} {what}", ok=ok, says=says, remedy=remedy))
    return checks


def _code(code: bytes, *, carried: bool, use: tuple[str, ...]) -> tuple[bool, str, str]:
    """Judge the code at the wallet's address, where sellers carry its signatures and elsewhere: ok, says, remedy."""
    handed = delegate(code)
    if not code:
        return True, "none", ""
    if handed is None:
        return False, of_code(code), "name a wallet that a key owns: `topup wallet new`"
    if carried and X402 in use:
        return False, of_code(code), UNDO
    rest = "x402 breaks where that code does not know the key, and what a swap leaves of its ETH goes to it"
    rest = rest if carried else "payments on this chain are transactions, which the key signs as before"
    return True, f"warning: hands itself to 0x{handed.hex()} (EIP-7702): {rest}", UNDO


def _document(chain: Seen) -> dict[str, Any]:
    """Return a chain as a JSON-ready document, in which null is unknown, or there is no such token."""
    state = chain.state
    block, facts = (None, {}) if isinstance(state, ChainError) else (state.head.number, state.facts)
    code = facts.get(CODE)
    handed = delegate(code) if isinstance(code, bytes) else None
    kind = "delegation" if handed else "contract" if code else "none"
    return {
        "chain": chain.funds.chain,
        "chain_id": chain.funds.dollar.chain_id,
        "address": str(to_checksum_address(chain.address)),
        "block": block,
        "holds": {name: _told(fact) for name, fact in facts.items() if name not in (NONCE, PENDING, CODE)},
        "nonce": _told(facts.get(NONCE)),
        "pending": _told(facts.get(PENDING)),
        "code": kind if isinstance(code, bytes) else None,
        "delegate": None if handed is None else "0x" + handed.hex(),
    }


def _told(fact: Fact) -> str | int | None:
    if isinstance(fact, Wei | Usdc):
        return plain(fact.eth if isinstance(fact, Wei) else fact.usdc)
    return fact if isinstance(fact, int) else None
