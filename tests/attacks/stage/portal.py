"""A captive portal: whatever is asked for, it sends to its own page.

    portal.py LISTEN PORT
"""
import http.server
import sys

listen, port = sys.argv[1:3]


class Portal(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/login"):
            body = b"PORTAL: agree to our terms\n"
            self.send_response(200)
        else:
            body = b""
            self.send_response(302)
            self.send_header("Location", f"http://{listen}/login")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


# Redirected connections arrive at whatever address they were meant for.
server = http.server.ThreadingHTTPServer(("0.0.0.0", int(port)), Portal)
print("ready", flush=True)
server.serve_forever()
