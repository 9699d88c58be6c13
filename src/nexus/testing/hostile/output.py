"""Programs that write too much, too little, or what should hurt the reader."""

from nexus.testing.hostile.program import Hostile

_MIB = 1024 * 1024

PROGRAMS = (
    Hostile(
        "a gigabyte of output",
        "block = b'x' * (1 << 20)\nfor _ in range(1024): os.write(1, block)",
        "any",
        timeout=30,
        least_output=1024 * _MIB,
        exit_code=0,
    ),
    Hostile(
        "both streams without end",
        "block = b'y' * 65536\nwhile True:\n    os.write(1, block)\n    os.write(2, block)",
        "timed out",
        timeout=1,
        least_output=2 * _MIB,
    ),
    Hostile("output of the shell without end", "yes", "timed out", "bash", timeout=1, least_output=2 * _MIB),
    Hostile("a byte at a time", "for _ in range(100_000): os.write(1, b'z')\nheld()", least_output=100_000),
    Hostile("bytes that are no text", "os.write(1, bytes(range(256)))\nheld()", contains=bytes(range(256))),
    Hostile(
        "escape sequences",
        r"os.write(1, b'\x1b]0;title\x07\x1b[2J\x1b[8m\x1bP+q\x1b\\\r\x08')" + "\nheld()",
        contains=b"\x1b]0;title\x07",
    ),
    Hostile(
        "what looks like the agent's own frames",
        r"os.write(1, b'NX\x01D\x00\x00\x00\x01\x00\x00\x00\x00' * 100)" + "\n"
        r"os.write(2, b'NX\x01D\x00\x00\x00\x01\xff\xff\xff\xff')" + "\nheld()",
        contains=b"NX\x01D",
    ),
    Hostile(
        "closed standard streams",
        "for fd in range(3): os.close(fd)\ntime.sleep(0.05)\nos._exit(3)",
        "any",
        exit_code=3,
        within=5,
    ),
    Hostile("an empty program", "", "any", exit_code=0),
    Hostile("a program that is no text", "\0\0\0", "killed"),
    Hostile("an exit code beyond a byte", "os._exit(256 + 7)", "any", exit_code=7),
    Hostile("output left in a pipe by a process that goes on", "(yes & ) ; echo held", language="bash", within=5),
)
