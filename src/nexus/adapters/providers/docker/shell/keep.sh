# The keeper of one run, as root: $1 is its id, $2 the seconds after which it ends the run by itself.
# It also ends it when a line comes, or when whoever asked for the run goes away. Says `ready GROUP OOM-KILLS`, or
# `seen`, or `unready` when the container was not set up since it started; to the line `begin` it answers `go`, or `cancelled`; and at last it says `done OOM-KILLS STATUS`.
umask 077
cd /run/nexus && mkdir -p ids groups || exit 9
[ -f env ] || { echo unready; exit 0; }
oom() {
  for file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [ -r $file ] && while read -r key value; do [ "$key" = oom_kill ] && echo "$value" && return; done <$file
  done
}
g=20000
while ! mkdir "groups/$g" 2>/dev/null; do
  g=$((g + 1))
  [ $g -lt 60000 ] || exit 9
done
echo "$g" >"groups/$g/id"
echo "$1" >"groups/$g/run"
if ! ln "groups/$g/id" "ids/$1" 2>/dev/null; then
  rm -rf "groups/$g"
  echo seen
  exit 0
fi
(
  trap 'kill $sleeping; exit 0' TERM
  sleep "$2" &
  sleeping=$!
  wait $sleeping
  sweep
) </dev/null >/dev/null 2>&1 &
timer=$!
echo "ready $g $(oom)"
read -r line
if [ "$line" = begin ]; then
  # The run's first process is there and waits: from now on a cancel finds it.
  if [ -e "groups/$g/cancelled" ]; then
    echo cancelled
  else
    echo go
    read -r line
  fi
fi
sweep
kill $timer
result=/tmp/.nexus-$g/result
status=
[ -f "$result" ] && [ ! -L "$result" ] && read -r status <"$result"
rm -rf "groups/$g"
echo "done $(oom) $status"
