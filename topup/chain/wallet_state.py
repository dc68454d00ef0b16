"""What does a wallet hold now, in every dollar of a chain, what has it sent, and is there code at its address?

This is for a person to read. Each part is a fact, which enough independent providers have to show alike: what they do
not show, or show differently, is `Untold` and never zero.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from topup.chain.agreement import Answers, Vote, agreeing
from topup.chain.blocks import CHAIN_ID, LATEST, ether_query, head, nonce_query, right_chain
from topup.chain.contracts import known_word
from topup.chain.preflight import balance, pending_nonce
from topup.chain.providers import Providers
from topup.chain.rpc import Answer, Nonsense, Query, Rpc, RpcError, count, known, quantity, reverted, unhex
from topup.domain.errors import ChainUnknown
from topup.domain.money import Asset, Usdc, Wei
from topup.ports.chain import Head
from topup.wire.clean import SENTENCE_MAX, joined

# How the code of an account begins that has handed itself to a contract (EIP-7702); the contract's address follows.
DELEGATED: Final = bytes.fromhex("ef0100")
# More than there is of any dollar, in units of 10⁻⁶, and of ether, in wei.
DOLLARS_END: Final = 10**18
ETHER_END: Final = 10**27
NONCE, PENDING, CODE = "nonce", "pending", "code"


@dataclass(frozen=True)
class Untold:
    """What nobody has told, or not enough alike; `why` is a sentence."""

    why: str


# How many or how much there is, or a code; None where no token stands at the address.
Fact: TypeAlias = int | Wei | Usdc | bytes | Untold | None
_Read: TypeAlias = Callable[[Answer], Fact]


@dataclass(frozen=True)
class WalletState:
    """What is known of a wallet by name: what it holds by the asset's, `nonce`, `pending` and `code`."""

    head: Head
    facts: Mapping[str, Fact]

    @property
    def whole(self) -> bool:
        """Tell whether all of it is known but what is pending, which some nodes do not count."""
        return not any(isinstance(fact, Untold) for name, fact in self.facts.items() if name != PENDING)


async def wallet_state(
    providers: Providers, chain_id: int, wallet: bytes, tokens: Mapping[bytes, str], *, coin: bool
) -> WalletState:
    """Ask for all of it: of tokens by their addresses, and of the chain's coin where it has one.

    Raises:
        ChainError: too few providers gave an answer that can be used.
    """
    asked = _questions(wallet, tokens, coin=coin)
    return _joined(
        await providers.ask(
            lambda rpc: _look(rpc, chain_id, asked),
            lambda state: state.head,
            enough=lambda said: _joined(said, providers.quorum).whole,
        ),
        providers.quorum,
    )


def delegate(code: bytes) -> bytes | None:
    """Return the contract to which an account with this code has handed itself; None where it has not."""
    return code[3:] if code.startswith(DELEGATED) and len(code) == 23 else None


def of_code(code: bytes) -> str:
    """Say what the code of a wallet means for its signatures."""
    handed = delegate(code)
    whose = "is a contract" if handed is None else f"hands itself to 0x{handed.hex()} (EIP-7702)"
    return (
        f"the wallet {whose}: sellers and the token ask its code alone whether a signature is good (ERC-1271), and"
        " one that the key made is refused where the code does not know it"
    )


def _questions(wallet: bytes, tokens: Mapping[bytes, str], *, coin: bool) -> dict[str, tuple[Query, _Read]]:
    """Return by name what is asked, and how the answer is read."""
    return {
        **({Asset.ETH.value: (ether_query(wallet, "latest"), _ether)} if coin else {}),
        **{name: (balance(token, wallet, "latest"), _dollars) for token, name in tokens.items()},
        NONCE: (nonce_query(wallet, "latest"), lambda answer: count(known(answer, NONCE), NONCE, bare=True)),
        PENDING: (nonce_query(wallet, "pending"), _pending),
        CODE: (("eth_getCode", ["0x" + wallet.hex(), "latest"]), lambda answer: unhex(known(answer, CODE), CODE)),
    }


async def _look(rpc: Rpc, chain_id: int, asked: Mapping[str, tuple[Query, _Read]]) -> WalletState:
    spoken, newest, *answers = await rpc.batch([CHAIN_ID, LATEST, *(query for query, _ in asked.values())])
    right_chain(rpc, spoken, chain_id)
    facts: dict[str, Fact] = {}
    for (name, (_, read)), answer in zip(asked.items(), answers, strict=True):
        try:
            facts[name] = read(answer)
        except Nonsense:
            raise  # whoever gives that is believed in nothing
        except ChainUnknown as error:
            facts[name] = Untold(rpc.shown(f"{rpc.host}: {error}"))
    return WalletState(head(known(newest, "the newest block")), facts)


def _pending(answer: Answer) -> int:
    pending, doubt = pending_nonce(answer, 0)
    if doubt:
        raise ChainUnknown(doubt)
    return pending


def _ether(answer: Answer) -> Wei:
    return Wei(_plausible(quantity(known(answer, "the balance"), "the balance", bare=True), ETHER_END))


def _dollars(answer: Answer) -> Usdc | None:
    # Without a contract nothing answers; Tempo reverts where one of its tokens would stand.
    if answer == "0x" or (isinstance(answer, RpcError) and reverted(answer)):
        return None
    return Usdc(_plausible(known_word(answer, "the balance"), DOLLARS_END))


def _plausible(units: int, end: int) -> int:
    if units >= end:
        raise Nonsense(f"a balance of {units} units is more than there is")
    return units


def _joined(answers: Answers[WalletState], quorum: int) -> WalletState:
    newest = max((vote.value.head for vote in answers.votes), key=lambda block: block.number)
    return WalletState(newest, {name: _agreed(answers, name, quorum) for name in answers.votes[0].value.facts})


def _agreed(answers: Answers[WalletState], name: str, quorum: int) -> Fact:
    votes = [Vote(vote.owner, vote.name, vote.value.facts[name]) for vote in answers.votes]
    camp = agreeing([vote for vote in votes if not isinstance(vote.value, Untold)], lambda fact: fact, quorum)
    if camp:
        return camp[0].value
    said = (
        vote.value.why if isinstance(vote.value, Untold) else f"{vote.name} shows {vote.value!s:.60}" for vote in votes
    )
    return Untold(joined(list(said), SENTENCE_MAX))
