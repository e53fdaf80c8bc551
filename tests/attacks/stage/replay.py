"""Plays what a server once said to everybody who says something.

    replay.py LISTEN PORT TAPE
"""
import socket
import sys

listen, port, tape = sys.argv[1:4]
with open(tape, "rb") as file:
    said = file.read()
server = socket.create_server((listen, int(port)))
print("ready", len(said), flush=True)
while True:
    connection, _ = server.accept()
    with connection:
        connection.settimeout(5)
        try:
            connection.recv(65536)
            connection.sendall(said)
            print("replayed", flush=True)
            while connection.recv(65536):
                pass
        except OSError:
            pass
