"""The command line of the shop on this machine."""

import signal
import sys


def main() -> int:
    """Runs the command line. Returns the exit status."""
    # Signals stay blocked until the shop handles them: a Ctrl-C during the imports would print a traceback.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    from local import commands

    return commands.main()


if __name__ == "__main__":
    sys.exit(main())
