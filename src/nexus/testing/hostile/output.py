"""Programs that write too much, too little, or what should hurt the reader."""

from nexus.testing.hostile.program import Hostile

_MIB = 1024 * 1024

PROGRAMS = (
    Hostile(
        "a gigabyte of output",
        """
block = b'x' * (1 << 20)
for _ in range(1024): os.write(1, block)
""",
        ending="any",
        timeout=30,
        least_output=1024 * _MIB,
        exit_code=0,
    ),
    Hostile(
        "both streams without end",
        """
block = b'y' * 65536
while True:
    os.write(1, block)
    os.write(2, block)
""",
        ending="timed out",
        timeout=1,
        least_output=2 * _MIB,
    ),
    Hostile(
        "output of the shell without end",
        "yes",
        ending="timed out",
        language="bash",
        timeout=1,
        least_output=2 * _MIB,
    ),
    Hostile(
        "a byte at a time",
        """
for _ in range(100_000): os.write(1, b'z')
held()
""",
        least_output=100_000,
    ),
    Hostile(
        "bytes that are no text",
        """
os.write(1, bytes(range(256)))
held()
""",
        contains=bytes(range(256)),
    ),
    Hostile(
        "escape sequences",
        r"""
os.write(1, b'\x1b]0;title\x07\x1b[2J\x1b[8m\x1bP+q\x1b\\\r\x08')
held()
""",
        contains=b"\x1b]0;title\x07",
    ),
    Hostile(
        "what looks like the agent's own frames",
        r"""
os.write(1, b'NX\x01D\x00\x00\x00\x01\x00\x00\x00\x00' * 100)
os.write(2, b'NX\x01D\x00\x00\x00\x01\xff\xff\xff\xff')
held()
""",
        contains=b"NX\x01D",
    ),
    Hostile(
        "closed standard streams",
        """
for fd in range(3): os.close(fd)
time.sleep(0.05)
os._exit(3)
""",
        ending="any",
        within=5,
        exit_code=3,
    ),
    Hostile(
        "an empty program",
        "",
        ending="any",
        exit_code=0,
    ),
    Hostile(
        "a program that is no text",
        "\x00\x00\x00",
        ending="killed",
    ),
    Hostile(
        "an exit code beyond a byte",
        "os._exit(256 + 7)",
        ending="any",
        exit_code=7,
    ),
    Hostile(
        "output left in a pipe by a process that goes on",
        "echo held; (yes & )",  # in this order: what comes after a flood may be beyond the cap
        language="bash",
        within=5,
    ),
)
