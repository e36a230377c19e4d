"""Prints the names of the metrics at each URL, as a JSON object: `python scrape.py http://host:port/path …`.

The status of a response is printed in place of names if it is not 200. A policy takes a moment to be in force, so a
URL is tried until it responds.
"""

import json
import sys
import time
import urllib.error
import urllib.request

TIMEOUT = 3.0
"""Seconds for a response."""
DEADLINE = 20.0
"""Seconds in which a URL has to respond."""


def scrape(url: str) -> list[str] | int:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            lines = response.read().decode().splitlines()
    except urllib.error.HTTPError as error:
        return error.code
    return sorted({line.partition("{")[0].partition(" ")[0] for line in lines if line and not line.startswith("#")})


def scrape_in_time(url: str) -> list[str] | int:
    end = time.monotonic() + DEADLINE
    while True:
        try:
            return scrape(url)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


print(json.dumps({url: scrape_in_time(url) for url in sys.argv[1:]}))
