"""Programs that ask the kernel for what a guest has no business with."""

from nexus.testing.hostile.program import Hostile

PROGRAMS = (
    Hostile(
        "mounting",
        "os.makedirs('/tmp/m', exist_ok=True)\nfor kind in (b'tmpfs', b'proc', b'sysfs', b'cgroup', b'cgroup2', b'overlay', b'devtmpfs'):\n"
        "    attempt(kind, libc.mount, kind, b'/tmp/m', kind, 0, None)\n"
        "attempt('bind', libc.mount, b'/', b'/tmp/m', None, 4096 | 16384, None)\n"
        "attempt('remount', libc.mount, None, b'/', None, 32 | 4096, None)\nheld()",
    ),
    Hostile(
        "unmounting",
        "for path in (b'/proc', b'/proc/sys', b'/home/user', b'/dev', b'/'): attempt(path, libc.umount2, path, 2)\nheld()",
    ),
    Hostile(
        "the new mount calls",
        "for number in (428, 429, 430, 432, 433, 442): attempt(number, libc.syscall, number, 0, 0, 0, 0, 0)\n"
        "attempt('fsopen', libc.syscall, 430, b'tmpfs', 0)\nattempt('open_tree', libc.syscall, 428, -100, b'/', 1)\nheld()",
    ),
    Hostile(
        "new namespaces",
        "for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x08000000, 0x02000000):\n"
        "    attempt(hex(flag), libc.unshare, flag)\nheld()",
    ),
    Hostile(
        "new namespaces by clone",
        "for flag in (0x10000000, 0x10020000):\n    pid = libc.syscall(56, flag | 17, 0, 0, 0, 0)\n    if pid == 0: os._exit(0)\n"
        "    attempt('clone', lambda: pid)\nheld()",
    ),
    Hostile(
        "a user namespace with unshare",
        "unshare -U true && echo ESCAPED: user; unshare -r -m true && echo ESCAPED: mount; echo held",
        language="bash",
    ),
    Hostile(
        "namespaces of others",
        "for pid in (1, os.getppid()):\n    for name in ('mnt', 'pid', 'net', 'user', 'ipc', 'uts'):\n"
        "        try: fd = os.open(f'/proc/{pid}/ns/{name}', 0)\n        except OSError: continue\n"
        "        attempt(name, libc.setns, fd, 0)\nheld()",
    ),
    Hostile(
        "chroot and pivot_root",
        "attempt('chroot', os.chroot, '/tmp')\nattempt('pivot', libc.syscall, 155, b'/', b'/tmp')\nheld()",
    ),
    Hostile(
        "becoming root",
        "attempt('setuid', os.setuid, 0)\nattempt('setgid', os.setgid, 0)\nattempt('setresuid', os.setresuid, 0, 0, 0)\n"
        "attempt('setgroups', os.setgroups, [0])\nattempt('uid', lambda: os.getuid() == 0 or os.geteuid() == 0)\nheld()",
    ),
    Hostile(
        "set-uid programs",
        "import shutil\nfor name in ('su', 'sudo', 'mount', 'passwd', 'newgrp', 'pkexec', 'chsh'):\n    path = shutil.which(name)\n"
        "    if path and os.stat(path).st_mode & 0o4000:\n"
        "        done = subprocess.run([path, '--version'], stdin=subprocess.DEVNULL, capture_output=True)\n"
        "shutil.copy('/bin/sh', '/tmp/sh')\nos.chmod('/tmp/sh', 0o6755)\n"
        "uid = subprocess.run(['/tmp/sh', '-pc', 'id -u'], capture_output=True).stdout\nif uid.strip() == b'0': print('ESCAPED: root')\n"
        "status = open('/proc/self/status').read()\nif 'NoNewPrivs:\\t1' not in status: print('ESCAPED: new privileges are possible')\nheld()",
    ),
    Hostile(
        "capabilities",
        "lines = [x.split() for x in open('/proc/self/status') if x.startswith(('CapPrm', 'CapEff', 'CapInh', 'CapAmb'))]\n"
        "for name, value in lines:\n    if int(value, 16): print('ESCAPED:', name, value)\n"
        "attempt('ambient', libc.prctl, 47, 2, 21, 0, 0)\nheld()",
    ),
    Hostile(
        "device files",
        "import stat\nfor kind, number in ((stat.S_IFBLK, (8, 0)), (stat.S_IFCHR, (1, 1)), (stat.S_IFBLK, (254, 0))):\n"
        "    attempt('mknod', os.mknod, '/tmp/device', kind | 0o666, os.makedev(*number))\nheld()",
    ),
    Hostile(
        "devices",
        "for name in ('mem', 'kmem', 'port', 'sda', 'vda', 'nvme0n1', 'loop0', 'loop-control', 'kvm', 'net/tun', 'fuse', 'vhost-vsock',\n"
        "             'vsock', 'kmsg', 'mapper/control', 'input/event0', 'uinput', 'nvram', 'hwrng'):\n"
        "    attempt(name, os.open, '/dev/' + name, os.O_RDONLY)\nattempt('tty', os.open, '/dev/tty', os.O_RDWR)\nheld()",
    ),
    Hostile(
        "kernel settings",
        "for name in ('kernel/core_pattern', 'kernel/hostname', 'kernel/modprobe', 'vm/drop_caches', 'net/ipv4/ip_forward', 'fs/file-max',\n"
        "             'user/max_user_namespaces', 'kernel/ns_last_pid', 'vm/overcommit_memory', 'net/ipv4/ping_group_range'):\n"
        "    path = '/proc/sys/' + name\n    attempt(path, os.open, path, os.O_WRONLY)\nheld()",
    ),
    Hostile(
        "writing to /proc",
        "for name in ('sysrq-trigger', '1/mem', 'kcore', 'irq/default_smp_affinity', 'bus/pci'):\n"
        "    attempt(name, os.open, '/proc/' + name, os.O_WRONLY)\nfor name in ('kcore', 'kmsg', '1/mem'):\n"
        "    attempt(name, os.open, '/proc/' + name, os.O_RDONLY)\n"
        "for name in ('self', '1'):\n"
        "    attempt('oom', lambda: open(f'/proc/{name}/oom_score_adj', 'w', buffering=1).write('-1000\\n'))\nheld()",
    ),
    Hostile(
        "control groups",
        "import glob\nfor path in glob.glob('/sys/fs/cgroup/**/cgroup.procs', recursive=True)[:50]:\n"
        "    attempt(path, lambda: os.write(os.open(path, os.O_WRONLY), b'0'))\n"
        "for name in ('release_agent', 'cgroup.subtree_control', 'memory.max', 'pids.max'):\n"
        "    attempt(name, os.open, '/sys/fs/cgroup/' + name, os.O_WRONLY)\nattempt('mkdir', os.mkdir, '/sys/fs/cgroup/evil')\nheld()",
    ),
    Hostile(
        "key rings",
        "attempt('add', libc.syscall, 248, b'user', b'x', b'y', 1, -3)\nattempt('keyctl', libc.syscall, 250, 0, -3, 1)\nheld()",
    ),
    Hostile(
        "little-used kernel interfaces",
        "attempt('bpf', libc.syscall, 321, 0, bytes(72), 72)\nattempt('perf', libc.syscall, 298, bytes(120), 0, -1, -1, 0)\n"
        "attempt('userfaultfd', libc.syscall, 323, 0)\nattempt('io_uring', libc.syscall, 425, 8, bytes(120))\n"
        "attempt('kcmp', libc.syscall, 312, 1, 1, 0, 0, 0)\nheld()",
    ),
    Hostile(
        "the machine itself",
        "attempt('reboot', libc.reboot, 0x89ABCDEF)\nattempt('swapoff', libc.swapoff, b'/x')\nattempt('acct', libc.acct, b'/tmp/acct')\n"
        "attempt('module', libc.syscall, 175, b'', 0, b'')\nattempt('kexec', libc.syscall, 246, 0, 0, 0, 0)\n"
        "attempt('syslog', libc.klogctl, 3, ctypes.create_string_buffer(64), 64)\nattempt('hostname', socket.sethostname, 'evil')\n"
        "attempt('clock', time.clock_settime, time.CLOCK_REALTIME, 0)\nheld()",
    ),
    Hostile(
        "raw and odd sockets",
        "for family, kind in ((socket.AF_INET, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_RAW), (socket.AF_VSOCK, socket.SOCK_STREAM),\n"
        "                     (38, 5), (31, 3), (29, 3)):\n    attempt((family, kind), socket.socket, family, kind)\nheld()",
    ),
    Hostile(
        "32-bit and odd system calls",
        "attempt('x32', libc.syscall, 0x40000000 + 39)\nattempt('none', libc.syscall, 9999)\nheld()",
    ),
    Hostile("handles of files", "attempt('handle', libc.syscall, 304, -100, bytes(16), 0)\nheld()"),
    Hostile(
        "its own network",
        "import fcntl\nwith socket.socket() as s:\n    attempt('down', fcntl.ioctl, s, 0x8914, b'lo'.ljust(16, b'\\0') + bytes(24))\n"
        "    attempt('tun', lambda: fcntl.ioctl(os.open('/dev/net/tun', os.O_RDWR), 0x400454CA, b'tun9'.ljust(40, b'\\0')))\nheld()",
    ),
)
