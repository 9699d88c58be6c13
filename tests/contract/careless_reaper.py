"""A reaper that kills the program that it started, but not what that one started: for a planted fault."""

import os
import signal
import sys

status_fd, command = int(sys.argv[1]), sys.argv[2:]
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
child = os.fork()
if child == 0:
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    os.execvp(command[0], command)
if signal.sigwait({signal.SIGTERM, signal.SIGCHLD}) == signal.SIGTERM:
    os.kill(child, signal.SIGKILL)
os.write(status_fd, str(os.waitpid(child, 0)[1]).encode())
