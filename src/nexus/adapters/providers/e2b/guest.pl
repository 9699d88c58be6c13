# What runs inside an E2B sandbox beside a run: it keeps the time, kills everything that the run started, caps the
# output, and says truly how it ended. envd, E2B's own agent, does none of that: at its time-out it kills one process.
# Perl, because every Debian system has it and it starts in 2 ms. Only what perl-base holds is used.
#
#   run    ID SECONDS CAP STDIN COMMAND...   STDIN: "-" none, "=text", "@file" (removed once it is open)
#   follow ID OFFSET                         the frames of a run from a byte offset on
#   cancel ID                                everything that the run started is dead afterwards
#
# Answers in frames after the line "nexus ID": b (begun), o/e LENGTH + bytes (output), d (this id has been used),
# n (the run never began and now never will), k (whoever kept the run was killed), c LEFT (cancelled; so many processes
# could not be killed), x STATUS LATE CANCELLED STDOUT STDERR MILLISECONDS LEFT (the end, and what was written in all).
# Bytes travel as the UTF-8 of the characters 0 to 255, because the SDK decodes all output as UTF-8.
use strict;
my ($mode, $id, @rest) = @ARGV;
my $home = "/tmp/.nexus";
my $dir  = "$home/$id";
my $arch = 0;
if (open my $exe, "<:raw", "/proc/self/exe") { read $exe, my $elf, 20; $arch = unpack "x18 v", $elf }
my ($prctl, $gettime) = $arch == 183 ? (167, 113) : $arch == 62 ? (157, 228) : ();
$SIG{PIPE} = "IGNORE";

sub now {
    return time unless $gettime;
    my $spec = pack "qq", 0, 0;
    syscall $gettime, 1, $spec;
    my ($seconds, $nano) = unpack "qq", $spec;
    return $seconds + $nano / 1e9;
}

sub send_out {
    my ($bytes) = @_;
    utf8::encode($bytes);
    while (length $bytes) {
        my $sent = syswrite STDOUT, $bytes;
        return unless defined $sent;
        substr $bytes, 0, $sent, "";
    }
}

sub slurp { open my $file, "<:raw", $_[0] or return ""; local $/; my $all = <$file>; return $all // "" }

# Pids of what the run started: the descendants of $keeper, who adopts every orphan below it, and, should that one be
# dead, whatever still carries the run's mark in its environment.
sub members {
    my ($keeper) = @_;
    my (%parent, %in);
    opendir my $proc, "/proc" or return;
    for my $pid (grep /^\d+$/, readdir $proc) {
        next if $pid == $$;
        my ($state, $ppid) = slurp("/proc/$pid/stat") =~ /.*\) (\S) (\d+)/s or next;
        next if $state =~ /[ZX]/;
        $parent{$pid} = $ppid;
        $in{$pid} = 1 if index("\0" . slurp("/proc/$pid/environ"), "\0NEXUS_EXECUTION=$id\0") >= 0;
    }
    my $grown = 1;
    while ($grown) {
        $grown = 0;
        for my $pid (keys %parent) {
            next if $in{$pid} or not($parent{$pid} == $keeper or $in{ $parent{$pid} });
            $in{$pid} = $grown = 1;
        }
    }
    delete $in{$keeper};
    return keys %in;
}

# Kills them until there are none; returns how many cannot be killed (another user's).
sub slay {
    my ($keeper, $reap) = @_;
    my $until = now() + 5;
    my @left;
    while (@left = members($keeper)) {
        kill "STOP", @left;    # first all stand still, or a fork bomb outruns us
        kill "KILL", @left;
        $reap->();
        last if now() > $until;
        select undef, undef, undef, 0.005;
    }
    return scalar @left;
}

# Takes the id, once and for ever: with our pid for the run, or with a refusal, after which no run can begin. A folder
# that is renamed into place is there whole or not at all, and cannot replace one that is not empty.
sub claim {
    my ($what, $text) = @_;
    mkdir $home, 0755;
    mkdir "$dir.$$", 0755;
    open my $note, ">", "$dir.$$/$what" or die "nexus: $dir: $!\n";
    print $note $text;
    close $note;
    return 1 if rename "$dir.$$", $dir;
    unlink "$dir.$$/$what";
    rmdir "$dir.$$";
    return 0;
}

# What was said is kept for ten to twenty minutes after a run, for a caller whose connection broke.
sub retire {
    my $age = int(time / 600);
    mkdir "$home/old-$age", 0755;
    rename "$dir/frames", "$home/old-$age/$id";
    for my $old (grep { !/-($age|@{[$age - 1]})$/ } glob "$home/old-*") {
        unlink glob "$old/*";
        rmdir $old;
    }
    open my $done, ">", "$dir/done";
}

sub run {
    my ($seconds, $cap, $stdin, @command) = @_;
    return send_out("d\n") unless claim("pid", $$);
    open my $spool, ">:raw", "$dir/frames" or die "nexus: $dir: $!\n";
    my $frame = sub { syswrite $spool, $_[0]; send_out($_[0]) };
    syscall $prctl, 36, 1, 0, 0, 0 if $prctl;    # PR_SET_CHILD_SUBREAPER: daemons become our children

    my $input;
    if ($stdin =~ /^=/) { pipe $input, my $w; syswrite $w, substr $stdin, 1; close $w }
    elsif ($stdin =~ /^@(.*)/s) { open $input, "<:raw", $1 or die "nexus: $1: $!\n"; unlink $1 }
    else { open $input, "<", "/dev/null" }
    pipe my $out, my $out_w;
    pipe my $err, my $err_w;
    my $begin = now();
    my ($cancelled, $ended, $status, $late) = (0, 0, 0, 0);
    $SIG{TERM} = sub { $cancelled = 1 };
    $SIG{CHLD} = sub { };                        # its arrival ends the select below
    my $child = fork;
    if ($child == 0) {
        setpgrp 0, 0;
        open STDIN,  "<&", $input;
        open STDOUT, ">&", $out_w;
        open STDERR, ">&", $err_w;
        $SIG{PIPE} = "DEFAULT";
        $ENV{NEXUS_EXECUTION} = $id;
        exec { $command[0] } @command;
        my $why = $! + 0;
        syswrite STDERR, "$command[0]: $!\n";
        exit($why == 2 ? 127 : 126);
    }
    close $_ for $input, $out_w, $err_w;
    $frame->("b\n");

    my %kept  = (o => 0, e => 0);
    my %total = (o => 0, e => 0);
    my %from  = (o => $out, e => $err);
    my $pump  = sub {
        my ($patience) = @_;
        my $want = "";
        vec($want, fileno $_, 1) = 1 for values %from;
        return 0 unless select(my $ready = $want, undef, undef, $patience) > 0;
        my $some = 0;
        for my $name (keys %from) {
            next unless vec($ready, fileno $from{$name}, 1);
            my $length = sysread $from{$name}, my $data, 65536;
            if (not $length) { delete $from{$name} if defined $length; next }
            $some = 1;
            $total{$name} += $length;
            my $room = $cap - $kept{$name};
            next if $room <= 0;
            $data = substr $data, 0, $room;
            $kept{$name} += length $data;
            $frame->($name . length($data) . "\n" . $data);
        }
        return $some;
    };
    my $reap = sub {
        while ((my $pid = waitpid -1, 1) > 0) { ($ended, $status) = (1, $?) if $pid == $child }
    };
    my $survivors = 0;
    until ($ended) {
        my $left = $begin + $seconds - now();
        $late = 1 if $left <= 0;
        if ($late or $cancelled) {
            $survivors = slay($$, $reap);
            $reap->() until $ended;
            last;
        }
        $pump->($left < 0.1 ? $left : 0.1);
        $reap->();
    }
    for (1 .. 64) { last unless $pump->(0) }     # what is in the pipes; a process left behind may hold them open
    unlink "$home/in/$id.code";
    my $milliseconds = int(1000 * (now() - $begin));
    $frame->("x$status $late $cancelled $total{o} $total{e} $milliseconds $survivors\n");
    retire();
}

sub follow {
    my ($offset) = @_;
    return send_out("n\n") if claim("refused", "") or -e "$dir/refused";
    my $until = now() + 5;
    my $spool;
    until (open $spool, "<:raw", "$dir/frames" or open $spool, "<:raw", glob("$home/old-*/$id") || "") {
        return send_out("k\n") if now() > $until;    # killed at birth, or long over
        select undef, undef, undef, 0.01;
    }
    sysseek $spool, $offset, 0;
    while (1) {
        my $over = -e "$dir/done";
        my $pid  = slurp("$dir/pid");
        my $dead = !($pid && index(slurp("/proc/$pid/cmdline"), $id) >= 0);
        my $some = sysread $spool, my $data, 65536;
        if ($some) { send_out($data); next }
        return if $over;
        return send_out("k\n") if $dead and not -e "$dir/done";
        select undef, undef, undef, 0.02;
    }
}

sub cancel {
    return send_out("n\n") if claim("refused", "") or -e "$dir/refused";
    my $until = now() + 5;
    my $pid   = slurp("$dir/pid");
    my $lives = sub { index(slurp("/proc/$pid/cmdline"), $id) >= 0 and slurp("/proc/$pid/stat") !~ /\) Z/ };
    kill "TERM", $pid if $lives->();
    select undef, undef, undef, 0.01 while $lives->() and now() < $until;
    my $left = slay($lives->() ? $pid : -1, sub { });
    kill "KILL", $pid if $lives->();
    send_out("c$left\n");
}

send_out("nexus $id\n");
{ run => \&run, follow => \&follow, cancel => \&cancel }->{$mode}->(@rest);
