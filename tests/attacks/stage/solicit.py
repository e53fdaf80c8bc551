"""Asks for an address by DHCPv6 (RFC 8415): one SOLICIT; says whether anybody answered.

    solicit.py INTERFACE HEX

HEX is part of the client's identifier.
"""
import os
import socket
import struct
import sys
import time

interface, mark = sys.argv[1], bytes.fromhex(sys.argv[2])
duid = struct.pack("!HI", 2, 0x7ED9) + mark
options = struct.pack("!HH", 1, len(duid)) + duid
options += struct.pack("!HHH", 8, 2, 0)
options += struct.pack("!HHIII", 3, 12, 1, 0, 0)
solicit = b"\x01" + os.urandom(3) + options
client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
index = socket.if_nametoindex(interface)
client.bind(("::", 546))
client.settimeout(2)
for _ in range(50):
    try:
        client.sendto(solicit, ("ff02::1:2", 547, 0, index))
        break
    except OSError:
        # Duplicate address detection of the interface's own address takes a second.
        time.sleep(0.1)
else:
    sys.exit("the interface has no address to ask from")
try:
    print("an answer of", len(client.recv(2000)), "bytes")
except socket.timeout:
    print("silence")
