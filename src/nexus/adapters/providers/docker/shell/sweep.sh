# Kill every process of group $g, which one run alone has, and which nothing without privileges can leave.
# Stopping comes first: a stopped process keeps its place under the limit of processes, so a fork bomb stands still.
# Only what the shell itself can do, because there may be no room for another process.
each() {
  hit=0
  for file in /proc/[0-9]*/status; do
    state=
    { while read -r key value rest; do
        case $key in
          State:) state=$value ;;
          Gid:) [ "$value" = "$g" ] || state=; break ;;
        esac
      done <"$file"; } 2>/dev/null
    case $state in ''|Z*|X*) continue ;; T*) [ "$1" = STOP ] && continue ;; esac
    pid=${file#/proc/}
    kill -"$1" "${pid%/status}" 2>/dev/null && hit=1
  done
  [ $hit = 1 ]
}
sweep() {
  rounds=0
  while each STOP && [ $rounds -lt 20 ]; do rounds=$((rounds + 1)); done
  while each KILL; do :; done
}
