"""NOTES.txt: what `helm install` prints."""

import pytest

from tests.chart import tools
from tests.chart.pods import pods


def notes(sets: str) -> str:
    done = tools.run("install", "shop", str(tools.CHART), "--dry-run=client", "--set", sets)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]


@pytest.mark.parametrize(("hops", "warned"), [("0", True), ("1", False)])
def test_notes_warn_of_untrusted_proxy(hops: str, warned: bool) -> None:
    found = notes(f"ingress.enabled=true,gateway.trustedHops={hops}")
    assert ("all customers count as one client" in found) == warned


@pytest.mark.parametrize(
    ("sets", "warned"),
    [
        ("gateway.service.type=LoadBalancer", True),
        ("gateway.service.type=NodePort,gateway.service.externalTrafficPolicy=Cluster", True),
        ("gateway.service.type=LoadBalancer,gateway.service.externalTrafficPolicy=Local", False),
        ("gateway.service.type=LoadBalancer,gateway.trustedHops=1", False),
        ("gateway.service.type=NodePort,gateway.trustedHops=1,ingress.enabled=true", False),
        ("gateway.service.type=ClusterIP", False),
    ],
)
def test_notes_warn_of_hidden_client_addresses(sets: str, warned: bool) -> None:
    assert ("Set gateway.service.externalTrafficPolicy: Local" in notes(sets)) == warned


SCRAPED = "telemetry.metrics.podMonitor.enabled=true"


@pytest.mark.parametrize(
    ("sets", "warned"),
    [
        (SCRAPED, True),
        ("telemetry.metrics.scrapeAnnotations.enabled=true", True),
        (f"{SCRAPED},telemetry.metrics.from[0].podSelector.matchLabels.app=prometheus", False),
        (f"{SCRAPED},networkPolicy.extraIngress[0].ports[0].port=9464", False),
        (f"{SCRAPED},networkPolicy.enabled=false", False),
        ("telemetry.metrics.enabled=true", False),
    ],
)
def test_notes_warn_of_metrics_that_nobody_may_scrape(sets: str, warned: bool) -> None:
    assert ("Set telemetry.metrics.from" in notes(sets)) == warned


BEHIND = "networkPolicy.from[0].namespaceSelector.matchLabels.name=gateways"
PARENT = "parentRefs[0].name=public"


@pytest.mark.parametrize(
    ("sets", "ways"),
    [
        ("gateway.service.type=LoadBalancer", "the load balancer"),
        ("gateway.service.type=NodePort", "the port on each node"),
        ("ingress.enabled=true", "the Ingress"),
        (f"httpRoute.enabled=true,httpRoute.{PARENT}", "the HTTPRoute"),
        (f"grpcRoute.enabled=true,grpcRoute.{PARENT}", "the GRPCRoute"),
        ("gateway.service.type=NodePort,ingress.enabled=true", "the port on each node and the Ingress"),
        (f"ingress.enabled=true,networkPolicy.enabled=false,{BEHIND}", "the Ingress"),
        ("gateway.service.type=ClusterIP", ""),
        ("gateway.service.type=LoadBalancer,gateway.service.loadBalancerSourceRanges={192.0.2.0/24}", ""),
        (f"gateway.service.type=LoadBalancer,ingress.enabled=true,{BEHIND}", ""),
    ],
)
def test_notes_warn_of_public_access(sets: str, ways: str) -> None:
    """Without tokens, everyone who reaches the edge can read and change everything."""
    found = notes(sets)
    assert "WARNING: there is no authentication" in found
    assert ("may be open to everyone" in found) == bool(ways)
    assert f"And {ways} may be open to everyone" in found or not ways


@pytest.mark.parametrize(
    ("sets", "reach"),
    [
        ("", "Every pod of the cluster reaches it.\nSet auth.mode to jwt"),
        (BEHIND, "Only the peers in networkPolicy.from reach it, so they must authenticate callers.\nOr set auth.mode"),
    ],
)
def test_notes_say_who_reaches_a_closed_edge(sets: str, reach: str) -> None:
    assert reach in notes(sets)


@pytest.mark.parametrize(
    ("sets", "warned"),
    [
        (BEHIND, True),
        (f"{BEHIND},gateway.trustedHops=1", False),
        (f"{BEHIND},networkPolicy.enabled=false", False),
        ("", False),
    ],
)
def test_notes_warn_of_proxies_among_peers(sets: str, warned: bool) -> None:
    assert ("If the peers in networkPolicy.from are proxies" in notes(sets)) == warned


def test_notes_warn_of_kept_test_order() -> None:
    assert "Its order stays, as RECEIVED" in notes("auth.mode=none")


def test_notes_buy_as_guest_without_tokens() -> None:
    found = notes("auth.mode=none")
    assert 'curl -s -H "Cart-Secret: $SECRET" -X POST "${CART}:checkout"' in found
    assert "Authorization" not in found


PROVIDER = "auth.mode=jwt,auth.issuer=https://login.example.com,auth.audience={shop,api},demo.enabled=false"
DEMO = "auth.mode=jwt,auth.demoIssuer.enabled=true"


@pytest.mark.parametrize("guests", ["true", "false"])
def test_notes_say_who_may_call(guests: str) -> None:
    found = notes(f"{PROVIDER},auth.staff.claim=roles,auth.staff.value=clerk,auth.guests={guests},ingress.enabled=true")
    assert "there is no authentication" not in found
    assert "a token of https://login.example.com for shop or api" in found
    assert "`clerk` in the claim `roles`" in found
    assert ("orders as a guest" in found) == (guests == "true")
    assert "demo issuer" not in found


def test_notes_make_tokens_with_demo_issuer() -> None:
    found = notes(DEMO)
    make = "kubectl --namespace default exec deployment/shop-shopping-cart-issuer -- demo token"
    assert f"TOKEN=$({make} --sub ada --ttl 1h)" in found
    assert f"STAFF_TOKEN=$({make} --role staff --sub grace --ttl 1h)" in found
    assert 'curl -s -H "Authorization: Bearer $TOKEN" -X POST "${CART}:checkout"' in found
    assert "Cart-Secret" not in found
    assert "the demo issuer is for trying only" in found
    assert "a token of any customer from POST /demo/token" in found
    assert "eyJ" not in found


def test_notes_say_until_when_credential_is_optional() -> None:
    until = "2026-01-31T12:00:00Z"
    assert f"Until {until}, product and order accept" in notes(f"auth.internal.optionalUntil={until}")
    assert "internal calls without a credential" not in notes("auth.mode=none")


def test_notes_command_selects_service_pods() -> None:
    """The selector in the notes matches the labels of the service's pods."""
    sets = "product.database.existingSecret=mine"
    [command] = (line for line in notes(sets).splitlines() if "describe pod" in line)
    asked = dict(each.split("=") for each in command.rpartition(" ")[2].split(","))
    labels = {pod: metadata["labels"] for pod, metadata, _ in pods("--set", sets)}
    assert asked.items() <= labels["Deployment/shop-shopping-cart-product"].items()
    assert not asked.items() <= labels["Deployment/shop-shopping-cart-order"].items()
