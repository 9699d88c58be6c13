"""Programs that look for the agent, the host, and other people's things. The environment names what is to be found."""

from nexus.testing.hostile.program import Hostile

HOST_PORT, HOST_SOCKET, HOST_SECRET = "HOST_PORT", "HOST_SOCKET", "HOST_SECRET"
"""Variables of the suite's: a port on the host's loopback, an abstract socket and a file of the host."""

_CONNECT = """
def reach(host, port):
    with socket.create_connection((host, port), timeout=0.5) as there:
        return there.recv(64)
port = int(os.environ["HOST_PORT"])
"""

PROGRAMS = (
    Hostile(
        "reading its ancestors",
        """
for pid in (1, os.getppid()):
    for name in ('environ', 'mem', 'maps', 'auxv', 'stack', 'syscall', 'fd/0', 'map_files'):
        path = f'/proc/{pid}/{name}'
        attempt(path, lambda: os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(1) or False)
    for name in ('exe', 'root', 'cwd'): attempt(name, os.readlink, f'/proc/{pid}/{name}')
held()
""",
    ),
    Hostile(
        "tracing its ancestors",
        """
for pid in (1, os.getppid()):
    attempt('attach', libc.ptrace, 16, pid, 0, 0)
    attempt('seize', libc.ptrace, 0x4206, pid, 0, 0)
held()
""",
    ),
    Hostile(
        "reading its ancestors' memory",
        """
class Piece(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('size', ctypes.c_size_t)]
room = ctypes.create_string_buffer(64)
here = Piece(ctypes.addressof(room), 64)
there = Piece(0x400000, 64)
for pid in (1, os.getppid()):
    attempt('read', libc.process_vm_readv, pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
held()
""",
    ),
    Hostile(
        "taking its ancestors' descriptors",
        """
for pid in (1, os.getppid()):
    fd = libc.syscall(434, pid, 0)
    if fd >= 0:
        for n in range(16): attempt('descriptor', libc.syscall, 438, fd, n, 0)
held()
""",
    ),
    Hostile(
        "descriptors that it was not given",
        """
found = [fd for fd in range(3, 4096) if attempt.__doc__ and libc.fcntl(fd, 1) >= 0]
if found: print('ESCAPED: descriptors', [(fd, os.readlink(f'/proc/self/fd/{fd}')) for fd in found])
held()
""",
    ),
    Hostile(
        "descriptors that a program of the shell was not given",
        """
for fd in /proc/self/fd/*; do
    n=${fd##*/}
    case $n in 0|1|2|3|255) ;; *) [ -e $fd ] && echo ESCAPED: $n ;; esac
done
echo held
""",
        language="bash",
    ),
    Hostile(
        "writing to whatever is open",
        """
for fd in range(3, 1024): attempt('write', os.write, fd, b'NX')
held()
""",
    ),
    Hostile(
        "the agent's sockets",
        """
for line in open('/proc/net/unix').read().splitlines()[1:]:
    name = line.split()[7:]
    if name:
        there = socket.socket(socket.AF_UNIX)
        attempt(name[0], lambda: there.connect(chr(0) + name[0][1:] if name[0][0] == '@' else name[0]) is None)
held()
""",
    ),
    Hostile(
        "abstract sockets of the host",
        """
there = socket.socket(socket.AF_UNIX)
attempt('connected', lambda: there.connect(chr(0) + os.environ['HOST_SOCKET']) is None)
held()
""",
    ),
    Hostile(
        "files of the host",
        """
path = os.environ['HOST_SECRET']
for base in ('', '/proc/1/root', '/proc/self/root', '/proc/self/cwd/../..', '/..' * 20):
    attempt('secret', lambda: open(base + path).read())
held()
""",
    ),
    Hostile(
        "files of the host by way of links",
        """
path = os.environ['HOST_SECRET']
os.symlink(path, '/tmp/link')
attempt('link', lambda: open('/tmp/link').read())
attempt('hard', os.link, path, '/tmp/hard')
held()
""",
    ),
    Hostile(
        "secrets of this machine",
        """
for path in ('/etc/shadow', '/root/.ssh', '/root/.bashrc', '/var/run/docker.sock', '/run/docker.sock', '/etc/ssh',
             '/run/secrets', '/var/log/syslog', '/boot/vmlinuz'):
    attempt(path, lambda: os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(1))
held()
""",
    ),
    Hostile(
        "the manager's environment",
        """
found = [n for n in os.environ if n.startswith(('PYTEST', 'SSH_', 'AWS_', 'NEXUS_', 'PIP_'))]
if found: print('ESCAPED:', found)
held()
""",
    ),
    Hostile(
        "the host's loopback",
        _CONNECT
        + """
for host in ('127.0.0.1', '10.0.2.2', '127.0.0.53', '0.0.0.0', '::1', '10.0.2.3'): attempt(host, reach, host, port)
held()
""",
        timeout=15,
    ),
    Hostile(
        "link-local addresses",
        """
for host in ('169.254.169.254', '169.254.170.2', '169.254.0.1'):
    with socket.socket() as there:
        there.settimeout(1)
        begun = time.monotonic()
        error = attempt(host, there.connect, (host, 80))
        if isinstance(error, TimeoutError): print('ESCAPED: packets left for', host)
held()
""",
    ),
    Hostile(
        "changing what later runs use",
        """
import json
for folder in (sys.prefix, sys.base_prefix, os.path.dirname(json.__file__), '/usr/lib', '/etc', '/', '/run/nexus',
               os.path.dirname(__file__)):
    attempt(folder, lambda: open(folder + '/evil', 'x'))
attempt('source', lambda: open(__file__, 'w'))
held()
""",
    ),
    Hostile(
        "modules that shadow the agent's",
        """
for name in ('os', 'ctypes', 'struct', 'select', 'sitecustomize', 'usercustomize', 'encodings', 'resource', 'nexus'):
    open(f'/home/user/{name}.py', 'w').write('import posix; posix._exit(9)')
held()
""",
    ),
    Hostile(
        "start-up files of the shell",
        """
for f in .bashrc .profile .bash_profile .bash_login; do echo exit 9 > ~/$f; done; echo held
""",
        language="bash",
    ),
    Hostile(
        "the agent in its own memory",
        """
found = [n for n in sys.modules if 'nexus' in n]
if found: print('ESCAPED:', found)
held()
""",
    ),
)
