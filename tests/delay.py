"""A TCP proxy on loopback behind which every request takes longer: a server that is far away.

It runs in a process of its own, so that it takes no time from the process that is measured::

    with delayed(server_port, seconds=0.04) as port:
        ...  # what is sent to `port` arrives 40 ms later at `server_port`
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def delayed(port: int, seconds: float) -> Iterator[int]:
    """The port of a proxy before ``port`` while the block runs.

    What a client sends, and its connection, arrive ``seconds`` later; answers come at once. So
    each request takes ``seconds`` more, and a new connection takes as long again.
    """
    command = [sys.executable, __file__, str(port), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


async def _serve(port: int, seconds: float, listens: int) -> None:
    async def meet(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            to_client.close()
            return
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=1024)
        await asyncio.gather(
            _receive(client, late), _forward(late, to_server), _answer(server, to_client)
        )

    async def _receive(
        client: asyncio.StreamReader, late: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        data = b"."
        while data:
            try:
                data = await client.read(2**16)
            except OSError:
                data = b""
            await late.put((asyncio.get_running_loop().time() + seconds, data))

    async def _forward(
        late: asyncio.Queue[tuple[float, bytes]], to_server: asyncio.StreamWriter
    ) -> None:
        while True:
            due, data = await late.get()
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            if not data:
                to_server.close()
                return
            to_server.write(data)

    async def _answer(server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            while data := await server.read(2**16):
                to_client.write(data)
        except OSError:
            pass
        to_client.close()

    proxy = await asyncio.start_server(meet, "127.0.0.1", listens)
    print(proxy.sockets[0].getsockname()[1], flush=True)
    async with proxy:
        await proxy.serve_forever()


if __name__ == "__main__":
    # the port that it listens at: by default, a free one
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]), int([*sys.argv, "0"][3])))
