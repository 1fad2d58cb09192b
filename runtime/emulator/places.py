"""The network addresses of a host. A name such as ``localhost`` has several, and a server may listen on only one."""

from __future__ import annotations

import errno
import socket
from typing import Any, NamedTuple

BACKLOG = 64
NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # a machine without IPv6 may still list ::1 in its hosts file


class Place(NamedTuple):
    """One address of a host in the form that sockets of its family take."""

    family: socket.AddressFamily
    address: Any


def places_of(host: str, port: int) -> list[Place]:
    """All addresses of a host, each once, those of IPv4 first.

    Raises:
        OSError: the name is unknown.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    places = dict.fromkeys(Place(family, address) for family, _, _, _, address in found)
    return sorted(places, key=lambda place: place.family != socket.AF_INET)


def listeners(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on each of a host's addresses, on one port. Port 0 is any free port.

    Raises:
        OSError: the name is unknown, or an address is taken or not this machine's.
    """
    made: list[socket.socket] = []
    fault = OSError(errno.EADDRNOTAVAIL, "the name has no address of this machine")
    try:
        for family, (own, _, *rest) in places_of(host, port):
            try:
                chosen = made[0].getsockname()[1] if made else port
                made.append(_listener(family, (own, chosen, *rest)))
            except OSError as error:
                if error.errno not in NOT_HERE:
                    raise
                fault = error
    except OSError:
        for one in made:
            one.close()
        raise
    if not made:
        raise fault
    return made


def _listener(family: socket.AddressFamily, address: Any) -> socket.socket:
    return socket.create_server(address, family=family, backlog=BACKLOG)
