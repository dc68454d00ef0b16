"""How is a message sent as an e-mail? Over SMTP to one relay, encrypted unless that is switched off."""

import smtplib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate
from functools import partial
from typing import Any, Final, Literal

from topup.ports.outbox import Undelivered
from topup.wire import wording
from topup.wire.aside import Aside
from topup.wire.clean import clean

TIMEOUT_S: Final = 20
# For the whole of it: the one above holds for each answer, and a relay may trickle.
ALL_S: Final = 60
# As whom it greets the relay (RFC 5321, 4.1.3): else the library would ask a name server what this machine is called.
NAME: Final = "[127.0.0.1]"
REFUSED_FOR_GOOD: Final = 500  # RFC 5321, 4.2.1: 5yz is a permanent refusal


@dataclass(frozen=True)
class Email:
    """One relay, and whom it brings mail to; `user` and `password` "" where it wants none."""

    host: str
    port: int
    tls: Literal["starttls", "tls", "none"]
    sender: str
    to: Sequence[str]
    user: str = ""
    password: str = ""
    aside: Aside = field(default_factory=Aside, repr=False, compare=False)

    async def close(self) -> None:
        """Hold nothing open."""

    async def send(self, name: str, at_s: int, document: Mapping[str, Any]) -> None:
        """Send one message; raise `Undelivered` where the relay does not take it."""
        mail = self._mail(name, at_s, document)
        try:
            await self.aside.run(partial(self._deliver, mail), ALL_S)
        except smtplib.SMTPResponseException as error:
            says = clean(str(error.smtp_error, "utf-8", "replace") if isinstance(error.smtp_error, bytes) else "")
            final = error.smtp_code >= REFUSED_FOR_GOOD and not isinstance(error, smtplib.SMTPAuthenticationError)
            raise Undelivered(f"the relay answered {error.smtp_code}: {says}", final=final) from None
        except smtplib.SMTPRecipientsRefused as error:
            codes = sorted(code for code, _ in error.recipients.values())
            final = all(code >= REFUSED_FOR_GOOD for code in codes)
            raise Undelivered(f"the relay refused every recipient ({codes[0]})", final=final) from None
        except (OSError, smtplib.SMTPException) as error:
            raise Undelivered(f"the relay did not take it: {type(error).__name__}") from None

    def _mail(self, name: str, at_s: int, document: Mapping[str, Any]) -> EmailMessage:
        mail = EmailMessage()
        mail["Subject"] = wording.title(document)
        mail["From"], mail["To"], mail["Date"] = self.sender, ", ".join(self.to), formatdate(at_s)
        mail["Message-ID"] = f"<{name}@topup.invalid>"  # the same each time: a mail program shows it once
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody answers it by a machine
        mail.set_content("\n".join(wording.lines(document)) + "\n")
        return mail

    def _deliver(self, mail: EmailMessage) -> None:
        context = ssl.create_default_context()
        relay: smtplib.SMTP
        if self.tls == "tls":
            relay = smtplib.SMTP_SSL(self.host, self.port, NAME, timeout=TIMEOUT_S, context=context)
        else:
            relay = smtplib.SMTP(self.host, self.port, NAME, timeout=TIMEOUT_S)
        with relay:
            if self.tls == "starttls":
                relay.starttls(context=context)
            if self.user:
                relay.login(self.user, self.password)
            relay.send_message(mail)
