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
    Hostile(
        "memory without end",
        """
kept = []
while True: kept.append(bytearray(1 << 24))
""",
        ending="killed",
    ),
    Hostile(
        "memory without end in node",
        "const a = []; for (;;) a.push(Buffer.alloc(1 << 24, 1));",
        ending="killed",
        language="javascript",
    ),
    Hostile(
        "memory in many processes",
        """
for _ in range(4): os.fork()
kept = []
while True: kept.append(bytearray(1 << 22))
""",
        ending="any",
        timeout=8,
    ),
    Hostile(
        "anonymous files in memory",
        """
fd = os.memfd_create('x')
try:
    for _ in range(4096): os.write(fd, b'x' * (1 << 20))
except OSError: held()
else: print('ESCAPED: 4 GiB')
""",
        ending="any",
        timeout=8,
    ),
    Hostile(
        "a full home",
        _FILL + "if fill('/home/user') is not None or fill('/tmp') is not None: held()",
        ending="any",
        timeout=8,
    ),
    Hostile(
        "a full /tmp and /dev/shm",
        _FILL
        + """
fill('/tmp')
fill('/dev/shm')
held()
""",
        ending="any",
        timeout=8,
    ),
    Hostile(
        "files without end",
        """
try:
    for i in range(1 << 20): open(f'/tmp/{i}', 'x').close()
except OSError: held()
else: print('ESCAPED: a million files')
""",
        ending="either",
        timeout=6,
    ),
    Hostile(
        "a file of a terabyte",
        """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
attempt('sparse', lambda: open('/tmp/sparse', 'wb').truncate(1 << 40))
held()
""",
    ),
    Hostile(
        "folders within folders",
        """
try:
    for _ in range(3000):
        os.mkdir('d'); os.chdir('d')
except OSError: pass
held()
""",
    ),
    Hostile(
        "descriptors without end",
        """
kept = []
try:
    while True: kept.append(os.open('/dev/null', 0))
except OSError: held()
""",
    ),
    Hostile(
        "pipes full of data",
        """
import fcntl
kept = []
try:
    for _ in range(2000):
        r, w = os.pipe(); kept += [r, w]
        os.set_blocking(w, False)
        try: fcntl.fcntl(w, 1031, 1 << 20)
        except OSError: pass
        try: os.write(w, bytes(1 << 20))
        except OSError: pass
except OSError: pass
held()
""",
        ending="any",
        timeout=5,
    ),
    Hostile(
        "shared memory that stays",
        """
for i in range(64):
    number = libc.shmget(1000 + i, ctypes.c_size_t(64 << 20), 0o1666)
    if number >= 0:
        libc.shmat.restype = ctypes.c_void_p
        where = libc.shmat(number, None, 0)
        if where not in (None, 2**64 - 1): ctypes.memset(where, 1, 64 << 20)
held()
""",
        ending="any",
        timeout=8,
    ),
    Hostile(
        "arguments and environment of megabytes",
        """
attempt('argv', lambda: subprocess.run(['true', 'x' * (3 << 20)]).returncode)
attempt('env', lambda: subprocess.run(['true'], env={'A': 'x' * (3 << 20)}).returncode)
held()
""",
    ),
    Hostile(
        "terminals without end",
        """
kept = []
try:
    while len(kept) < 6000: kept.append(os.openpty())
except OSError: pass
held()
""",
    ),
    Hostile(
        "watches without end",
        """
kept = []
for _ in range(5000):
    fd = libc.inotify_init()
    if fd < 0: break
    kept.append(fd)
held()
""",
    ),
    Hostile(
        "raising its own limits",
        """
import resource
for what in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE):
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        attempt('limit', resource.setrlimit, what, (hard + 1, hard + 1))
attempt('priority', os.setpriority, os.PRIO_PROCESS, 0, -20)
attempt('real time', os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))
held()
""",
    ),
    Hostile(
        "standard input that nobody reads",
        "held()",
        stdin=b"x" * (4 << 20),
    ),
    Hostile(
        "standard input that is closed early",
        """
os.close(0)
held()
""",
        stdin=b"x" * (4 << 20),
    ),
    Hostile(
        "recursion without end",
        """
sys.setrecursionlimit(1 << 30)
nest = []
for _ in range(1 << 20): nest = [nest]
repr(nest)
""",
        ending="killed",
    ),
    Hostile(
        "a home that nobody may enter",
        """
os.chmod('/home/user', 0)
held()
""",
    ),
)
