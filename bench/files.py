"""Open files: each watcher is one in the sidecar and one in Envoy."""

import resource


class TooFewFilesError(Exception):
    """The system does not let us open enough files; the message is for people."""


def allow(needed: int) -> None:
    """Raises the limit for this process and those that it starts. Raises TooFewFilesError where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    most = hard if hard == resource.RLIM_INFINITY else max(hard, needed)  # beyond `hard`, only root may
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))
    except (ValueError, OSError):
        message = f"a process needs {needed:,} open files and may have {hard:,}: raise its hard limit (ulimit -Hn)"
        raise TooFewFilesError(message) from None
