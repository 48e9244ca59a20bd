"""An engine process without a model: what the launcher starts in most tests here, in a tenth of the time.

The variable SCRIPT says what it does: `{"ids": [...], "delay_s": 0.1}` for every sample, or at start
`{"fail": "sentence"}`, `{"exit": 3}`, `{"signal": 9}`, `{"never_ready": true}`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys

from tests.fake_engine import FakePeer, Script
from tgi.heartbeat import start_beating
from tgi.messages import EngineFailed


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    json.load(sys.stdin)
    script = json.loads(os.environ.get("SCRIPT", "{}"))
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    ids, delay = script.get("ids", [5] * 1000), script.get("delay_s", 0.0)
    start_beating(arguments.socket)
    peer = FakePeer(arguments.socket, lambda request, index: Script(ids, delay_s=delay, finish="eos_token"))
    print(f"scripted engine {os.getpid()}", flush=True)
    if "exit" in script:
        return script["exit"]
    if "signal" in script:
        os.kill(os.getpid(), script["signal"])
    if "fail" in script:
        await peer.send(EngineFailed(script["fail"], "load"))
        await asyncio.sleep(0.1)
        return 1
    if not script.get("never_ready"):
        await peer.ready()
    while not stopped.is_set() and os.getppid() == arguments.parent:  # noqa: ASYNC110 - nobody tells of a parent's death
        await asyncio.sleep(0.05)
    await peer.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
