"""Claim the address of a server before anything loads."""

from __future__ import annotations

import errno
import ipaddress
import socket

from quarry.errors import UserError

BACKLOG = 1024
"""Connections that wait until the server accepts them."""


def is_loopback(host: str) -> bool:
    """Return whether a host, without its port, is this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens; clients that connect wait until the server answers.

    Args:
        host: a name or an address of this machine; "0.0.0.0" and "::" are all.
        port: 0: a free one.

    Raises:
        UserError: the address is in use, is not this machine's, or needs rights.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no name of a host"
        raise UserError(
            f"task.host={host}: cannot be resolved ({why}). Fix: task.host=127.0.0.1"
        ) from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # a port of a server that has just ended is free; one that listens refuses all the same
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise UserError(_refusal(host, port, error)) from error
    listener.setblocking(False)
    return listener


def _refusal(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        free = port + 1 if port < 65_535 else 8000
        return (
            f"task.port={port}: another process listens there. Fix: end it, or task.port={free}, "
            "or task.port=0 for a free one"
        )
    if error.errno == errno.EACCES:
        return f"task.port={port}: needs rights that you do not have. Fix: task.port=8000"
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"task.host={host}: no address of this machine. Fix: task.host=127.0.0.1, or 0.0.0.0 "
            "for all (with task.token)"
        )
    return f"task.host={host} task.port={port}: {error.strerror}. Fix: another address"


def url_of(listener: socket.socket) -> str:
    """Return the address that a browser takes."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
