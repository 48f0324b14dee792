"""Loopback ports that stay ours.

A port is chosen by binding to 0 and stays bound (SO_REUSEADDR, never listening) until it is
given back. Linux lets a server with SO_REUSEADDR bind and listen on such a port, but neither
hands it to another bind(0) nor uses it for an outgoing connection, so suites that run side by
side cannot take each other's ports. While nobody listens on it, connecting is refused.
"""

from __future__ import annotations

import socket


class Port:
    """One reserved port; int(port) is its number."""

    def __init__(self, number: int = 0, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.sock.bind((host, number))
        except OSError:
            self.sock.close()
            raise
        self.number = self.sock.getsockname()[1]

    def __int__(self) -> int:
        return self.number

    def __str__(self) -> str:
        return str(self.number)

    def release(self) -> None:
        self.sock.close()


def row_of_ports(count: int) -> list[Port]:
    """count consecutive ports, all reserved."""
    for _ in range(200):
        row = [Port()]
        try:
            for step in range(1, count):
                row.append(Port(row[0].number + step))
            return row
        except (OSError, OverflowError):
            for port in row:
                port.release()
    raise AssertionError(f"no {count} consecutive free ports found")
