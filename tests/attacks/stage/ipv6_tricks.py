"""Sends what a guest with IPv6 must not get away with, or what nobody answers.

    ipv6_tricks.py INTERFACE GATE_MAC OWN SERVER TRICK HEX

HEX is in the payload of every packet that has one.
"""
import sys

from scapy.all import (
    UDP, Ether, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr, ICMPv6NDOptPrefixInfo, ICMPv6NDOptSrcLLAddr, IP, IPv6,
    IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting,
    conf, get_if_hwaddr, sendp,
)

interface, gate, own, server, trick, mark = sys.argv[1:]
conf.verb = 0
mac = get_if_hwaddr(interface)
body = bytes.fromhex(mark)
local, router = "fe80::1234", "fe80::53:4b"


def ip(source=own, destination=server, **more):
    return IPv6(src=source, dst=destination, **more)


def datagram(below):
    return below / UDP(sport=40123, dport=80) / body


def discovery(message, source=local, destination="ff02::1", limit=255):
    return ip(source, destination, hlim=limit) / message


def fragment(**more):
    return datagram(ip() / IPv6ExtHdrFragment(id=7, **more))


TRICKS = {
    "honest": [datagram(ip())],
    "spoof": [datagram(ip(source)) for source in (
        "2001:db8:250:7::24", "2001:db8:12:10::6", local, "::", "::1", "ff02::1",
        "::ffff:10.250.7.23", "::10.250.7.23", "2002:afa:717::1", "2001:0:afa:717::1",
        "2001:db8:250:7:0:5efe:10.250.7.23", "64:ff9b::10.250.7.23")],
    "router": [
        discovery(ICMPv6ND_RA() / ICMPv6NDOptSrcLLAddr(lladdr=mac)
                  / ICMPv6NDOptPrefixInfo(prefix="2001:db8:66::", prefixlen=64)),
        discovery(ICMPv6ND_RA(routerlifetime=0), destination=router),
        discovery(ICMPv6ND_NA(tgt=router, R=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac)),
        discovery(ICMPv6ND_Redirect(tgt=local, dst=server) / ICMPv6NDOptDstLLAddr(lladdr=mac),
                  destination=router),
    ],
    "far": [
        discovery(ICMPv6ND_NS(tgt=router) / ICMPv6NDOptSrcLLAddr(lladdr=mac),
                  destination=router, limit=254),
        discovery(ICMPv6ND_RA(), limit=64),
    ],
    "extensions": [
        datagram(ip() / IPv6ExtHdrHopByHop()),
        datagram(ip() / IPv6ExtHdrDestOpt()),
        datagram(ip() / IPv6ExtHdrRouting(addresses=["2001:db8:12:99::1"])),
        datagram(ip() / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment() / IPv6ExtHdrDestOpt()),
        fragment(m=1), fragment(offset=1), fragment(),
    ],
    "multicast": [datagram(ip(destination=group)) for group in (
        "ff02::fb", "ff02::1:3", "ff05::1:3", "ff0e::80")],
    "elsewhere": [datagram(ip(destination=there)) for there in (
        "2001:db8:12:11::5", "2001:db8:12:99::1", "2001:db8::80", "::ffff:10.12.10.5",
        "2002:a0c:a05::1", "64:ff9b::10.12.10.5")],
    "within": [IP(src="10.250.7.23", dst=there, proto=41) / datagram(ip())
               for there in ("10.12.10.5", "192.88.99.1")],
}
for packet in TRICKS[trick]:
    sendp(Ether(src=mac, dst=gate) / packet, iface=interface)
print(len(TRICKS[trick]))
