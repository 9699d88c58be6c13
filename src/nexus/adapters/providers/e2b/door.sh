# What E2B's shell does for a run: it lays down the order, knocks at the fork server's door (server.pl), and hands on
# what the run's keeper says. Without an answer within 0.3 s it becomes the keeper itself (guest.pl): what follows here.
# Builtins only, and no variable that the program gets to see. A shell reads no further than it gets, so the long text
# comes last. The arguments: ROOM ID ORDER ANSWER.
if { [[ -O $1 ]] && read -r NEXUS_ORDER < "$1/pid" && kill -0 "$NEXUS_ORDER" &&
{ printf '%s\0' "$3" && export -p && export -fp; } >| "$4.order" &&
printf '%-127s\n' "$2 $$ " 1<> "$1/door"; } 2> /dev/null; then
for _ in {1..30}; do [[ -e $4 ]] && break; read -rt .01 _ 0<> "$1/bell"; done
fi
if [[ -p $4 ]]; then
shopt -s execfail
{ set -- "$1" "$2" "$3"; IFS= read -rd '' NEXUS_ORDER; [[ $NEXUS_ORDER ]] && printf %s "$NEXUS_ORDER" || exec cat; } < "$4"
# Not to be taken for a user who logs out. Where the keeper has given up meanwhile, nothing was opened.
[[ $4 ]] || { HOME=; exit 0; }
fi
export NEXUS_ORDER
