"""Python ICE agents call through a relay that runs without a configuration, using the ICE servers it printed."""

import asyncio
import json
import re

from aioice import Connection, TransportPolicy


def connections(printed, how_many):
    """ICE agents that use only the relay, configured from the printed object."""
    [server] = json.loads(printed)["iceServers"]
    address = next(re.fullmatch(r"turn:([\d.]+):(\d+)\?transport=udp", url) for url in server["urls"])
    return [
        Connection(
            ice_controlling=n == 0,
            turn_server=(address[1], int(address[2])),
            turn_username=server["username"],
            turn_password=server["credential"],
            transport_policy=TransportPolicy.RELAY,
        )
        for n in range(how_many)
    ]


async def call(printed):
    """Connects two agents and sends messages both ways; returns the types of their local candidates."""
    caller, callee = connections(printed, 2)
    for agent in (caller, callee):
        await agent.gather_candidates()
    for agent, other in ((caller, callee), (callee, caller)):
        for candidate in other.local_candidates:
            await agent.add_remote_candidate(candidate)
        await agent.add_remote_candidate(None)
        agent.remote_username, agent.remote_password = other.local_username, other.local_password
    await asyncio.gather(caller.connect(), callee.connect())
    for n in range(50):
        for sender, receiver in ((caller, callee), (callee, caller)):
            await sender.send(b"message %d" % n)
            assert await asyncio.wait_for(receiver.recv(), 10) == b"message %d" % n
    kinds = [candidate.type for agent in (caller, callee) for candidate in agent.local_candidates]
    await asyncio.gather(caller.close(), callee.close())
    return kinds


def test_relay_only_call_with_printed_credentials(start, switch, clients):
    """RFC 8656 §9, §12: two clients of one relay reach each other at its own addresses without any configuration."""
    host = switch.host("relay", default_route=True)
    relay = start(host, "--print-ice-servers", configured=False)
    with clients.inside():
        kinds = asyncio.run(call(relay.output))
    assert set(kinds) == {"relay"} and len(kinds) >= 2
    relay.reaches("relayed_packets_total", 100, direction="to_peer")
    assert relay.metric("dropped_packets_total", reason="forbidden_port") == 0
