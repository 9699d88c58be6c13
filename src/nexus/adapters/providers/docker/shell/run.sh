# One run, as the user of the code: $1 its group, $2 how many bytes of the input are the program, $3 the program's
# file name, $4 the interpreter that has to be there, the rest the command line. The rest of the input is the
# program's own.
# Leaves the exit status and, after a signal, the shell's word for it; then ends well, so that any other
# end of this shell means that it was killed itself.
umask 022
place=/tmp/.nexus-$1
size=$2
code=$place/$3
[ -z "$4" ] || command -v "$4" >/dev/null || exit 98
shift 4
rm -rf "$place"
mkdir -m 711 "$place" && cat >"$place/all" || exit 99
head -c "$size" "$place/all" >"$code" && tail -c "+$((size + 1))" "$place/all" >"$place/stdin" || exit 99
rm "$place/all"
exec 4>&2 2>"$place/why"
( exec "$@" ) <"$place/stdin" 2>&4 4>&-
status=$?
rm -f "$code" "$place/stdin"
read -r why <"$place/why"
echo "$status $why" >"$place/result"
exit 0
