"""Programs that multiply, hide, refuse to end, or end others."""

from nexus.testing.hostile.program import Hostile

_BEAT = """
def beat():
    while True:
        with open("/tmp/beat", "a") as file:
            file.write("x")
        time.sleep(0.02)
"""

PROGRAMS = (
    Hostile("fork bomb", "while True:\n    try: os.fork()\n    except OSError: pass", "timed out", timeout=1),
    Hostile("fork bomb of the shell", "bomb() { bomb | bomb & }; bomb; sleep 60", "timed out", "bash", timeout=1),
    Hostile(
        "fork bomb that its first process leaves",
        "bomb() { bomb | bomb & }; bomb; echo held",
        "either",
        "bash",
        timeout=3,
    ),
    Hostile(
        "threads without end",
        "try:\n    while True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "except (RuntimeError, MemoryError): held()\nos._exit(0)",
        "either",
        timeout=3,
    ),
    Hostile("processes on every core", "for _ in range(8): os.fork()\nwhile True: pass", "timed out", timeout=1),
    Hostile(
        "a chain of processes", "for _ in range(30):\n    if os.fork(): break\ntime.sleep(60)", "timed out", timeout=1
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
        stills="/tmp/beat",
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
        "timed out",
        timeout=1,
        stills="/tmp/beat",
    ),
    Hostile(
        "a daemon of the shell",
        "(setsid nohup sh -c 'while echo x >> /tmp/beat; do sleep 0.02; done' &) ; sleep 0.1; echo held",
        language="bash",
        stills="/tmp/beat",
    ),
    Hostile(
        "an orphan that holds standard output", "if os.fork() == 0:\n    time.sleep(60)\nheld()\nos._exit(0)", within=3
    ),
    Hostile(
        "a grandchild that holds standard error",
        "(sleep 60 >/dev/null </dev/null &); echo held",
        language="bash",
        within=3,
    ),
    Hostile("sleeping past the time-out", "time.sleep(60)", "timed out", timeout=1),
    Hostile("looping past the time-out", "while True: pass", "timed out", timeout=1),
    Hostile(
        "ignoring every signal",
        "for n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
        "while True: time.sleep(0.01)",
        "timed out",
        timeout=1,
    ),
    Hostile(
        "trapping what a shell can",
        "trap '' TERM INT HUP QUIT; while :; do sleep 0.05; done",
        "timed out",
        "bash",
        timeout=1,
    ),
    Hostile("stopping itself", "os.kill(os.getpid(), signal.SIGSTOP)", "timed out", timeout=1),
    Hostile("becoming another program", 'os.execvp("sleep", ["[kworker/0:0]", "60"])', "timed out", timeout=1),
    Hostile("kill -9 -1", "import signal\nos.kill(-1, signal.SIGKILL)", "any"),
    Hostile(
        "killing every process by its number",
        "for pid in range(1, 3000):\n    if pid != os.getpid():\n        for n in (signal.SIGTERM, signal.SIGKILL):\n"
        "            try: os.kill(pid, n)\n            except OSError: pass\ntime.sleep(0.1)\nheld()",
    ),
    Hostile(
        "stopping every process",
        "for pid in (1, os.getppid(), -1):\n    try: os.kill(pid, signal.SIGSTOP)\n    except OSError: pass\ntime.sleep(0.1)\nheld()",
    ),
    Hostile(
        "signals without end to its parent",
        "for _ in range(20000):\n    for pid in (1, os.getppid()):\n"
        "        try: os.kill(pid, signal.SIGUSR1)\n        except OSError: pass\nheld()",
    ),
    Hostile(
        "children that nobody reaps", "for _ in range(40):\n    if os.fork() == 0: os._exit(0)\ntime.sleep(0.1)\nheld()"
    ),
    Hostile("a crash", "ctypes.string_at(0)", "killed", exit_code=139),
    Hostile("aborting", "os.abort()", "killed", exit_code=134),
    Hostile("killing itself", "os.kill(os.getpid(), signal.SIGKILL)", "killed", exit_code=137),
)
