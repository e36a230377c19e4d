"""A PostgreSQL of the tests' own in a cluster: what somebody brings who uses no database of the chart's."""

from tests.support.kube import Namespace

START = """
export PATH=$(echo /usr/lib/postgresql*/bin /usr/lib/postgresql/*/bin | tr ' ' ':'):$PATH
initdb --pgdata /tmp/data --username postgres >/dev/null
echo 'host all all all scram-sha-256' >>/tmp/data/pg_hba.conf
exec postgres -D /tmp/data -c listen_addresses='*' -c unix_socket_directories=/tmp
"""
"""By itself, and not by an image's entrypoint: it has to work for any PostgreSQL."""

ROLE = "shop"
PASSWORD = "it's a secret"  # a quote in it, which no shell and no SQL may stumble over


def start(namespace: Namespace, name: str, image: str, *databases: str) -> None:
    """A pod and a Service `name` with these databases, each owned by ROLE."""
    namespace.pod(name, image, ["bash", "-euc", START], uid=999)
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": 5432}]},
        }
    )
    namespace.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=90s")
    sql = [f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD.replace(chr(39), 2 * chr(39))}'"]
    sql += [f"CREATE DATABASE {each} OWNER {ROLE}" for each in databases]
    ask = "export PATH=$(echo /usr/lib/postgresql*/bin /usr/lib/postgresql/*/bin | tr ' ' ':'):$PATH; "
    wait = "for i in $(seq 60); do pg_isready -qh /tmp && break; sleep 0.5; done; "
    namespace.execute(
        name, "bash", "-c", f"{ask}{wait}psql -qh /tmp -U postgres -v ON_ERROR_STOP=1", stdin=";\n".join(sql) + ";\n"
    )


def secret(namespace: Namespace, name: str, keys: dict[str, str]) -> None:
    namespace.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys})
