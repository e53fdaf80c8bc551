"""A server that plays the premises beacon.

    beacon.py LISTEN PORT CERTIFICATE KEY [NONCE]

It answers with the nonce that it is asked for, or always with NONCE.
"""
import http.server
import ssl
import sys
import urllib.parse

listen, port, certificate, key = sys.argv[1:5]
always = sys.argv[5] if len(sys.argv) > 5 else None
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.load_cert_chain(certificate, key)


class Beacon(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
        nonce = query.get("nonce", [""])[0]
        print("asked", nonce, flush=True)
        body = (always or nonce).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    def get_request(self):
        connection, peer = self.socket.accept()
        print("connection", flush=True)
        connection.settimeout(5)
        # A client that does not like the certificate breaks off: an OSError, and the next one.
        return context.wrap_socket(connection, server_side=True), peer


server = Server((listen, int(port)), Beacon)
print("ready", flush=True)
server.serve_forever()
