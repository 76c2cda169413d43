"""One page over HTTPS: how long this machine has been up, and how busy it is."""

import http.server
import ssl
from pathlib import Path


class Status(http.server.BaseHTTPRequestHandler):
    """Answers /status."""

    timeout = 20

    def do_GET(self) -> None:
        """The page, or 404."""
        if self.path != "/status":
            self.send_error(404)
            return
        uptime, load = (Path("/proc", name).read_text().split()[0] for name in ("uptime", "loadavg"))
        body = f"status-page is up\nuptime {uptime}\nload {load}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")
    server = http.server.ThreadingHTTPServer(("", 443), Status)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()
