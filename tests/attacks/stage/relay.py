"""An attacker's relay: takes TCP connections on one address and passes their bytes on to another.

    relay.py LISTEN PORT TARGET PORT SECONDS [TAPE]

Each piece is held back for so many seconds each way. What the target says goes to the file TAPE,
as it came.
"""
import asyncio
import sys

listen, port, target, target_port, seconds = sys.argv[1:6]
tape = open(sys.argv[6], "wb") if len(sys.argv) > 6 else None


async def pump(reader, writer, record):
    try:
        while piece := await reader.read(65536):
            if record:
                tape.write(piece)
                tape.flush()
            await asyncio.sleep(float(seconds))
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    writer.close()


async def serve(reader, writer):
    print("relayed", flush=True)
    there, back = await asyncio.open_connection(target, int(target_port))
    await asyncio.gather(pump(reader, back, False), pump(there, writer, tape is not None))


async def main():
    server = await asyncio.start_server(serve, listen, int(port))
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
