"""Takes one TCP connection, says how many bytes came over it.

    sink.py LISTEN PORT
"""
import socket
import sys

listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
connection, _ = listener.accept()
count = 0
while piece := connection.recv(1 << 20):
    count += len(piece)
print("took", count, flush=True)
