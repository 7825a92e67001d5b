#!/usr/bin/env bash
# scripts/tpu_vm.sh starts this on a host, in the folder that it installed. Processes started here outlive it.
#   tpu_host.sh serve              starts a server of this host's TPUs, once
#   tpu_host.sh again N COMMAND…   runs the command, again after a failure, at most N times; see run.log and run.rc
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
  # It reports at once if it cannot start.
  sleep "${SETTLE:-10}"
  lives server.pid || { tail server.log >&2; exit 1; }
}

again() {
  if lives run.pid && [ ! -e run.rc ]; then
    echo "tpu_host.sh: an experiment is already running here, see run.log" >&2
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
