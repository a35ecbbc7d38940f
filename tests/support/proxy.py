"""A TCP proxy that loses replies: the command reaches the server and is carried out, its answer never comes back."""

from __future__ import annotations

import contextlib
import socket
import threading


class LossyProxy:
    """Stands between clients and a server on loopback; `lose` so many of the next replies."""

    def __init__(self, port: int) -> None:
        self.server_port = port
        self.lose = 0
        self.lost = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.sockets: list[socket.socket] = [self.listener]
        self.age = 0  # connections of an earlier age are half open: nothing goes through, nobody is told
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in self.sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.server_port))
                self.sockets += [client, server]
                threading.Thread(target=self._forward, args=(client, server, self.age), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client, self.age), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, age: int) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if age == self.age:
                    server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)

    def _answer(self, server: socket.socket, client: socket.socket, age: int) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if age != self.age:
                    continue
                if self.lose and not is_handshake(data):
                    self.lose -= 1
                    self.lost += 1
                    break
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)


def is_handshake(reply: bytes) -> bool:
    """Tell the replies of a new connection (HELLO, CLIENT SETINFO) from those of commands."""
    return reply.startswith((b"%", b"+OK"))
