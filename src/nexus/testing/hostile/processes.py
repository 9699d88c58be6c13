"""Programs that multiply, hide, refuse to end, or end others."""

from nexus.testing.hostile.program import Hostile

_BEAT_FILE = "/tmp/beat"  # noqa: S108 - the guest's
_BEAT = """
def beat():
    while True:
        with open("/tmp/beat", "a") as file:
            file.write("x")
        time.sleep(0.02)
"""

PROGRAMS = (
    Hostile(
        "fork bomb",
        """
while True:
    try: os.fork()
    except OSError: pass
""",
        ending="timed out",
        timeout=1,
    ),
    Hostile(
        "fork bomb of the shell",
        "bomb() { bomb | bomb & }; bomb; sleep 60",
        ending="timed out",
        language="bash",
        timeout=1,
    ),
    Hostile(
        "fork bomb that its first process leaves",
        "bomb() { bomb | bomb & }; bomb; echo held",
        ending="either",
        language="bash",
        timeout=3,
    ),
    Hostile(
        "threads without end",
        """
try:
    while True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
except (RuntimeError, MemoryError): held()
os._exit(0)
""",
        ending="either",
        timeout=3,
    ),
    Hostile(
        "processes on every core",
        """
for _ in range(5): os.fork()
while True: pass
""",
        ending="timed out",
        timeout=1,
    ),
    Hostile(
        "a chain of processes",
        """
for _ in range(30):
    if os.fork(): break
time.sleep(60)
""",
        ending="timed out",
        timeout=1,
    ),
    Hostile(
        "a daemon",
        _BEAT
        + """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.chdir("/")
        for fd in range(3): os.close(fd)
        beat()
    os._exit(0)
time.sleep(0.1)
held()
""",
        stills=_BEAT_FILE,
    ),
    Hostile(
        "a daemon that ignores signals and outlives a time-out",
        _BEAT
        + """
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
if os.fork() == 0:
    os.setsid()
    beat()
time.sleep(60)
""",
        ending="timed out",
        timeout=1,
        stills=_BEAT_FILE,
    ),
    Hostile(
        "a daemon of the shell",
        """
(setsid nohup sh -c 'while echo x >> /tmp/beat; do sleep 0.02; done' &) ; sleep 0.1; echo held
""",
        language="bash",
        stills=_BEAT_FILE,
    ),
    Hostile(
        "an orphan that holds standard output",
        """
if os.fork() == 0:
    time.sleep(60)
held()
os._exit(0)
""",
        within=3,
    ),
    Hostile(
        "a grandchild that holds standard error",
        "(sleep 60 >/dev/null </dev/null &); echo held",
        language="bash",
        within=3,
    ),
    Hostile(
        "sleeping past the time-out",
        "time.sleep(60)",
        ending="timed out",
        timeout=1,
    ),
    Hostile(
        "looping past the time-out",
        "while True: pass",
        ending="timed out",
        timeout=1,
    ),
    Hostile(
        "ignoring every signal",
        """
for n in range(1, 65):
    try: signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: time.sleep(0.01)
""",
        ending="timed out",
        timeout=1,
    ),
    Hostile(
        "trapping what a shell can",
        "trap '' TERM INT HUP QUIT; while :; do sleep 0.05; done",
        ending="timed out",
        language="bash",
        timeout=1,
    ),
    Hostile(
        "stopping itself",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        ending="timed out",
        timeout=1,
    ),
    Hostile(
        "becoming another program",
        'os.execvp("sleep", ["[kworker/0:0]", "60"])',
        ending="timed out",
        timeout=1,
    ),
    Hostile(
        "kill -9 -1",
        """
import signal
os.kill(-1, signal.SIGKILL)
""",
        ending="any",
    ),
    Hostile(
        "killing every process by its number",
        """
for pid in range(1, 3000):
    if pid != os.getpid():
        for n in (signal.SIGTERM, signal.SIGKILL):
            try: os.kill(pid, n)
            except OSError: pass
time.sleep(0.1)
held()
""",
    ),
    Hostile(
        "stopping every process",
        """
for pid in (1, os.getppid(), -1):
    try: os.kill(pid, signal.SIGSTOP)
    except OSError: pass
time.sleep(0.1)
held()
""",
    ),
    Hostile(
        "signals without end to its parent",
        """
for _ in range(20000):
    for pid in (1, os.getppid()):
        try: os.kill(pid, signal.SIGUSR1)
        except OSError: pass
held()
""",
    ),
    Hostile(
        "children that nobody reaps",
        """
for _ in range(40):
    if os.fork() == 0: os._exit(0)
time.sleep(0.1)
held()
""",
    ),
    Hostile(
        "a crash",
        "ctypes.string_at(0)",
        ending="killed",
        exit_code=139,
    ),
    Hostile(
        "aborting",
        "os.abort()",
        ending="killed",
        exit_code=134,
    ),
    Hostile(
        "killing itself",
        "os.kill(os.getpid(), signal.SIGKILL)",
        ending="killed",
        exit_code=137,
    ),
)
