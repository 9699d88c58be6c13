# The input becomes the draft $2 of the file $1, as the user of the code.
[ -d "$1" ] && exit 45
[ ! -e "$1" ] || [ -f "$1" ] || exit 46
case $1 in
  */) exit 45 ;;
  */*) mkdir -p -- "${1%/*}" || exit 47 ;;
esac
cat >"$2" || { rm -f -- "$2"; exit 48; }
