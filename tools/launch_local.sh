#!/usr/bin/env bash
# Starts a command as N workers of one job on this machine, to try what several hosts will do:
#   tools/launch_local.sh 2 divco-train --config digits/wide_resnet10_2_split4 --model_dir runs/two \
#     --bind 'loop.Options.strategy="multi_worker_mirrored"'
# On real hosts every one runs the same command with its own TF_CONFIG, as printed here.
# Each line is led by its worker's number. When one worker fails, so do the others, within about a minute; Ctrl-C and
# SIGTERM go to all of them. The exit status is the first worker's that failed.
set -uo pipefail

if [[ $# -lt 2 || ! "$1" =~ ^[1-9][0-9]*$ ]]; then
    echo "launch_local.sh: error: Say how many workers, and what they run. Received: $*; launch_local.sh 2 COMMAND works." >&2
    exit 2
fi
count="$1"
shift

workers="$(python3 - "$count" <<'PYTHON'
import json, socket, sys

sockets = [socket.socket() for _ in range(int(sys.argv[1]))]  # all open at once, so that the ports differ
for one in sockets:
    one.bind(("localhost", 0))
print(json.dumps([f"localhost:{one.getsockname()[1]}" for one in sockets]))
PYTHON
)" || exit

pids=()
for ((index = 0; index < count; index++)); do
    config="{\"cluster\": {\"worker\": $workers}, \"task\": {\"type\": \"worker\", \"index\": $index}}"
    echo "launch_local.sh: worker $index: TF_CONFIG='$config'"
    # The worker itself is the job, not the pipe behind it, so that signals and the exit status are the worker's.
    TF_CONFIG="$config" "$@" > >(sed -u "s/^/[worker $index] /") 2>&1 &
    pids+=($!)
done
trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM
trap 'kill -INT "${pids[@]}" 2>/dev/null' INT

status=0
for pid in "${pids[@]}"; do
    while true; do
        wait "$pid"
        ended=$?
        # A signal that is passed on ends `wait` too: then the worker is still there.
        kill -0 "$pid" 2>/dev/null || break
    done
    [[ $status == 0 ]] && status=$ended
done
exit "$status"
