#!/usr/bin/env bash
# What scripts/tpu_vm.sh starts on a host, in the folder that it installed. What it starts goes on after it.
#   tpu_host.sh serve              a server of this host's TPUs, once
#   tpu_host.sh again N COMMAND…   the command, again after a failure, N times at most; run.log and run.rc tell
set -euo pipefail

lives() {
  [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null
}

serve() {
  if lives server.pid; then
    return
  fi
  nohup .venv/bin/start_grpc_tpu_worker >server.log 2>&1 </dev/null &
  echo $! >server.pid
  # What it cannot do it says at once.
  sleep "${SETTLE:-10}"
  lives server.pid || { tail server.log >&2; exit 1; }
}

again() {
  if lives run.pid && [ ! -e run.rc ]; then
    echo "tpu_host.sh: an experiment runs here already, see run.log" >&2
    exit 1
  fi
  rm -f run.rc
  nohup "$0" attempts "$@" >>run.log 2>&1 </dev/null &
  echo $! >run.pid
}

attempts() {
  local most=$1 code
  shift
  for try in $(seq 0 "$most"); do
    code=0
    "$@" || code=$?
    echo "attempt $try of at most $most ended with $code"
    [ "$code" != 0 ] || break
    sleep "${PAUSE:-10}"
  done
  echo "$code" >run.rc
}

"$@"
