# What runs inside an E2B sandbox beside a run: it keeps the time, kills everything that the run started, caps the
# output, and says truly how it ended. envd, E2B's own agent, does none of that: at its time-out it kills one process.
# Perl, because every Debian system has it and it starts in 2 ms. Only what perl-base holds is used, and no module: the
# likes of glob and POSIX would double the start.
#
#   run    ID ORDER SERVER ROOM ANSWER   an order is ID SECONDS CAP STDIN COMMAND..., as `told` reads it;
#                                 STDIN is "-" for none, "=text", or "@file" (removed once it is open)
#   follow ID OFFSET              the frames of a run from a byte offset on
#   cancel ID                     everything that the run started is dead afterwards
#
# This is how the first run of a sandbox is kept; its keeper then leaves a fork server behind (server.pl), from which
# later keepers are forked, ready compiled.
#
# Answers in frames after the line "nexus ID": b (begun), o/e LENGTH + bytes (output), d (this id has been used),
# n (the run never began and now never will), k (whoever kept the run was killed), c LEFT (cancelled; so many processes
# could not be killed), x STATUS LATE CANCELLED STDOUT STDERR MILLISECONDS LEFT (the end, and what was written in all).
# Bytes travel as the UTF-8 of the characters 0 to 255, because the SDK decodes all output as UTF-8.
#
# It is compiled anew each time, so each mode is sent with only the sections that it needs: those whose mark names it.
#: run follow cancel
use strict;
my ($id, @rest, $home, $dir, $machine, $prctl, $gettime, $relay, $made);

BEGIN {
    ($id, @rest) = @ARGV;
    $home = "/tmp/.nexus";
    $dir  = "$home/runs/$id";
    if (open my $exe, "<:raw", "/proc/self/exe") {
        read $exe, my $elf, 20;
        $machine = unpack "x18 v", $elf;
        ($prctl, $gettime) = $machine == 62 ? (157, 228) : $machine == 183 ? (167, 113) : ();
    }
    $SIG{PIPE} = "IGNORE";
}

sub now {
    return time unless $gettime;
    my $spec = pack "qq", 0, 0;
    syscall $gettime, 1, $spec;
    my ($seconds, $nano) = unpack "qq", $spec;
    return $seconds + $nano / 1e9;
}

# $all: nothing follows.
sub send_out {
    my ($bytes, $all) = @_;
    utf8::encode($bytes);
    if ($relay) {
        # A shell hands on what we say. It can do that with a short text alone; for all else it makes way for `cat`.
        $relay = 0;
        my $short = $all && length $bytes < 1000 && $bytes !~ /[^\n\t\x20-\x7e\x80-\xff]/;
        $bytes = $short ? "$bytes\0" : "\0$bytes";
    }
    while (length $bytes) {
        my $sent = syswrite STDOUT, $bytes;
        next if not defined $sent and $! == 4;    # EINTR: a child ended just now
        return unless defined $sent;
        substr $bytes, 0, $sent, "";
    }
}

# Takes the id, once and for ever: with our pid for the run, or with a refusal, after which no run can begin. A folder
# that is renamed into place is there whole or not at all, and cannot replace one that is not empty.
sub note {
    my ($what, $text) = @_;
    $made = "$home/runs/new.$$";
    unless (mkdir $made, 0755) {
        mkdir $_, 0755 for $home, "$home/runs", $made;
        unlink "$made/$_" for "pid", "refused", "frames";    # of someone who had our pid, and was killed
    }
    open my $note, ">", "$made/$what" or die "nexus: $made: $!\n";
    print $note $text;
}

sub claim {
    my ($what) = @_;
    return 1 if rename $made, $dir;
    unlink "$made/$what", "$made/frames";
    rmdir $made;
    return 0;
}

sub refused {
    note("refused", "");
    return claim("refused") || -e "$dir/refused";
}

#: run
my ($begin, $child, $spool, $cancelled, $deaf, $answer, %from, @order);

# An order is one text: the lengths of its parts, a newline, the parts.
sub told {
    my ($lengths, $parts) = split /\n/, $_[0], 2;
    return map { substr $parts, 0, $_, "" } split / /, $lengths // "";
}

# Makes the pipes and the process that will be the command; returns true in that one.
sub spawn {
    syscall $prctl, 36, 1, 0, 0, 0 if $prctl;    # PR_SET_CHILD_SUBREAPER: daemons become our children
    pipe $from{o}, my $out;
    pipe $from{e}, my $err;
    $SIG{TERM} = sub { $cancelled = 1 };
    $SIG{CHLD} = sub { };                        # its arrival ends a select
    $child     = fork // die "nexus: fork: $!\n";
    return 0 if $child;
    setpgrp 0, 0;
    open STDOUT, ">&", $out;
    open STDERR, ">&", $err;
    $SIG{TERM} = $SIG{PIPE} = "DEFAULT";
    return 1;
}

sub become {
    my ($stdin, @command) = @_;
    if    ($stdin =~ /^=/)      { pipe my $r, my $w; syswrite $w, substr $stdin, 1; open STDIN, "<&", $r }
    elsif ($stdin =~ /^@(.*)/s) { open STDIN, "<:raw", $1 or die "nexus: $1: $!\n"; unlink $1 }
    else                        { open STDIN, "<", "/dev/null" }
    $ENV{NEXUS_EXECUTION} = $id;
    exec { $command[0] } @command;
    my $why = $! + 0;
    syswrite STDERR, "$command[0]: $!\n";
    exit($why == 2 ? 127 : 126);
}

sub prepare {
    note("pid", $$);
    open $spool, ">:raw", "$made/frames" or die "nexus: $made: $!\n";
    syswrite $spool, "b\n";
}

sub begin {
    $cancelled = 0;                              # by nobody who knew of this run
    unless (claim("pid")) { send_out("nexus $id\nd\n", 1); exit }
    $begin = now();
}

# The command runs already while what follows is compiled.
BEGIN {
    (undef, @order) = told($rest[0]);
    $answer = $rest[3];
    $deaf = delete $ENV{NEXUS_ORDER};    # the fork server that did not answer
    prepare();
    begin();
    become(@order[2 .. $#order]) if spawn();
}

#: run follow cancel
sub slurp { open my $file, "<:raw", $_[0] or return ""; local $/; my $all = <$file>; return $all // "" }

#: run cancel
# Pids of what the run started: the descendants of $keeper, who adopts every orphan below it; or, should there be none,
# whatever still carries the run's mark in its environment, and its descendants.
sub members {
    my ($keeper) = @_;
    my (%children, @found);
    opendir my $proc, "/proc" or return;
    for my $pid (grep /^\d+$/, readdir $proc) {
        next if $pid == $$;
        my ($state, $ppid) = slurp("/proc/$pid/stat") =~ /.*\) (\S) (\d+)/s or next;
        push @{ $children{$ppid} }, $pid if $state !~ /[ZX]/;
        push @found, $pid if not $keeper and index("\0" . slurp("/proc/$pid/environ"), "\0NEXUS_EXECUTION=$id\0") >= 0;
    }
    @found = @{ $children{$keeper} || [] } if $keeper;
    my %in = map { $_ => 1 } @found;
    while (@found) {
        @found = grep { not $in{$_}++ } map { @{ $children{$_} || [] } } @found;
    }
    return keys %in;
}

# Kills them until there are none; returns how many cannot be killed (another user's).
sub slay {
    my ($keeper, $until, $reap) = @_;
    my @left;
    $SIG{CHLD} = "DEFAULT";    # perl dies of more than 120 signals at once
    while (@left = members($keeper)) {
        kill "STOP", @left;    # first all stand still, or a fork bomb outruns us
        kill "KILL", @left;
        $reap->();
        last if now() > $until;
        select undef, undef, undef, 0.005;
    }
    return scalar @left;
}

#: run follow
# What was said is kept for ten to twenty minutes after a run, for a caller whose connection broke.
sub shelf { return "$home/old/" . (int(time / 600) - $_[0]) }

#: run
sub retire {
    my $shelf = shelf(0);
    unless (rename "$dir/frames", "$shelf/$id") {
        mkdir $_, 0755 for "$home/old", $shelf;
        rename "$dir/frames", "$shelf/$id";
    }
    opendir my $shelves, "$home/old";
    for my $old (grep { /^\d+$/ and $_ < int(time / 600) - 1 } readdir $shelves) {
        opendir my $frames, "$home/old/$old";
        unlink "$home/old/$old/$_" for readdir $frames;
        rmdir "$home/old/$old";
    }
    unlink "$answer.order";
    open my $done, ">", "$dir/done";
}

sub run {
    my ($seconds, $cap) = @_;
    # Each piece that is sent costs both sides more than what is in it, so output waits for its like: for 3 ms, in which
    # a short program comes to its end.
    my ($head, $waiting, $since) = ("nexus $id\nb\n", "", 0);
    my $flush = sub {
        syswrite $spool, $waiting;
        send_out($head . $waiting, $_[0]);
        ($head, $waiting, $since) = ("", "", 0);
    };
    my $frame = sub {
        $waiting .= $_[0];
        $since ||= now();
        $flush->() if length $waiting > 32768;
    };
    my %kept  = (o => 0, e => 0);
    my %total = (o => 0, e => 0);
    my $pump  = sub {
        my $want = "";
        vec($want, fileno $_, 1) = 1 for values %from;
        return 0 unless select(my $ready = $want, undef, undef, $_[0]) > 0;
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
    my ($ended, $status, $late, $left) = (0, 0, 0, 0);
    my $reap = sub {
        while ((my $pid = waitpid -1, 1) > 0) { ($ended, $status) = (1, $?) if $pid == $child }
    };
    while (1) {
        $reap->();
        last if $ended;
        my $rest = $begin + $seconds - now();
        $late = 1 if $rest <= 0;
        if ($late or $cancelled) {
            $flush->();
            $left = slay($$, now() + 5, $reap);
            last;
        }
        my $pause = $since ? 0.003 : 0.1;
        my $some = $pump->($rest < $pause ? $rest : $pause);
        $flush->() if $since ? now() - $since >= 0.003 : $head ne "" && !$some;
    }
    for (1 .. 64) { last unless $pump->(0) }     # what is in the pipes; a process left behind may hold them open
    unlink "$home/in/$id.code";
    my $milliseconds = int(1000 * (now() - $begin));
    $frame->(join(" ", "x$status", $late, $cancelled ? 1 : 0, $total{o}, $total{e}, $milliseconds, $left) . "\n");
    $flush->(1);
    retire();
}
run(@order);
eval $rest[1];

#: follow
sub follow {
    my ($offset) = @_;
    return send_out("n\n") if refused();
    my $until = now() + 5;
    my ($said, $path);
    until ($said) {
        return send_out("k\n") if now() > $until;    # killed at birth, or long over
        ($path) = grep { -e $_ } "$dir/frames", map { shelf($_) . "/$id" } 0, 1;
        undef $said unless $path and open $said, "<:raw", $path;
        select undef, undef, undef, 0.01 unless $said;
    }
    sysseek $said, $offset, 0;
    while (1) {
        my $over = -e "$dir/done";
        my $pid  = slurp("$dir/pid");
        my $dead = index(slurp("/proc/$pid/cmdline"), $id) < 0;
        if (sysread $said, my $data, 65536) { send_out($data); next }
        return if $over;
        return send_out("k\n") if $dead and not -e "$dir/done";
        select undef, undef, undef, 0.02;
    }
}

send_out("nexus $id\n");
follow(@rest);

#: cancel
sub cancel {
    return send_out("n\n") if refused();
    my $until = now() + 5;
    my $pid   = slurp("$dir/pid");
    my $lives = sub { index(slurp("/proc/$pid/cmdline"), $id) >= 0 and slurp("/proc/$pid/stat") !~ /\) Z/ };
    kill "TERM", $pid if $lives->();
    select undef, undef, undef, 0.01 while $lives->() and now() < $until - 1;
    my $left = slay($lives->() ? $pid : 0, $until, sub { });
    kill "KILL", $pid if $lives->();
    send_out("c$left\n");
}
send_out("nexus $id\n");
cancel();
