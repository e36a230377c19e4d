"""`python -m local up` runs the shop until Ctrl-C; `python -m local reset` throws away what it keeps."""

import signal
import sys


def main() -> int:
    # Until somebody listens, which is after the imports: a Ctrl-C among them would be a traceback.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    from local import commands

    return commands.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
