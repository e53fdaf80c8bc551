"""A web server that IPv6 alone leads to.

    six.py ADDRESS TEXT

Every page of it is TEXT.
"""
import socket
import socketserver
import sys
from http.server import BaseHTTPRequestHandler

address, text = sys.argv[1], (sys.argv[2] + "\n").encode()


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = daemon_threads = True


server = Server((address, 80), Page)
print("ready", flush=True)
server.serve_forever()
