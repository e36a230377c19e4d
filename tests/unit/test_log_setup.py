"""What a process writes to standard output, by its configuration."""

import json
import os
import subprocess
import sys

SCRIPT = """
import logging
from runtime import logs
logs.setup("test", {"": "WARNING", "order": "ERROR", "order.jobs": "DEBUG"})
for name in ("shop.rpc", "order", "order.jobs.relay", "psycopg.pool"):
    logging.getLogger(name).debug("debug of %s", name)
    logging.getLogger(name).warning("warning of %s", name)
"""


def test_lines_are_json_elsewhere_than_on_a_terminal() -> None:
    result = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True, timeout=60)
    lines = [json.loads(line)["message"] for line in result.stdout.splitlines()]
    assert lines == ["warning of shop.rpc", "debug of order.jobs.relay", "warning of order.jobs.relay"]


def test_lines_are_text_on_a_terminal() -> None:
    terminal, stdout = os.openpty()
    try:
        subprocess.run([sys.executable, "-c", SCRIPT], check=True, stdout=stdout, timeout=60)
        text = os.read(terminal, 10_000).decode()
    finally:
        os.close(stdout)
        os.close(terminal)
    assert "WARNING shop.rpc: warning of shop.rpc\r\n" in text
    assert "{" not in text
