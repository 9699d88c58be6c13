"""Programs that take all there is."""

from nexus.testing.hostile.program import Hostile

_FILL = """
def fill(folder):
    try:
        with open(folder + "/big", "wb", buffering=0) as file:
            for _ in range(4096): file.write(b"x" * (1 << 20))
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    print("ESCAPED: 4 GiB written", flush=True)
"""

PROGRAMS = (
    Hostile("memory without end", "kept = []\nwhile True: kept.append(bytearray(1 << 24))", "killed"),
    Hostile(
        "memory without end in node", "const a = []; for (;;) a.push(Buffer.alloc(1 << 24, 1));", "killed", "javascript"
    ),
    Hostile(
        "memory in many processes",
        "for _ in range(4): os.fork()\nkept = []\nwhile True: kept.append(bytearray(1 << 22))",
        "any",
        timeout=8,
    ),
    Hostile(
        "anonymous files in memory",
        "fd = os.memfd_create('x')\ntry:\n    for _ in range(4096): os.write(fd, b'x' * (1 << 20))\n"
        "except OSError: held()\nelse: print('ESCAPED: 4 GiB')",
        "any",
        timeout=8,
    ),
    Hostile(
        "a full home", _FILL + "if fill('/home/user') is not None or fill('/tmp') is not None: held()", "any", timeout=8
    ),
    Hostile("a full /tmp and /dev/shm", _FILL + "fill('/tmp')\nfill('/dev/shm')\nheld()", "any", timeout=8),
    Hostile(
        "files without end",
        "try:\n    for i in range(1 << 20): open(f'/tmp/{i}', 'x').close()\nexcept OSError: held()\nelse: print('ESCAPED: a million files')",
        "either",
        timeout=6,
    ),
    Hostile(
        "a file of a terabyte",
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nattempt('sparse', lambda: open('/tmp/sparse', 'wb').truncate(1 << 40))\nheld()",
    ),
    Hostile(
        "folders within folders",
        "try:\n    for _ in range(3000):\n        os.mkdir('d'); os.chdir('d')\nexcept OSError: pass\nheld()",
    ),
    Hostile(
        "descriptors without end",
        "kept = []\ntry:\n    while True: kept.append(os.open('/dev/null', 0))\nexcept OSError: held()",
    ),
    Hostile(
        "pipes full of data",
        "import fcntl\nkept = []\ntry:\n    for _ in range(2000):\n        r, w = os.pipe(); kept += [r, w]\n"
        "        os.set_blocking(w, False)\n        try: fcntl.fcntl(w, 1031, 1 << 20)\n        except OSError: pass\n"
        "        try: os.write(w, bytes(1 << 20))\n        except OSError: pass\nexcept OSError: pass\nheld()",
        "any",
        timeout=5,
    ),
    Hostile(
        "shared memory that stays",
        "for i in range(64):\n    number = libc.shmget(1000 + i, ctypes.c_size_t(64 << 20), 0o1666)\n"
        "    if number >= 0:\n        libc.shmat.restype = ctypes.c_void_p\n        where = libc.shmat(number, None, 0)\n"
        "        if where not in (None, 2**64 - 1): ctypes.memset(where, 1, 64 << 20)\nheld()",
        "any",
        timeout=8,
    ),
    Hostile(
        "arguments and environment of megabytes",
        "attempt('argv', lambda: subprocess.run(['true', 'x' * (3 << 20)]).returncode)\n"
        "attempt('env', lambda: subprocess.run(['true'], env={'A': 'x' * (3 << 20)}).returncode)\nheld()",
    ),
    Hostile(
        "terminals without end",
        "kept = []\ntry:\n    while len(kept) < 6000: kept.append(os.openpty())\nexcept OSError: pass\nheld()",
    ),
    Hostile(
        "watches without end",
        "kept = []\nfor _ in range(5000):\n    fd = libc.inotify_init()\n    if fd < 0: break\n    kept.append(fd)\nheld()",
    ),
    Hostile(
        "raising its own limits",
        "import resource\nfor what in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE):\n"
        "    hard = resource.getrlimit(what)[1]\n    if hard != resource.RLIM_INFINITY:\n"
        "        attempt('limit', resource.setrlimit, what, (hard + 1, hard + 1))\n"
        "attempt('priority', os.setpriority, os.PRIO_PROCESS, 0, -20)\n"
        "attempt('real time', os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))\nheld()",
    ),
    Hostile("standard input that nobody reads", "held()", stdin=b"x" * (4 << 20)),
    Hostile("standard input that is closed early", "os.close(0)\nheld()", stdin=b"x" * (4 << 20)),
    Hostile(
        "recursion without end",
        "sys.setrecursionlimit(1 << 30)\nnest = []\nfor _ in range(1 << 20): nest = [nest]\nrepr(nest)",
        "killed",
    ),
    Hostile("a home that nobody may enter", "os.chmod('/home/user', 0)\nheld()"),
)
