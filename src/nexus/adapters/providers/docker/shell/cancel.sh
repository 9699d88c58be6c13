# End the run with the id $1, and see to it that none with this id starts any more; as root.
umask 077
cd /run/nexus && mkdir -p ids && echo none >"cancel.$$" || exit 9
if ! ln "cancel.$$" "ids/$1" 2>/dev/null; then
  read -r g <"ids/$1"
  if read -r id <"groups/$g/run" && [ "$id" = "$1" ]; then
    : >"groups/$g/cancelled"
    sweep
  fi 2>/dev/null
fi
rm -f "cancel.$$"
exit 0
