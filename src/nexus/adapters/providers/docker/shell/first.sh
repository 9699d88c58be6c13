# The first process of a container without Python: it only waits, and thereby buries orphans. As root it is out of
# reach of the code; as PID 1 it ignores what it does not handle.
trap 'exit 0' TERM
while :; do
  sleep 86400 &
  wait $!
done
