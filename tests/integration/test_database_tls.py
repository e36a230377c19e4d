"""Databases whose certificate a public authority signed: `sslrootcert=system`, with what the image sets for it."""

import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.database import REPOSITORY

CONNECT = "import psycopg, sys; print(psycopg.connect(sys.argv[1]).execute('SELECT 41 + 1').fetchone()[0])"


@contextmanager
def with_tls(certificate: Path, host: str, port: int) -> Iterator[int]:
    """A port that ends PostgreSQL's TLS before a server that speaks none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "tls.crt", certificate / "tls.key")
    context.set_alpn_protocols(["postgresql"])

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def serve(listener: socket.socket) -> None:
        """One connection after the other, until the listener is shut down."""
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    client.recv(8)  # an SSLRequest
                    client.sendall(b"S")
                    with (
                        suppress(ssl.SSLError),
                        context.wrap_socket(client, server_side=True) as secure,
                        socket.create_connection((host, port)) as server,
                    ):
                        back = threading.Thread(target=copy, args=(server, secure))
                        back.start()
                        copy(secure, server)
                        back.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve, args=(listener,))
        serving.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        serving.join()


def connect(conninfo: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "SSL_CERT_FILE"}
    command = [sys.executable, "-c", CONNECT, conninfo]
    return subprocess.run(command, env=inherited | variables, check=False, capture_output=True, text=True, timeout=60)


def test_public_authorities_come_from_ssl_cert_file(product_database: str, certificate: Path) -> None:
    """The driver's own OpenSSL has its default folder from where it was built."""
    given = conninfo_to_dict(product_database)
    with with_tls(certificate, str(given["host"]), int(given["port"] or 5432)) as port:
        place = make_conninfo(product_database, host="localhost", hostaddr="127.0.0.1", port=port)
        wanted = make_conninfo(place, sslmode="verify-full", sslrootcert="system", connect_timeout=20)
        refused = connect(wanted)
        done = connect(wanted, SSL_CERT_FILE=str(certificate / "tls.crt"))
    assert "certificate verify failed" in refused.stderr
    assert done.stdout == "42\n", done.stderr


def test_image_names_the_public_authorities() -> None:
    """Where Debian's package puts them, which the base image has."""
    found = re.findall(r"SSL_CERT_FILE=(\S+)", (REPOSITORY / "Dockerfile").read_text())
    assert found == ["/etc/ssl/certs/ca-certificates.crt"]
