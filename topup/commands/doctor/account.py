"""What does the API say: does it answer, by which key, what credits, and how late it is?"""

from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from topup.app import assembly
from topup.app.connections import Connections, opened
from topup.app.settings import Settings
from topup.commands.doctor.finding import Check, failed, skew, skipped
from topup.domain.credits import LASTING, Reading, believe
from topup.domain.errors import ApiError, TopupError


async def api(settings: Settings) -> list[Check]:
    """Look at the API that tells the credits."""
    names = ("api key", "credits", "clock and API")
    async with opened(settings) as connections:
        try:
            client = connections.api
        except TopupError as error:
            return [failed("api", error), *skipped(names, "the API cannot be asked like this")]
        try:
            key = await client.key()
        except ApiError as error:
            return [failed("api", error, "check api.url and the network"), *skipped(names, "the API gave no answer")]
        host = urlsplit(settings.api.url).hostname
        checks = [
            Check("api", ok=True, says=f"{host} answers"),
            Check("api key", ok=key.management, says="a management key" if key.management else "an ordinary key",
                  remedy="" if key.management else "create a management key: an ordinary one reads no credits"),
        ]  # fmt: skip
        try:
            checks.append(_credits(connections, await client.credits(), management=key.management))
        except ApiError as error:
            checks.append(failed("credits", error, "see what the API says of the request"))
        return [*checks, skew("clock and API", _date_s(client.date), connections.clock.now_ms() // 1000)]


def _credits(connections: Connections, said: Reading, *, management: bool) -> Check:
    settings, store = connections.settings, connections.store
    last, ever = store.last_reading(settings.account), store.ever_non_zero(settings.account)
    doubted = store.doubted(settings.account, last.at_ms) if last is not None else []
    judged = believe(
        said,
        management_key=management,
        last=last,
        ever_non_zero=ever,
        doubted=doubted,
        usage_fall_max=assembly.limits(settings).usage_fall_max,
    )
    if isinstance(judged, Reading):
        return Check("credits", ok=True, says=f"{judged.balance} dollars, believed")
    remedy = "correct api.key" if judged.doubt in LASTING else "`topup resolve --accept-reading` after a day of it"
    return Check("credits", ok=False, says=f"not believed: {judged.detail}", remedy=remedy)


def _date_s(date: str) -> int | None:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):  # what a date header may say is anything
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
