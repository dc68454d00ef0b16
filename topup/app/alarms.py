"""Which events raise an alarm, and which end it? What is to be told is stored at once, and delivered by others."""

from topup.domain import events
from topup.domain.errors import TopupError
from topup.domain.events import Event
from topup.domain.messages import ALARMS, MessageKind
from topup.domain.policy import Why
from topup.domain.reasons import Reason
from topup.ports.account import Clock, Sink
from topup.ports.outbox import Outbox

_FORBIDDEN = {Why.RUNAWAY: MessageKind.RUNAWAY, Why.ENDPOINT_GONE: MessageKind.RAIL_GONE}
# What shows that nothing keeps the account from being refilled.
_BUYING = (MessageKind.LOW, MessageKind.RUNAWAY, MessageKind.RAIL_GONE)


class Alarms:
    """A sink that keeps the alarms of an account, and passes every event on."""

    def __init__(self, onward: Sink, outbox: Outbox, account: str, clock: Clock) -> None:
        """`onward` takes each event first, so that a ledger that cannot be written never hides one."""
        self._onward, self._outbox, self._account, self._clock = onward, outbox, account, clock

    def emit(self, event: Event) -> None:
        """Take one event."""
        self._onward.emit(event)
        try:
            self._take(event)
        except TopupError:
            pass  # a ledger that takes nothing is said by the pass itself
        except Exception as error:  # noqa: BLE001 - an event is told between two steps of a payment
            self._onward.emit(events.TargetFailed(target="", detail=f"a defect: {type(error).__name__}", tries=0))

    def _take(self, event: Event) -> None:
        match event:
            case events.TopUpForbidden():
                kind = _FORBIDDEN.get(Why(event.why), MessageKind.LOW)
                self._set(kind, on=True, reason=event.why, detail=event.detail, remedy=event.remedy)
            case events.PaymentForbidden(why=Reason.WALLET_LOW):
                self._set(MessageKind.WALLET_LOW, on=True, reason=event.why, detail=event.detail, remedy=event.remedy)
            case events.EndpointGone():
                self._set(MessageKind.RAIL_GONE, on=True, reason=Why.ENDPOINT_GONE, remedy=Why.ENDPOINT_GONE.remedy)
            case events.UnknownTooLong():
                self._set(MessageKind.READINGS_UNKNOWN, on=True, reason=event.doubt, remedy=event.todo)
            case events.ReadingTaken():
                self._set(MessageKind.READINGS_UNKNOWN, on=False)
            case events.TopUpDecided() | events.CycleDone(why=Why.ABOVE_FLOOR):
                for kind in _BUYING:
                    self._set(kind, on=False)
            case events.PaymentSigned():
                self._set(MessageKind.WALLET_LOW, on=False)

    def _set(self, kind: MessageKind, *, on: bool, **data: str) -> None:
        assert kind in ALARMS
        self._outbox.alarm(self._account, kind, self._outbox.now_ms(self._clock.now_ms()), on=on, **data)
