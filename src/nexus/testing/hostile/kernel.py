"""Programs that ask the kernel for what a guest has no business with."""

from nexus.testing.hostile.program import Hostile

PROGRAMS = (
    Hostile(
        "mounting",
        """
os.makedirs('/tmp/m', exist_ok=True)
for kind in (b'tmpfs', b'proc', b'sysfs', b'cgroup', b'cgroup2', b'overlay', b'devtmpfs'):
    attempt(kind, libc.mount, kind, b'/tmp/m', kind, 0, None)
attempt('bind', libc.mount, b'/', b'/tmp/m', None, 4096 | 16384, None)
attempt('remount', libc.mount, None, b'/', None, 32 | 4096, None)
held()
""",
    ),
    Hostile(
        "unmounting",
        """
for path in (b'/proc', b'/proc/sys', b'/home/user', b'/dev', b'/'): attempt(path, libc.umount2, path, 2)
held()
""",
    ),
    Hostile(
        "the new mount calls",
        """
for number in (428, 429, 430, 432, 433, 442): attempt(number, libc.syscall, number, 0, 0, 0, 0, 0)
attempt('fsopen', libc.syscall, 430, b'tmpfs', 0)
attempt('open_tree', libc.syscall, 428, -100, b'/', 1)
held()
""",
    ),
    Hostile(
        "new namespaces",
        """
for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x08000000, 0x02000000):
    attempt(hex(flag), libc.unshare, flag)
held()
""",
    ),
    Hostile(
        "new namespaces by clone",
        """
for flag in (0x10000000, 0x10020000):
    pid = libc.syscall(56, flag | 17, 0, 0, 0, 0)
    if pid == 0: os._exit(0)
    attempt('clone', lambda: pid)
held()
""",
    ),
    Hostile(
        "a user namespace with unshare",
        """
unshare -U true && echo ESCAPED: user; unshare -r -m true && echo ESCAPED: mount; echo held
""",
        language="bash",
    ),
    Hostile(
        "namespaces of others",
        """
for pid in (1, os.getppid()):
    for name in ('mnt', 'pid', 'net', 'user', 'ipc', 'uts'):
        try: fd = os.open(f'/proc/{pid}/ns/{name}', 0)
        except OSError: continue
        attempt(name, libc.setns, fd, 0)
held()
""",
    ),
    Hostile(
        "chroot and pivot_root",
        """
attempt('chroot', os.chroot, '/tmp')
attempt('pivot', libc.syscall, 155, b'/', b'/tmp')
held()
""",
    ),
    Hostile(
        "becoming root",
        """
attempt('setuid', os.setuid, 0)
attempt('setgid', os.setgid, 0)
attempt('setresuid', os.setresuid, 0, 0, 0)
attempt('setgroups', os.setgroups, [0])
attempt('uid', lambda: os.getuid() == 0 or os.geteuid() == 0)
held()
""",
    ),
    Hostile(
        "set-uid programs",
        r"""
import shutil
for name in ('su', 'sudo', 'mount', 'passwd', 'newgrp', 'pkexec', 'chsh'):
    path = shutil.which(name)
    if path and os.stat(path).st_mode & 0o4000:
        done = subprocess.run([path, '--version'], stdin=subprocess.DEVNULL, capture_output=True)
shutil.copy('/bin/sh', '/tmp/sh')
os.chmod('/tmp/sh', 0o6755)
uid = subprocess.run(['/tmp/sh', '-pc', 'id -u'], capture_output=True).stdout
if uid.strip() == b'0': print('ESCAPED: root')
status = open('/proc/self/status').read()
if 'NoNewPrivs:\t1' not in status: print('ESCAPED: new privileges are possible')
held()
""",
    ),
    Hostile(
        "capabilities",
        """
lines = [x.split() for x in open('/proc/self/status') if x.startswith(('CapPrm', 'CapEff', 'CapInh', 'CapAmb'))]
for name, value in lines:
    if int(value, 16): print('ESCAPED:', name, value)
attempt('ambient', libc.prctl, 47, 2, 21, 0, 0)
held()
""",
    ),
    Hostile(
        "device files",
        """
import stat
for kind, number in ((stat.S_IFBLK, (8, 0)), (stat.S_IFCHR, (1, 1)), (stat.S_IFBLK, (254, 0))):
    attempt('mknod', os.mknod, '/tmp/device', kind | 0o666, os.makedev(*number))
held()
""",
    ),
    Hostile(
        "devices",
        """
for name in ('mem', 'kmem', 'port', 'sda', 'vda', 'nvme0n1', 'loop0', 'loop-control', 'kvm', 'net/tun', 'fuse',
             'vhost-vsock', 'vsock', 'kmsg', 'mapper/control', 'input/event0', 'uinput', 'nvram', 'hwrng'):
    attempt(name, os.open, '/dev/' + name, os.O_RDONLY)
attempt('tty', os.open, '/dev/tty', os.O_RDWR)
held()
""",
    ),
    Hostile(
        "kernel settings",
        """
for name in ('kernel/core_pattern', 'kernel/hostname', 'kernel/modprobe', 'vm/drop_caches', 'net/ipv4/ip_forward',
             'fs/file-max', 'user/max_user_namespaces', 'kernel/ns_last_pid',
             'vm/overcommit_memory', 'net/ipv4/ping_group_range'):
    path = '/proc/sys/' + name
    attempt(path, os.open, path, os.O_WRONLY)
held()
""",
    ),
    Hostile(
        "writing to /proc",
        r"""
for name in ('sysrq-trigger', '1/mem', 'kcore', 'irq/default_smp_affinity', 'bus/pci'):
    attempt(name, os.open, '/proc/' + name, os.O_WRONLY)
for name in ('kcore', 'kmsg', '1/mem'):
    attempt(name, os.open, '/proc/' + name, os.O_RDONLY)
for name in ('self', '1'):
    attempt('oom', lambda: open(f'/proc/{name}/oom_score_adj', 'w', buffering=1).write('-1000\n'))
held()
""",
    ),
    Hostile(
        "control groups",
        """
import glob
for path in glob.glob('/sys/fs/cgroup/**/cgroup.procs', recursive=True)[:50]:
    attempt(path, lambda: os.write(os.open(path, os.O_WRONLY), b'0'))
for name in ('release_agent', 'cgroup.subtree_control', 'memory.max', 'pids.max'):
    attempt(name, os.open, '/sys/fs/cgroup/' + name, os.O_WRONLY)
attempt('mkdir', os.mkdir, '/sys/fs/cgroup/evil')
held()
""",
    ),
    Hostile(
        "key rings",
        """
attempt('add', libc.syscall, 248, b'user', b'x', b'y', 1, -3)
attempt('keyctl', libc.syscall, 250, 0, -3, 1)
held()
""",
    ),
    Hostile(
        "little-used kernel interfaces",
        """
attempt('bpf', libc.syscall, 321, 0, bytes(72), 72)
attempt('perf', libc.syscall, 298, bytes(120), 0, -1, -1, 0)
attempt('userfaultfd', libc.syscall, 323, 0)
attempt('io_uring', libc.syscall, 425, 8, bytes(120))
attempt('kcmp', libc.syscall, 312, 1, 1, 0, 0, 0)
held()
""",
    ),
    Hostile(
        "the machine itself",
        """
attempt('reboot', libc.reboot, 0x89ABCDEF)
attempt('swapoff', libc.swapoff, b'/x')
attempt('acct', libc.acct, b'/tmp/acct')
attempt('module', libc.syscall, 175, b'', 0, b'')
attempt('kexec', libc.syscall, 246, 0, 0, 0, 0)
attempt('syslog', libc.klogctl, 3, ctypes.create_string_buffer(64), 64)
attempt('hostname', socket.sethostname, 'evil')
attempt('clock', time.clock_settime, time.CLOCK_REALTIME, 0)
held()
""",
    ),
    Hostile(
        "raw and odd sockets",
        """
for family, kind in ((socket.AF_INET, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_RAW),
                     (socket.AF_VSOCK, socket.SOCK_STREAM), (38, 5), (31, 3), (29, 3)):
    attempt((family, kind), socket.socket, family, kind)
held()
""",
    ),
    Hostile(
        "32-bit and odd system calls",
        """
attempt('x32', libc.syscall, 0x40000000 + 39)
attempt('none', libc.syscall, 9999)
held()
""",
    ),
    Hostile(
        "handles of files",
        """
attempt('handle', libc.syscall, 304, -100, bytes(16), 0)
held()
""",
    ),
    Hostile(
        "its own network",
        r"""
import fcntl
with socket.socket() as s:
    attempt('down', fcntl.ioctl, s, 0x8914, b'lo'.ljust(16, b'\0') + bytes(24))
    attempt('tun', lambda: fcntl.ioctl(os.open('/dev/net/tun', os.O_RDWR), 0x400454CA, b'tun9'.ljust(40, b'\0')))
held()
""",
    ),
)
