"""The command line of the shop on this machine."""

import signal
import sys


def main() -> int:
    """Runs the command line. Returns the exit status."""
    # Blocked until the shop listens for signals: a Ctrl-C among the imports would print a traceback.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    from local import commands

    return commands.main()


if __name__ == "__main__":
    sys.exit(main())
