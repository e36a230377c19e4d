"""A certificate of one's own at the edge."""

import ssl
from pathlib import Path

import httpx

from tests.support.kube import Namespace
from tests.support.release import Release


def test_edge_uses_the_certificate_of_the_secret(own: Namespace, image: str, certificate: Path) -> None:
    """On the port of values-production.yaml; `helm test` and the notes know of it."""
    files = ("--cert", str(certificate / "tls.crt"), "--key", str(certificate / "tls.key"))
    own.kubectl("create", "secret", "tls", "shop-tls", *files)
    values = {"gateway.tls.secretName": "shop-tls", "gateway.service.port": "443", "demo.enabled": "false"}
    shop = Release(own, image, values=values)
    shop.install()
    shop.until_ready()
    shop.test()
    assert "curl --insecure" in shop.notes()
    trust = ssl.create_default_context(cafile=str(certificate / "tls.crt"))
    with shop.namespace.forward(f"service/{shop.component('gateway')}", 443) as port:
        answer = httpx.get(f"https://localhost:{port}/api/v1/products", verify=trust)
        assert answer.status_code == 200
