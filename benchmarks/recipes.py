"""What does a user write who buys credits unattended, from a seller's own documentation, with a retry around it?

One recipe a rail: ask for the price, sign, send; on anything but success start over, with everything fresh. It is run
every ten minutes for an hour, and pays while the balance is low. It reads and writes the wire as topup does; what it
leaves out is the judgement, and the memory.
"""

from __future__ import annotations

import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tests.world.house import House
    from tests.world.rails_faults import Ground

AMOUNT: Final = 10
UNITS: Final = 10**6
FLOOR: Final = Decimal(10)
# What a user would allow for: the documented example leaves the price to whoever writes it.
VALUE_WEI: Final = 37 * 10**14
TIER: Final = 500
# web3.py's and viem's own patience with a receipt is two and three minutes.
RECEIPT_S_MAX: Final = 120
TRIES: Final = 3
RETRY_S: Final = 10
# It is started by cron while the balance is low.
CRON_S: Final = 600
RUNS: Final = 6
# What a seller may take, in seconds of the machine.
ANSWER_S_MAX: Final = 2
GAS_LIMIT: Final = 2_000_000
LOGIN_MS: Final = 300_000
BEATS: Final = 10


class Unpaid(Exception):
    """The recipe believes that a payment has failed."""


@dataclass(frozen=True)
class Fared:
    """How a recipe fared in a story: paid once, whom it had to, and funded is survived; anything else is not.

    Attributes:
        payments: how often money left the wallet for the one need.
        astray: how many of these went to somebody else, or were not the price.
        leaked: whether a payment or a key went to a server it was not meant for.
        believed: the payments it knows to have made; `lost` says that the chain has more.
        recovered_in_s: seconds of the world from the need until credits were posted; None: never.
    """

    survived: bool
    payments: int
    believed: int
    lost: bool
    recovered_in_s: int | None
    detail: str
    # No story of the wire changes a charge, or points elsewhere.
    astray: int = 0
    leaked: bool = False


class Recipe(ABC):
    """What all of them do, and what is kept of it: how many payments it `believed` to have made, and its `errors`."""

    def __init__(self, wait: Callable[[int], None], key: str) -> None:
        """Wait by this function, in seconds; `key` is the API key."""
        import requests

        self.wait = wait
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["authorization"] = f"Bearer {key}"
        self.tries = TRIES
        self.believed = 0
        self.errors: list[str] = []
        # How it tells of a payment; whoever runs it reads that.
        self.say: Callable[[str], object] = lambda _: None

    @abstractmethod
    def balance(self) -> Decimal:
        """Return the balance in dollars; anything raised ends the run."""

    @abstractmethod
    def pay(self, between: Callable[[], None]) -> None:
        """Make one payment, with `between` run after its signature; anything raised means that it was not made."""

    def hour(self, between: Callable[[], None] = lambda: None, at: Callable[[int], None] = lambda _: None) -> None:
        """Be started every ten minutes for an hour, and buy while the balance is low; `at` is told which run begins."""
        for run in range(RUNS):
            at(run)
            if self._low():
                self.buy(between)
            self.wait(CRON_S)

    def _low(self) -> bool:
        try:
            return self.balance() < FLOOR
        except Exception as error:  # noqa: BLE001 - cron writes a mail
            self._note(error)
            return False

    def buy(self, between: Callable[[], None] = lambda: None) -> None:
        """Pay until a payment has succeeded, a few times at most; `between` the first signature and its sending."""
        for _ in range(self.tries):
            try:
                self.pay(between)
                self.say("paid")
            except Exception as error:  # noqa: BLE001 - that is how it is written
                self._note(error)
                self.wait(RETRY_S)
            else:
                self.believed += 1
                return
            between = lambda: None  # noqa: E731

    def _note(self, error: Exception) -> None:
        self.errors.append(f"{type(error).__name__}: {error}"[:120])


class ByCharge(Recipe):
    """A charge paid in ETH: ask, simulate, sign, send, wait for the receipt.

    As the documented example has it, in Python: requests and web3.py with their defaults.
    """

    def __init__(self, house: House) -> None:
        """Live in this house; the first wire is its only provider."""
        from eth_account import Account
        from web3 import Web3

        from topup.chain.contracts import interface

        super().__init__(house.wait, house.world.gateway.management_key)
        self._house = house
        self._web3 = Web3(Web3.HTTPProvider(house.wires[0].url))
        self._account = Account.from_key(house.world.key.to_hex())
        self._abi = interface("payment_protocol")

    def balance(self) -> Decimal:
        """Return what is left of the credits bought."""
        said = self.session.get(f"{self._house.api.url}/credits", timeout=20)
        told = json.loads(said.text, parse_float=Decimal)["data"]
        return Decimal(told["total_credits"]) - Decimal(told["total_usage"])

    def pay(self, between: Callable[[], None]) -> None:
        """Pay a charge."""
        raw = self._signed(self._charge())
        between()
        tx_hash = self._web3.eth.send_raw_transaction(raw)
        if self._receipt(tx_hash)["status"] != 1:
            raise Unpaid("reverted")

    def _charge(self) -> dict[str, Any]:
        asked = {"amount": AMOUNT, "sender": self._account.address, "chain_id": 8453}
        said = self.session.post(f"{self._house.api.url}/credits/coinbase", json=asked, timeout=20)
        intent: dict[str, Any] = said.json()["data"]["web3_data"]["transfer_intent"]
        return intent

    def _signed(self, charge: dict[str, Any]) -> Any:
        from web3 import Web3

        said = charge["call_data"]
        contract = self._web3.eth.contract(
            address=Web3.to_checksum_address(charge["metadata"]["contract_address"]), abi=self._abi
        )
        intent = {
            "recipientAmount": int(said["recipient_amount"]),
            "deadline": int(datetime.fromisoformat(said["deadline"]).timestamp()),
            "recipient": Web3.to_checksum_address(said["recipient"]),
            "recipientCurrency": Web3.to_checksum_address(said["recipient_currency"]),
            "refundDestination": Web3.to_checksum_address(said["refund_destination"]),
            "feeAmount": int(said["fee_amount"]),
            "id": said["id"],
            "operator": Web3.to_checksum_address(said["operator"]),
            "signature": said["signature"],
            "prefix": said["prefix"],
        }
        payment = contract.functions.swapAndTransferUniswapV3Native(intent, TIER)
        terms: Any = {"from": self._account.address, "value": VALUE_WEI}
        payment.call(terms)
        # What web3.py and viem fill in by themselves: the pending nonce.
        terms["nonce"] = self._web3.eth.get_transaction_count(self._account.address, "pending")
        return self._account.sign_transaction(payment.build_transaction(terms)).raw_transaction

    def _receipt(self, tx_hash: Any) -> Any:
        """Wait for the receipt as web3.py's own function does, on the world's clock."""
        from web3.exceptions import TransactionNotFound

        end = self._house.clock.now_ms() + RECEIPT_S_MAX * 1000
        while self._house.clock.now_ms() < end:
            try:
                receipt = self._web3.eth.get_transaction_receipt(tx_hash)
            except TransactionNotFound:
                receipt = None
            if receipt is not None:
                return receipt
            self._house.wait(2)
        raise Unpaid(f"no receipt within {RECEIPT_S_MAX} s")


class ByCredential(Recipe):
    """What is the same where the seller carries the payment to the chain; it lives on the ground of a row."""

    def __init__(self, ground: Ground) -> None:
        """Pay from the world's wallet."""
        from eth_account import Account

        self.world = ground.world
        self.seller: Any = ground.world.gateway
        self.account = Account.from_key(ground.world.key.to_hex())
        self.sender = bytes.fromhex(ground.world.wallet[2:])
        super().__init__(self._pass, self.seller.management_key)

    def signature(self, digest: bytes) -> bytes:
        """Return r, s and v of these 32 bytes."""
        return bytes(self.account.unsafe_sign_hash(digest).signature)

    def _pass(self, seconds: int) -> None:
        """Let so many seconds of the world pass, and the world take some steps in them."""

        def beat() -> None:
            self.world.chain.mine(self.world.clock.now_s())
            self.seller.poll()

        for _ in range(BEATS):
            self.world.clock.leap(seconds * 1000 // BEATS)
            self.world.do(beat)


class ByAuthorization(ByCredential):
    """A signed transfer by x402: the first offer on Base is signed, as the protocol's own clients do."""

    def balance(self) -> Decimal:
        """Return the balance as this seller tells it: to a wallet that logs in, or to a key."""
        if self.seller.profile == "plain":
            said = self.session.get(f"{self.seller.url}/credits/balance", timeout=ANSWER_S_MAX)
            return Decimal(said.json()["balance_usdc"])
        url = f"{self.seller.url}/x402/balance/{self.world.wallet}"
        said = self.session.get(url, headers={"SIGN-IN-WITH-X": self._login(url)}, timeout=ANSWER_S_MAX)
        return Decimal(json.loads(said.text, parse_float=Decimal)["data"]["balanceUsd"])

    def _login(self, url: str) -> str:
        from topup.domain.typed_data import personal_digest
        from topup.sandbox.contracts import CHAIN_ID
        from topup.sellers.x402_profile import PROFILES
        from topup.sellers.x402_wire import Login, login_header, login_message

        now = self.world.clock.now_ms()
        signer: Any = SimpleNamespace(
            address=self.sender, sign_login=lambda text: self.signature(personal_digest(text))
        )
        login = Login(signer, CHAIN_ID)
        text = login_message(
            login,
            domain=urlsplit(url).netloc,
            uri=url,
            statement=PROFILES[self.seller.profile].login.statement,
            nonce=secrets.token_hex(8),
            times_ms=(now, now + LOGIN_MS),
        )
        return login_header(login, text, now)

    def pay(self, between: Callable[[], None]) -> None:
        """Ask for offers, sign the first, send it; what is not answered with 200 has failed."""
        from topup.domain.typed_data import Authorization, Domain, authorization_digest
        from topup.sellers.x402_profile import PROFILES
        from topup.sellers.x402_wire import Offer, demanded, listed, payment_header

        sale = PROFILES[self.seller.profile].sell
        url, body = f"{self.seller.url}{sale.path}", json.dumps({"amount": str(AMOUNT)})
        asked = self.session.post(url, data=body, timeout=ANSWER_S_MAX)
        every = listed(demanded(asked.headers, asked.content))
        offer = next(one for one in every if isinstance(one, Offer))
        units = AMOUNT * UNITS if sale.minimum else offer.amount
        until = self.world.clock.now_s() + offer.max_timeout_s
        signed = Authorization(self.sender, offer.pay_to, units, 0, until, secrets.token_bytes(32))
        domain = Domain(offer.name or "USD Coin", offer.token_version or "2", offer.chain_id, offer.asset)
        header, value = payment_header(offer, signed, self.signature(authorization_digest(domain, signed)))
        between()
        paid = self.session.post(url, data=body, headers={header: value}, timeout=ANSWER_S_MAX)
        if paid.status_code != 200:
            raise Unpaid(f"answered {paid.status_code}")


class ByMachine(ByCredential):
    """A machine payment on Tempo: the first challenge for it is answered with a signed transaction."""

    def balance(self) -> Decimal:
        """Return what is left of the credits bought."""
        said = self.session.get(f"{self.seller.url}/credits", timeout=ANSWER_S_MAX)
        told = json.loads(said.text, parse_float=Decimal)["data"]
        return Decimal(told["total_credits"]) - Decimal(told["total_usage"])

    def pay(self, between: Callable[[], None]) -> None:
        """Ask for a challenge, sign, send; what is not answered with 202 has failed."""
        from topup.domain import tempo
        from topup.sellers.mpp_choice import METHOD, kind_of
        from topup.sellers.mpp_wire import challenges, credential, memo, payer, tempo_charge

        url, body = f"{self.seller.url}/credits/purchases", json.dumps({"amount": AMOUNT})
        key = secrets.token_hex(16)
        asked = self.session.post(url, data=body, headers={"idempotency-key": key}, timeout=ANSWER_S_MAX)
        lines = asked.raw.headers.getlist("www-authenticate")
        challenge = next(one for one in challenges(lines) if kind_of(one) == METHOD)
        told = tempo_charge(challenge)
        chain_id = told.chain_id or 4217
        transaction = tempo.Transaction(
            chain_id=chain_id,
            gas_price=2 * self.seller.chain.base_fee,
            gas_limit=GAS_LIMIT,
            to=told.currency,
            data=tempo.transfer_with_memo(told.recipient, told.amount, memo(challenge.realm, challenge.id)),
            lane=tempo.lane_of(bytes.fromhex(key)),
            valid_before=told.expires or 0,
            fee_token=told.currency,
        )
        raw = tempo.sealed(transaction, self.signature(tempo.digest(transaction)))
        payload = {"type": "transaction", "signature": "0x" + raw.hex()}
        paying = {challenge.header: credential(challenge, payload, payer(chain_id, self.sender))}
        # The key has a header of its own, for a credential may stand in Authorization.
        paying |= {"idempotency-key": key, "x-api-key": self.seller.management_key}
        between()
        paid = self.session.post(url, data=body, headers=paying, timeout=ANSWER_S_MAX)
        if paid.status_code != 202:
            raise Unpaid(f"answered {paid.status_code}")
