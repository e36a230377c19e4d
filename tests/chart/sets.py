"""The documented sets of values. Tests render, lint and validate each, and compare it with its golden file."""

DIGEST = "sha256:" + 64 * "0"

SETS: dict[str, tuple[str, ...]] = {
    "default": (),
    "production": ("--values", "helm/shopping-cart/values-production.yaml"),
    "cnpg": ("--values", "k8s/cnpg/values-cnpg.yaml"),
    "cnpg-pooler": (
        "--values", "k8s/cnpg/values-cnpg.yaml", "--values", "k8s/cnpg/values-pooler.yaml",
        "--values", "k8s/cnpg/values-read-only.yaml",
    ),
    "autoscaling": ("--values", "k8s/autoscaling/values-autoscaling.yaml"),
    "gateway-api": ("--values", "k8s/values-gateway-api.yaml"),
    "demo-issuer": ("--set", "auth.mode=jwt,auth.demoIssuer.enabled=true"),
    # Everything that no documented set uses.
    "options": (
        "--values", "tests/chart/values-options.yaml",
        "--set", "image.repository=registry.example.com:5000/shop", "--set", f"image.digest={DIGEST}",
        "--set", f"postgresql.image.digest={DIGEST}", "--set", f"gateway.envoy.image.digest={DIGEST}",
        "--set", "imagePullSecrets[0].name=registry",
        "--set", "product.database.password=it's secret", "--set", "order.database.password=other",
        "--set", "order.podAnnotations.example\\.com/note=kept", "--set", "order.podLabels.tier=backend",
        "--set", "order.nodeSelector.disk=fast", "--set", "order.priorityClassName=high",
        "--set", "order.tolerations[0].operator=Exists", "--set", "order.serviceAccount.name=mine",
        "--set", "gateway.autoscaling.enabled=true", "--set", "gateway.trustedHops=2",
        "--set", "gateway.service.type=NodePort,gateway.service.nodePort=30080",
        "--set", "telemetry.endpoint=http://collector:4318,telemetry.protocol=http/protobuf",
        "--set", "ingress.enabled=true,ingress.className=nginx,ingress.hosts[0]=shop.example.com",
        "--set", "networkPolicy.from[0].namespaceSelector.matchLabels.name=ingress",
        "--set", "postgresql.storage.className=fast",
    ),
    "minimal": (
        "--set", "networkPolicy.enabled=false,demo.enabled=false,product.podDisruptionBudget.enabled=false",
        "--set", "tests.enabled=false,postgresql.storage.enabled=false,adaptSecurityContext=force",
        "--set", "gateway.service.type=LoadBalancer,gateway.service.loadBalancerClass=example.com/lb",
        "--set", "gateway.service.loadBalancerSourceRanges={192.0.2.0/24,2001:db8::/32}",
        "--set", "gateway.service.allocateLoadBalancerNodePorts=false",
    ),
}  # fmt: skip
