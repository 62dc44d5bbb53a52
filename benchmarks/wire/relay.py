"""The least that a relay can cost here: aiohttp on both sides, bytes passed on as they come.

python -m wire.relay URL      # in benchmarks/; prints its port, ends when its stdin does
"""

from __future__ import annotations

import sys

import aiohttp
import uvloop
from aiohttp import web

from wire.upstream import listening, until_stdin_ends


async def main(upstream: str) -> None:
    async with aiohttp.ClientSession() as session:

        async def relay(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            headers = {"Content-Type": "application/json"}
            async with session.post(upstream, data=body, headers=headers) as answer:
                response = web.StreamResponse(headers={"Content-Type": answer.content_type})
                await response.prepare(request)
                async for data in answer.content.iter_any():
                    await response.write(data)
            return response

        app = web.Application()
        app.router.add_post("/v1/chat/completions", relay)
        runner = web.AppRunner(app)
        await runner.setup()
        listener = listening()
        await web.SockSite(runner, listener).start()
        print(listener.getsockname()[1], flush=True)
        await until_stdin_ends()
        await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1] + "/chat/completions"))
