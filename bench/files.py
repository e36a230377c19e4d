"""Open files: each watcher needs one in the sidecar and one in Envoy."""

import resource


class TooFewFilesError(Exception):
    """This process may not open enough files. The message is for people."""


def allow(needed: int) -> None:
    """Lets this process and its children open so many files. Raises TooFewFilesError if that is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    new_hard = hard if hard == resource.RLIM_INFINITY else max(hard, needed)  # beyond `hard`, only root may
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, new_hard))
    except (ValueError, OSError):
        message = f"a process needs {needed:,} open files and may have {hard:,}: raise its hard limit (ulimit -Hn)"
        raise TooFewFilesError(message) from None
