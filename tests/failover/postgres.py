"""A CloudNativePG cluster: what it reports, and what can happen to it."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from tests.support.kube import Namespace, Object

KIND = "clusters.postgresql.cnpg.io"
HEALTHY = "Cluster in healthy state"
KILL = 'for p in /proc/[0-9]*; do [[ $(<"$p/comm") == postgres ]] && kill -9 "${p#/proc/}"; done 2>/dev/null; true'

_TIMES = """
    SELECT extract(epoch FROM pg_postmaster_start_time()), extract(epoch FROM min(backend_start))
    FROM pg_stat_replication WHERE application_name LIKE '%-db-%'
    """

Effect = Callable[[], bool]
"""Returns whether a fault has had its effect."""


@dataclass(frozen=True)
class Postgres:
    """The database of a service."""

    namespace: Namespace
    service: str

    @property
    def name(self) -> str:
        return f"{self.service}-db"

    def status(self) -> Object:
        status: Object = self.namespace.one(KIND, self.name)["status"]
        return status

    def healthy(self) -> bool:
        """Returns whether all instances are ready, and the operator has nothing to do."""
        found = self.namespace.one(KIND, self.name)
        status = found["status"]
        return bool(status.get("phase") == HEALTHY and status.get("readyInstances") == found["spec"]["instances"])

    def moments(self, since: float) -> tuple[float, float, float]:
        """Returns when the primary was chosen, when it was promoted, and when the first standby of now connected to it.

        If it has been the primary since before `since`, the first two are the starts of its container and PostgreSQL.
        All are in seconds since the epoch.
        """
        status = self.status()
        primary = status["currentPrimary"]
        started, standby = self._sql(primary, _TIMES).split("|")
        chosen, promoted = _epoch(status["targetPrimaryTimestamp"]), _epoch(status["currentPrimaryTimestamp"])
        if promoted < since:
            container = self.namespace.one("pod", primary)["status"]["containerStatuses"][0]
            chosen, promoted = _epoch(container["state"]["running"]["startedAt"]), float(started)
        return chosen, promoted, float(standby or 0)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Connects to the primary as the service does."""
        secret = self.namespace.one("secret", f"{self.name}-app")["data"]
        keys = {"user": "username", "password": "password", "dbname": "dbname"}
        credentials: dict[str, Any] = {name: base64.b64decode(secret[key]).decode() for name, key in keys.items()}
        with self.namespace.forward(f"pod/{self._primary()}", 5432) as port:
            async with await psycopg.AsyncConnection.connect(
                host="127.0.0.1", port=port, autocommit=True, sslmode="require", connect_timeout=10, **credentials
            ) as connection:
                yield connection

    # --- faults

    def delete_primary(self) -> Effect:
        primary = self._primary()
        self.namespace.kubectl("delete", "pod", primary, "--wait=false")
        return lambda: self._primary() != primary

    def kill_primary(self) -> Effect:
        """Ends all processes of the primary's PostgreSQL with SIGKILL."""
        primary = self._primary()
        before = self._restarts(primary)
        self.namespace.kubectl("exec", primary, "--container", "postgres", "--", "bash", "-c", KILL)
        # The kubelet may start it again before the operator promotes a replica.
        return lambda: self._primary() != primary or self._restarts(primary) > before

    def switch_over(self) -> Effect:
        """Asks for another primary, as `kubectl cnpg promote` does."""
        status = self.status()
        primary = status["currentPrimary"]
        target = next(each for each in status["instanceNames"] if each != primary)
        wanted = {
            "targetPrimary": target,
            "targetPrimaryTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "phase": "Switchover in progress",
            "phaseReason": f"Switching over to {target}",
        }
        patch = json.dumps({"status": wanted})
        self.namespace.kubectl("patch", KIND, self.name, "--subresource=status", "--type=merge", "--patch", patch)
        return lambda: self._primary() == target

    def lose_replica(self) -> Effect:
        """Takes away a replica and its volume, as the loss of its node would."""
        before = set(self.status()["instanceNames"])
        replica = min(before - {self._primary()})
        self.namespace.kubectl("exec", replica, "--container", "postgres", "--", "bash", "-c", KILL)
        self.namespace.kubectl("delete", f"pvc/{replica}", "--wait=false")
        self.namespace.kubectl("delete", f"pod/{replica}", "--force", "--grace-period=0", "--wait=false")
        # Another one with a new number comes in its place.
        return lambda: not set(self.status()["instanceNames"]) <= before

    def _sql(self, pod: str, query: str) -> str:
        return self.namespace.execute(pod, "psql", "-At", "-c", query, container="postgres").strip()

    def _primary(self) -> str:
        return str(self.status()["currentPrimary"])

    def _restarts(self, pod: str) -> int:
        return int(self.namespace.one("pod", pod)["status"]["containerStatuses"][0]["restartCount"])


def _epoch(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
