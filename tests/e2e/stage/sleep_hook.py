"""The supervisor's part around a VMM: starts it with a channel and, like the product's sleep hook, says "suspend" at
SIGUSR1 and "resume" at SIGUSR2."""

import signal
import socket
import subprocess
import sys

ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def tell(command):
    return lambda *_: ours.send(b'{"command":"%s"}' % command)


signal.signal(signal.SIGUSR1, tell(b"suspend"))
signal.signal(signal.SIGUSR2, tell(b"resume"))
control = f"fd:{theirs.fileno()}"
# In a session of its own: the signals are meant for this program alone.
vmm = subprocess.Popen(
    [*sys.argv[1:], "--control", control], pass_fds=[theirs.fileno()], start_new_session=True
)
theirs.close()
sys.exit(vmm.wait())
