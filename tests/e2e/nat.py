"""A one-to-one NAT without hairpinning, as in clouds. Packets sent from inside to an external address are dropped."""

from hosts import Host

INSIDE = ["10.0.0.5", "fd00::5"]
OUTSIDE = ["203.0.113.100", "2001:db8:1::100"]

# One-to-one in both directions. Packets from inside to an external address are counted and dropped.
RULES = """
table ip nat {
    chain in { type nat hook prerouting priority -100; iifname "eth0" ip daddr 203.0.113.100 dnat to 10.0.0.5; }
    chain out { type nat hook postrouting priority 100; oifname "eth0" ip saddr 10.0.0.5 snat to 203.0.113.100; }
}
table ip6 nat {
    chain in { type nat hook prerouting priority -100; iifname "eth0" ip6 daddr 2001:db8:1::100 dnat to fd00::5; }
    chain out { type nat hook postrouting priority 100; oifname "eth0" ip6 saddr fd00::5 snat to 2001:db8:1::100; }
}
table inet filter {
    counter turned { }
    chain stop {
        type filter hook prerouting priority -200;
        iifname "inside" ip daddr 203.0.113.100 counter name turned drop
        iifname "inside" ip6 daddr 2001:db8:1::100 counter name turned drop
    }
}
"""


def make_router(switch, folder):
    """A NAT on a switch; `folder` is for its rules."""
    router = switch.host("router", ["203.0.113.200/24", "2001:db8:1::200/64"])
    for address in OUTSIDE:
        router.add_address(address + ("/64" if ":" in address else "/24"))
    router.run("sysctl", "-q", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    rules = folder / "nat"
    rules.write_text(RULES)
    router.run("nft", "-f", rules)
    return router


def host_behind(router):
    """A host behind the NAT, with private addresses only. The caller closes it."""
    host = Host("private")
    router.run("ip", "link", "add", "inside", "type", "veth", "peer", "name", "eth0", "netns", host.path)
    router.run("ip", "link", "set", "inside", "up")
    router.add_address("10.0.0.1/24", interface="inside")
    router.add_address("fd00::1/64", interface="inside")
    host.run("ip", "link", "set", "eth0", "up")
    host.v4, host.v6 = INSIDE
    for address, length, gateway in ((host.v4, 24, "10.0.0.1"), (host.v6, 64, "fd00::1")):
        host.add_address(f"{address}/{length}")
        host.run("ip", "route", "add", "default", "via", gateway)
    return host


def hairpin_drops(router):
    """How many packets from inside to an external address the NAT has dropped."""
    words = router.run("nft", "list", "counter", "inet", "filter", "turned").split()
    return int(words[words.index("packets") + 1])
