"""Is a server asked under a name of its own? A page elsewhere can have a browser take any other name for this machine.

A browser says under which name it asks. An address is no name that anybody could have pointed here (DNS rebinding).
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit


def own(host: str, names: Collection[str] = ()) -> bool:
    """Tell whether a Host header is an address, localhost, or one of these names; whatever port it says."""
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.netloc != host or "@" in host:
        return False
    if name == "localhost" or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
