# The first $2 bytes of the file $1, as the user of the code.
[ -e "$1" ] || exit 44
[ -d "$1" ] && exit 45
[ -f "$1" ] || exit 46
exec head -c "$2" <"$1" || exit 47
