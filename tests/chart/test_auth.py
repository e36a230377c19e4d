"""Who may call: what `auth` renders, and which values contradict each other."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart import tools
from tests.chart.pods import containers, pods, spec, variables
from tests.chart.sets import SETS

PROVIDER = "auth.mode=jwt,auth.issuer=https://login.example.com,auth.audience=shop,demo.enabled=false"
CALLED = ("product", "order", "gateway")
"""Components that decide who may call."""


def settings(component: str, sets: str) -> dict[str, Any]:
    """Returns the variables of a component's own container."""
    container = spec(f"Deployment/shop-shopping-cart-{component}", "--set", sets)["containers"][0]
    return variables(container)


def mounted(sets: str, secret: str) -> set[str]:
    """Returns `pod/container` for each container that has a Secret or ConfigMap, by the name without the prefix."""
    found = set()
    for pod, _, pod_spec in pods("--set", sets):
        names = {
            volume["name"]
            for volume in pod_spec.get("volumes", [])
            for source in ("secret", "configMap")
            if secret in (volume.get(source, {}).get("secretName"), volume.get(source, {}).get("name"))
        }
        for container in containers(pod_spec):
            for mount in container.get("volumeMounts", []):
                if mount["name"] in names:
                    assert mount["readOnly"] is True
                    assert "subPath" not in mount, "a mounted file does not change with its Secret"
                    found.add(f"{pod.partition('/')[2].removeprefix('shop-shopping-cart-')}/{container['name']}")
    return found


def named(kind: str, component: str, sets: str) -> list[dict[str, Any]]:
    name = f"shop-shopping-cart-{component}"
    return [each for each in tools.objects("--set", sets) if (each["kind"], each["metadata"]["name"]) == (kind, name)]


@pytest.mark.parametrize("sets", ["auth.mode=none", "auth.mode=jwt,auth.demoIssuer.enabled=true"])
def test_secrets_are_mounted_only_where_needed(sets: str) -> None:
    """Envoy has none of them: it removes the credential from requests."""
    assert mounted(sets, "shop-shopping-cart-internal") == {"product/product", "order/order", "gateway/sse"}
    assert mounted(sets, "shop-shopping-cart-tickets") == {"order/order"}


def test_secrets_are_generated_apart() -> None:
    secrets = [named("Secret", component, "auth.mode=none")[0]["data"] for component in ("internal", "tickets")]
    assert [each.keys() for each in secrets] == [{"current"}, {"current"}]
    first, second = (base64.b64decode(each["current"]).decode() for each in secrets)
    assert first != second
    assert len(first) == len(second) == 64
    assert (first + second).isalnum()


def test_existing_secrets_replace_generated_ones() -> None:
    sets = "auth.internal.existingSecret=mine,auth.tickets.existingSecret=ours"
    assert not named("Secret", "internal", sets)
    assert not named("Secret", "tickets", sets)
    assert mounted(sets, "mine") == {"product/product", "order/order", "gateway/sse"}
    assert mounted(sets, "ours") == {"order/order"}


def test_mode_none_sets_no_token_variables() -> None:
    """The services refuse to start with them."""
    for component in CALLED:
        found = settings(component, "auth.mode=none")
        assert {name for name in found if name.startswith("AUTH_")} <= {"AUTH_STREAM_TICKET_TTL"}
        assert found["INTERNAL_CREDENTIALS"] == "/internal-credentials"
        assert "INTERNAL_CREDENTIALS_OPTIONAL_UNTIL" not in found
        assert "REFLECTION" not in found
        assert ("TICKET_KEYS" in found) == (component == "order")


@pytest.mark.parametrize("component", CALLED)
def test_provider_values_become_variables(component: str) -> None:
    sets = (
        f"{PROVIDER},auth.audience={{shop,api}},auth.jwks.url=https://login.example.com/keys,auth.jwks.refresh=60"
        ",auth.algorithms={EdDSA,ES256},auth.leeway=5,auth.staff.claim=realm_access.roles,auth.staff.value=staff"
        ",auth.guests=false,auth.reflection.enabled=false,auth.ca.secretName=authority"
    )
    found = settings(component, sets)
    assert {name: value for name, value in found.items() if name.startswith("AUTH_")} == {
        "AUTH_MODE": "jwt",
        "AUTH_ISSUER": "https://login.example.com",
        "AUTH_AUDIENCE": "shop,api",
        "AUTH_JWKS_URL": "https://login.example.com/keys",
        "AUTH_JWKS_REFRESH": "60",
        "AUTH_ALGORITHMS": "EdDSA,ES256",
        "AUTH_LEEWAY": "5",
        "AUTH_STAFF_CLAIM": "realm_access.roles",
        "AUTH_STAFF_VALUE": "staff",
        "AUTH_GUESTS": "false",
        **({"AUTH_STREAM_TICKET_TTL": "3600"} if component == "order" else {}),
    }
    assert found["REFLECTION"] == "false"
    assert found["SSL_CERT_FILE"] == "/issuer-ca/ca.crt"
    assert mounted(sets, "authority") == {"product/product", "order/order", "gateway/sse"}


@pytest.mark.parametrize("kind", ["secretName", "configMapName"])
def test_key_file_is_mounted_and_not_fetched(kind: str) -> None:
    sets = f"{PROVIDER},auth.jwks.{kind}=keys,auth.jwks.key=set.json"
    assert mounted(sets, "keys") == {"product/product", "order/order", "gateway/sse"}
    for component in CALLED:
        found = settings(component, sets)
        assert found["AUTH_JWKS_FILE"] == "/jwks/set.json"
        assert not {"AUTH_JWKS_URL", "AUTH_JWKS_REFRESH"} & found.keys()
        [policy] = named("NetworkPolicy", component, sets)
        assert not [rule for rule in policy["spec"]["egress"] if rule["ports"] == [{"port": 443, "protocol": "TCP"}]]


@pytest.mark.parametrize("component", CALLED)
def test_policies_admit_fetching_of_keys(component: str) -> None:
    peers = "auth.egress.to[0].ipBlock.cidr=192.0.2.0/24,auth.egress.port=8443"
    [policy] = named("NetworkPolicy", component, f"{PROVIDER},{peers}")
    rule = {"ports": [{"port": 8443, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}
    assert rule in policy["spec"]["egress"]
    [policy] = named("NetworkPolicy", component, PROVIDER)
    assert {"ports": [{"port": 443, "protocol": "TCP"}]} in policy["spec"]["egress"]


def test_optional_credential_can_be_set_by_hand() -> None:
    sets = "auth.internal.optionalUntil=2026-01-31T12:00:00Z"
    found = {each: settings(each, sets).get("INTERNAL_CREDENTIALS_OPTIONAL_UNTIL") for each in CALLED}
    assert found == {"product": "2026-01-31T12:00:00Z", "order": "2026-01-31T12:00:00Z", "gateway": None}


def deployment(*variables: tuple[str, str]) -> dict[str, Any]:
    env = [{"name": name, "value": value} for name, value in variables]
    return {"spec": {"template": {"spec": {"containers": [{"name": "proxy"}, {"name": "product", "env": env}]}}}}


SENDS = ("INTERNAL_CREDENTIALS", "/internal-credentials")
UNTIL = "INTERNAL_CREDENTIALS_OPTIONAL_UNTIL"


@pytest.mark.parametrize(
    ("live", "until"),
    [
        ({}, ""),
        (deployment(), "2026-01-31T13:00:00Z"),
        (deployment(SENDS), ""),
        (deployment(SENDS, (UNTIL, "2026-01-31T12:30:00Z")), "2026-01-31T12:30:00Z"),
        (deployment(SENDS, (UNTIL, "2026-01-31T14:30:00+02:00")), "2026-01-31T14:30:00+02:00"),
        (deployment(SENDS, (UNTIL, "2026-01-31T11:59:59Z")), ""),
    ],
)
def test_upgrade_accepts_missing_credential_for_an_hour(live: dict[str, Any], until: str, tmp_path: Path) -> None:
    """Pods of a release without a credential send none. A second upgrade in that hour must not end it early."""
    now = '(toDate "2006-01-02T15:04:05Z07:00" "2026-01-31T12:00:00Z")'
    arguments = f'(dict "live" (fromJson `{json.dumps(live)}`) "now" {now})'
    data = {"until": f'{{{{ include "shopping-cart.auth.acceptMissingUntil" {arguments} }}}}'}
    probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}, "data": data}
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"extraObjects": [probe]}, width=10_000))
    [found] = tools.objects("--values", str(file), "--show-only", "templates/extra-objects.yaml")
    assert (found["data"]["until"] or "") == until


DEMO = "auth.mode=jwt,auth.demoIssuer.enabled=true"


def test_demo_issuer_configures_the_services() -> None:
    address = "http://shop-shopping-cart-issuer:8082"
    for component in CALLED:
        found = settings(component, DEMO)
        assert (found["AUTH_ISSUER"], found["AUTH_AUDIENCE"]) == (address, "shop")
        assert "AUTH_JWKS_URL" not in found, "the issuer is discovered as a provider is"
        [policy] = named("NetworkPolicy", component, DEMO)
        assert {"port": 8082, "protocol": "TCP"} in [rule["ports"][0] for rule in policy["spec"]["egress"]]
    [service] = named("Service", "issuer", DEMO)
    assert service["spec"]["ports"][0]["port"] == 8082


def test_only_issuer_and_demo_have_the_signing_key() -> None:
    holders = mounted(DEMO, "shop-shopping-cart-issuer")
    assert {each.partition("-r1-")[0] for each in holders} == {"issuer/issuer", "demo/simulate", "demo-load"}
    for name in (
        "Deployment/shop-shopping-cart-issuer",
        "Deployment/shop-shopping-cart-demo",
        "Job/shop-shopping-cart-demo",
    ):
        found = variables(spec(name, "--set", DEMO)["containers"][0])
        assert found["ISSUER_KEY"] == "/issuer-key/key.pem"
        assert found["AUTH_STAFF_VALUE"] == "shop:staff"
    [secret] = named("Secret", "issuer", DEMO)
    assert base64.b64decode(secret["data"]["key.pem"]).startswith(b"-----BEGIN EC PRIVATE KEY-----")


def test_demo_issuer_reaches_nothing() -> None:
    [policy] = named("NetworkPolicy", "issuer", DEMO)
    assert [[port["port"] for port in rule["ports"]] for rule in policy["spec"]["egress"]] == [[53, 53]]
    [rule] = policy["spec"]["ingress"]
    callers = [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in rule["from"]]
    assert callers == list(CALLED)


def test_gateway_reaches_the_demo_issuer() -> None:
    """For keys, and for the tokens that it gives to anyone at /demo/token."""
    [policy] = named("NetworkPolicy", "gateway", DEMO)
    reached = {
        (rule["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"], rule["ports"][0]["port"])
        for rule in policy["spec"]["egress"]
        if "to" in rule and "podSelector" in rule["to"][0]
    }
    assert ("issuer", 8082) in reached
    [config] = named("ConfigMap", "gateway", DEMO)
    assert "path: /demo/token" in config["data"]["envoy.yaml"]
    assert "shop-shopping-cart-issuer" in config["data"]["envoy.yaml"].partition("- name: issuer\n")[2]


@pytest.mark.parametrize("sets", ["auth.mode=none", PROVIDER])
def test_no_tokens_are_given_without_the_demo_issuer(sets: str) -> None:
    [config] = named("ConfigMap", "gateway", sets)
    assert "/demo/token" not in config["data"]["envoy.yaml"]


@pytest.mark.parametrize("name", SETS)
def test_issuer_exists_only_if_enabled(name: str) -> None:
    found = {each["kind"] for each in tools.objects(*SETS[name]) if each["metadata"]["name"].endswith("-issuer")}
    everything = {"Deployment", "NetworkPolicy", "Secret", "Service", "ServiceAccount"}
    assert found == (everything if name == "demo-issuer" else set())


ALONE = "auth.mode=jwt,demo.enabled=false"


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ("auth.issuer=https://a", "auth.issuer has no effect with auth.mode none"),
        ("auth.audience=shop", "auth.audience has no effect with auth.mode none"),
        ("auth.jwks.url=https://a", "auth.jwks.url has no effect with auth.mode none"),
        ("auth.demoIssuer.enabled=true", "auth.demoIssuer.enabled has no effect with auth.mode none"),
        ("auth.guests=false", "auth.guests: false has no effect with auth.mode none"),
        *(
            (f"{mode},{each}[0].name=CALLER_HEADER,{each}[0].value=x-user", f"CALLER_HEADER in {each} cannot be used")
            for each in ("product.extraEnv", "order.extraEnv", "gateway.sse.extraEnv")
            for mode in (PROVIDER, DEMO)
        ),
        (ALONE, "auth.issuer is missing"),
        (f"{ALONE},auth.issuer=https://a", "auth.audience is missing"),
        (f"{ALONE},auth.audience=shop,auth.issuer=shop", "the keys of shop cannot be discovered"),
        (
            f"{PROVIDER},auth.jwks.url=https://a,auth.jwks.secretName=b",
            "set only one of url, secretName and configMapName",
        ),
        (f"{PROVIDER},demo.enabled=true", "demo.enabled needs auth.demoIssuer.enabled with auth.mode jwt"),
        (f"{PROVIDER},auth.demoIssuer.enabled=true", "auth.issuer cannot be used with auth.demoIssuer.enabled"),
        (f"{DEMO},auth.jwks.secretName=a", "auth.jwks.secretName cannot be used with auth.demoIssuer.enabled"),
    ],
)
def test_contradiction_is_rejected(sets: str, message: str) -> None:
    done = tools.run("template", "shop", str(tools.CHART), "--set", sets)
    assert done.returncode != 0
    assert message in done.stderr


def test_issuer_without_url_needs_keys() -> None:
    sets = f"{ALONE},auth.audience=shop,auth.issuer=shop,auth.jwks.configMapName=keys"
    assert settings("product", sets)["AUTH_ISSUER"] == "shop"
