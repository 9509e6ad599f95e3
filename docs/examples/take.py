#!/usr/bin/env python3
"""Takes a leased connection from prewarm, with Python's standard library alone (Linux). See ../protocol.md.

    take.py HOST PORT [SOCKET]     fetches / over HTTP and says whether the connection was leased
"""

import array
import json
import socket
import sys

CONTROL = "/run/prewarm/control.sock"


class Prewarm:
    """Keeps one connection to the daemon. Not for several threads at once."""

    def __init__(self, path=CONTROL, patience=0.01):
        self.path, self.patience, self.stream, self.next = path, patience, None, 1

    def take(self, **to):
        """A leased socket to destination="192.0.2.1:443" or origin="www.example.org:443", or None."""
        try:
            if self.stream is None:
                self.stream = socket.socket(socket.AF_UNIX)
                self.stream.settimeout(self.patience)
                self.stream.connect(self.path)
            number, self.next = self.next, self.next + 1
            self._say(number, {"take": to})
            reply, descriptors = self._hear()
            if not reply.get("ok", {}).get("lease"):
                return None
            self._say(number, {"taken": {"result": "used"}})
            return socket.socket(fileno=descriptors[0])
        except (OSError, ValueError):
            # Away, slow or strange: whatever was on its way is lost, where the daemon can see it.
            self.close()
            return None

    def connect(self, host, port):
        """A socket to there and whether it was leased: never worse than socket.create_connection."""
        for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            shown = f"[{address[0]}]:{port}" if ":" in address[0] else f"{address[0]}:{port}"
            leased = self.take(destination=shown)
            if leased:
                return leased, True
        return socket.create_connection((host, port)), False

    def close(self):
        if self.stream:
            self.stream.close()
        self.stream = None

    def _say(self, number, request):
        line = json.dumps({"v": 1, "id": number, "request": request}) + "\n"
        self.stream.sendall(line.encode())

    def _hear(self):
        line, descriptors = b"", array.array("i")
        while not line.endswith(b"\n"):
            space = socket.CMSG_SPACE(descriptors.itemsize)
            part, control, _, _ = self.stream.recvmsg(4096, space, socket.MSG_CMSG_CLOEXEC)
            if not part:
                raise ConnectionError("the daemon has gone")
            line += part
            for level, kind, data in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors.frombytes(data)
        return json.loads(line), descriptors


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    prewarm = Prewarm(*sys.argv[3:4])
    stream, leased = prewarm.connect(host, port)
    with stream:
        stream.sendall(f"GET / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        answer = b""
        while part := stream.recv(4096):
            answer += part
    print("leased" if leased else "opened")
    print(answer.partition(b"\r\n\r\n")[2].decode(), end="")


if __name__ == "__main__":
    main()
