"""A PostgreSQL of the tests' own in a cluster: what somebody brings who uses no database of the chart's."""

from tests.support.kube import Namespace

START = """
export PATH=$(echo /usr/lib/postgresql*/bin /usr/lib/postgresql/*/bin | tr ' ' ':'):$PATH
initdb --pgdata /tmp/data --username postgres >/dev/null
echo 'host all all all scram-sha-256' >>/tmp/data/pg_hba.conf
exec postgres -D /tmp/data -c listen_addresses='*' -c unix_socket_directories=/tmp
"""
"""By itself, and not by an image's entrypoint: it has to work for any PostgreSQL."""

_PSQL = """
export PATH=$(echo /usr/lib/postgresql*/bin /usr/lib/postgresql/*/bin | tr ' ' ':'):$PATH
for i in $(seq 60); do pg_isready -qh /tmp && break; sleep 0.5; done
psql -qAth /tmp -U postgres -d "$0" -v ON_ERROR_STOP=1""".strip()

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
    psql(namespace, name, *sql)


def psql(namespace: Namespace, name: str, *statements: str, database: str = "postgres") -> str:
    """What statements print that the superuser runs in a database of such a pod."""
    return namespace.execute(name, "bash", "-c", _PSQL, database, stdin=";\n".join(statements) + ";\n")


def psql_apart(namespace: Namespace, name: str, *statements: str, database: str = "postgres") -> None:
    """As `psql`, and does not wait for its end."""
    script = f"cat >/tmp/apart.$0.sql; ({_PSQL} -f /tmp/apart.$0.sql) >/dev/null 2>&1 &"
    namespace.execute(name, "bash", "-c", script, database, stdin=";\n".join(statements) + ";\n")


def secret(namespace: Namespace, name: str, keys: dict[str, str]) -> None:
    namespace.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys})
