"""Changes a database's password while a release uses it."""

from base64 import b64encode
from uuid import uuid4

from tests.support.kube import CommandFailed, Namespace
from tests.support.release import Release


def role_accepts(release: Release, service: str, password: str) -> bool:
    """Returns whether a bundled database accepts a password for its service's role."""
    # Through the pod's own address, since loopback needs no password.
    ask = 'read -r PGPASSWORD && export PGPASSWORD && psql -At -h "$(hostname -i)" -U "$0" -d "$0" -c "SELECT 1"'
    try:
        return "1" in _psql_shell(release.namespace, release.pod(f"{service}-db"), ask, service, password + "\n")
    except CommandFailed:
        return False


def end_sessions(release: Release, service: str) -> int:
    """Ends the sessions of a service in its bundled database. Returns how many there were."""
    ask = """psql -At -U postgres -d postgres -v "user=$0" -f -"""
    sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = :'user'"
    return int(_psql_shell(release.namespace, release.pod(f"{service}-db"), ask, service, sql))


def _psql_shell(place: Namespace, pod: str, script: str, argument: str, stdin: str = "") -> str:
    return place.execute(pod, "bash", "-c", script, argument, stdin=stdin)


def files_have(release: Release, service: str, password: str) -> bool:
    """Returns whether every pod of a service has a password in its files, where the kubelet puts it."""
    return all(
        release.namespace.execute(pod["metadata"]["name"], "cat", "/credentials/password") == password
        for pod in release.pods(service)
    )


def refresh_files(release: Release, *components: str) -> None:
    """Brings changed Secrets into pods at once. The kubelet does it by itself, within a minute and a half.

    It looks at the volumes of a pod whenever the pod changes, even if that is an annotation.
    """
    for component in components:
        release.namespace.kubectl(
            "annotate", "pods", "--selector", release.selector(component), "--overwrite", f"test/refresh={uuid4().hex}"
        )


def patch(place: Namespace, secret: str, key: str, value: str) -> None:
    """Changes one key of a Secret, as External Secrets or `kubectl patch` does."""
    data = b64encode(value.encode()).decode()
    place.kubectl("patch", "secret", secret, "--type=merge", "--patch", f'{{"data": {{"{key}": "{data}"}}}}')
