"""``python -m tests.bench._clients PORT CLIENTS SECONDS KEYS``: keep-alive HTTP clients.

As many connections as clients, each asking for a random key as soon as it has its answer; prints
requests per second. Bare sockets, so that the driver costs the service as little as pgbench does.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, keys: int, count: list[int]) -> None:
        self.keys = keys
        self.count = count
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        key = random.randrange(self.keys)
        self.transport.write(f"GET /predict/XXX/{key} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.buffer.endswith(b"}"):
            if not self.buffer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(self.buffer.decode())
            self.buffer = b""
            self.count[0] += 1
            self.ask()


async def main(port: int, clients: int, seconds: float, keys: int) -> float:
    """Requests a second."""
    loop = asyncio.get_running_loop()
    count = [0]
    made = [
        await loop.create_connection(lambda: Client(keys, count), "127.0.0.1", port)
        for _ in range(clients)
    ]
    await asyncio.sleep(0.5)
    count[0] = 0
    start = time.perf_counter()
    await asyncio.sleep(seconds)
    rate = count[0] / (time.perf_counter() - start)
    for transport, _ in made:
        transport.abort()
    return rate


if __name__ == "__main__":
    port, clients, seconds, keys = sys.argv[1:]
    print(asyncio.run(main(int(port), int(clients), float(seconds), int(keys))))
