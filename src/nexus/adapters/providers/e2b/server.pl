# A perl that is started and compiled for each run takes longer than most runs. So the keeper of a sandbox's first run
# leaves this behind: a fork server, which has the next keeper ready, forked and compiled, and below it the process that
# will become the command. Nothing depends on it: a run that finds it dead, deaf or gone starts a perl of its own, which
# puts a new one in its place.
#
#   ROOM/door      the fifo to knock at: "ID PID", filled up to 128 bytes; PID is the shell that E2B has started
#   ROOM/bell      a fifo that is rung after each answer, so that nobody has to look for it all the time
#   ROOM/pid       of the server; who finds another's is not the server any more
#   ROOM/ID.PID    the answer: a fifo from which the frames of the run come, or a plain file for a refusal
#   ROOM/ID.PID.order  the order, and what the shell exports
#
# Evaluated within guest.pl, whose variables and subs it uses.
#: server
my $room = $rest[2];
my ($mkfifo, $setsid) = $machine == 62 ? (133, 112) : (33, 157);
my ($door, $bell);
my $limits = slurp("/proc/$$/limits");          # what a profile may change, and we cannot do after it

sub make_fifo {
    my ($path) = @_;
    return 0 == syscall $mkfifo, $mkfifo == 33 ? -100 : (), $path, 0010600, 0;
}

sub clear {
    my ($folder) = @_;
    opendir my $names, $folder or return;
    unlink map { "$folder/$_" } readdir $names;
    rmdir $folder;
}

# What `export -p` says of one variable. An array is exported to nobody; what else there is we do not know.
my $quoted   = qr/"(?:[^"\\]|\\.)*"|\$'(?:[^'\\]|\\.)*'/s;
my $exported = qr/declare -[a-z]+ (\w+)(?:=($quoted))?\n/;
my $next     = qr/\G$exported/;
my $all      = qr/\A$exported*\z/;
my %escaped  = (a => "\a", b => "\b", E => "\e", f => "\f", n => "\n", r => "\r", t => "\t", v => "\013");

sub unquote {
    my ($text) = @_;
    my $style = substr $text, 0, 1;
    $text = substr $text, $style eq '"' ? 1 : 2, -1;
    if ($style eq '"') { $text =~ s/\\([\\"\$`])/$1/g }
    else               { $text =~ s/\\([0-7]{3}|.)/length $1 == 3 ? chr oct $1 : $escaped{$1} \/\/ $1/ges }
    return $text;
}

# The order that was laid down for $id, and what the shell exports.
sub laid_down {
    my ($told, $exports) = split /\0/, slurp("$answer.order"), 2;
    return ($exports, told($told));
}

sub acceptable {
    my ($pid, $exports, $whose) = @_;
    return (defined $whose and $whose eq $id and -O "$answer.order" and slurp("/proc/$pid/limits") eq $limits and $exports =~ $all);
}

# Becomes what E2B's shell is, in what a program inherits.
sub inherit {
    my ($pid, $exports) = @_;
    # Names that are none to a shell it hands on as it got them.
    my %env = map { /^([^=]*\W[^=]*)=(.*)/s } split /\0/, slurp("/proc/$pid/environ");
    while ($exports =~ /$next/g) { $env{$1} = unquote($2) if defined $2 }
    delete $env{NEXUS_ORDER};
    $env{SHLVL}-- if ($env{SHLVL} // 0) =~ /^[1-9]\d{0,8}$/;    # as `exec` does
    %ENV = %env;
    chdir "/proc/$pid/cwd";
    umask oct $1 if slurp("/proc/$pid/status") =~ /^Umask:\s*(\d+)/m;
}

# Memory is copied when a forked process first writes to it: better before somebody waits.
sub rehearse {
    ($id, $answer) = ("rehearsal", "$room/rehearsal");
    my ($exports, @told) = laid_down();
    acceptable($$, $exports, @told);
    inherit($$, $exports);
}

sub await_order {
    my ($from) = @_;
    rehearse();
    sysread $from, my $knock, 128 or exit;
    ($id, my $pid) = split / /, $knock;
    $answer = "$room/$id.$pid";
    (my $exports, undef, @order) = laid_down();
    inherit($pid, $exports);
    sysread $from, my $go, 1 or exit;
    become(@order[2 .. $#order]);
}

sub keep_next {
    my ($taken) = @_;
    syscall $prctl, 1, 9, 0, 0, 0;         # PR_SET_PDEATHSIG: nobody waits at the door without a server
    syscall $setsid;                       # as E2B does for what it starts
    pipe my $orders, my $order;
    my $path = "$room/$$.next";
    make_fifo($path) or exit;
    prepare();
    if (spawn()) {
        close $order;
        await_order($orders);
    }
    close $orders;
    rehearse();
    $SIG{ALRM} = sub { };
    my $knock = "";
    sysread $door, $knock, 128 or exit;
    syswrite $order, $knock;               # it may read on, but do nothing yet
    ($id, my $pid) = split / /, $knock;
    exit if "$id$pid" =~ /[^\w-]/;
    $answer = "$room/$id.$pid";
    syscall $prctl, 1, 0, 0, 0, 0;
    my ($exports, @told) = laid_down();
    my $fine = acceptable($pid, $exports, @told);
    if ($fine) { rename $path, $answer }
    else       { unlink $path; open my $no, ">", $answer }
    sysread $bell, my $stale, 4096;
    syswrite $bell, "\n";
    syswrite $taken, ".";
    exit unless $fine;
    $0     = "nexus run $id";
    $dir   = "$home/runs/$id";
    $relay = 1;
    # The shell takes what it is offered by opening it, or has given up: then the run is not ours.
    alarm 1;
    unless (open STDOUT, ">", $answer) { unlink $answer, "$answer.order"; exit }
    alarm 0;
    begin();
    kill "CONT", $child;                   # whoever stopped it did not know this run
    syswrite $order, ".";
    unlink $answer;
    run(@told[1, 2]);
    syscall $machine == 62 ? 231 : 94, 0;  # exit_group
}

sub serve {
    open $door, "+<", "$room/door" or exit;
    open $bell, "+<", "$room/bell" or exit;
    fcntl $bell, 4, 04002;                 # F_SETFL: O_RDWR | O_NONBLOCK
    my $barren = 0;
    while (slurp("$room/pid") eq "$$\n" and $barren < 20) {
        pipe my $news, my $taken;
        my $next = fork;
        last unless defined $next;
        keep_next($taken) unless $next;
        close $taken;
        my $at_news = "";
        vec($at_news, fileno $news, 1) = 1;
        until (select my $ready = $at_news, undef, undef, 30) { exit if slurp("$room/pid") ne "$$\n" }
        if (sysread $news, my $some, 1) {
            # Ready again when the run is over, or someone else is at the door: a short run has the machine for itself.
            vec($at_news, fileno $door, 1) = 1;
            select $at_news, undef, undef, 0.05;
            $barren = 0;
        }
        else {
            # Killed, or it could not make itself ready, or somebody talks nonsense at the door.
            select undef, undef, undef, 0.05;
            $barren++;
        }
    }
}

sub leave_server {
    return unless $prctl;
    return if $answer and unlink $answer;         # it refused this run alone
    my $server = slurp("$room/pid");
    if ($server eq "" or $deaf and $server eq "$deaf\n") {
        kill "KILL", $deaf if $deaf and index(slurp("/proc/$deaf/cmdline"), $room) >= 0;
        clear($room);
    }
    return if -e $room or fork;
    $SIG{$_} = "DEFAULT" for qw(TERM PIPE CHLD);
    setpgrp 0, 0;
    chdir "/";
    open STDIN,  "<", "/dev/null";
    open STDOUT, ">", "/dev/null";
    open STDERR, ">", "/dev/null";
    %from = ();
    ($spool, $cancelled) = ();
    $SIG{CHLD} = $SIG{PIPE} = "IGNORE";
    $0         = "nexus fork server $room";
    mkdir "$room.$$", 0700;
    make_fifo("$room.$$/$_") for "door", "bell";
    open my $note, ">", "$room.$$/pid";
    print $note "$$\n";
    close $note;
    open my $rehearsal, ">", "$room.$$/rehearsal.order";
    print $rehearsal "9 1 1\nrehearsal11\0declare -x A=\"\\\$\"\ndeclare -x B=\$'\\n'\n";
    close $rehearsal;
    unless (rename "$room.$$", $room) { clear("$room.$$"); exit }
    serve();
    exit;
}
leave_server();
