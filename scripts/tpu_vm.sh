#!/usr/bin/env bash
# Runs an experiment on a Cloud TPU VM slice, from your own machine; docs/pods.md explains each step.
set -euo pipefail

usage() {
  cat <<'TEXT'
scripts/tpu_vm.sh [--dry-run] COMMAND [-- FLAGS of keras_lth.bin.run]

  create    creates the slice
  install   installs keras_lth and TensorFlow for TPU on every host
  run       starts the experiment; it keeps running after you disconnect
  watch     shows the state of the slice and the log of the experiment, until you press Ctrl-C
  keep      creates a missing or preempted slice, installs and runs, until the experiment has ended
  collect   copies the run's folder to LOCAL
  delete    deletes the slice; the bucket stays

--dry-run prints the commands instead. Settings are environment variables:
  NAME     name of the slice                 (keras-lth)
  ZONE     zone of the slice                 (us-west4-a)
  TYPE     type of accelerator               (v5litepod-16)
  IMAGE    software version of the VMs       (v2-alpha-tpuv5-lite)
  SPOT     1 for a slice that may be preempted, 0  (1)
  WORKDIR  folder of the run in a bucket, gs://…   (needed by run, keep, collect)
  LOCAL    where collect copies to           (runs/$NAME)
  RESTARTS of the program after a failure    (10)
  PERIOD   seconds between checks of keep    (60)
TEXT
}

NAME=${NAME:-keras-lth}
ZONE=${ZONE:-us-west4-a}
TYPE=${TYPE:-v5litepod-16}
IMAGE=${IMAGE:-v2-alpha-tpuv5-lite}
SPOT=${SPOT:-1}
WORKDIR=${WORKDIR:-}
LOCAL=${LOCAL:-runs/$NAME}
RESTARTS=${RESTARTS:-10}
PERIOD=${PERIOD:-60}
DRY=0

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Prints the command in a form that can be pasted, or runs it.
do_it() {
  if [ "$DRY" = 1 ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

tpu() {
  do_it gcloud compute tpus tpu-vm "$@" --zone="$ZONE"
}

on_hosts() {
  tpu ssh "$NAME" --worker="$1" --command="$2"
}

# One line about the slice; empty if there is none.
asked() {
  gcloud compute tpus tpu-vm describe "$NAME" --zone="$ZONE" --format="$1" 2>/dev/null || true
}

# The addresses of the hosts, host 0 first, separated by commas.
hosts() {
  if [ "$DRY" = 1 ]; then
    echo "HOST0,HOST1"
  else
    asked 'value[delimiter=","](networkEndpoints[].ipAddress)'
  fi
}

need_workdir() {
  case $WORKDIR in
    gs://?*) ;;
    *)
      echo "tpu_vm.sh: WORKDIR=gs://BUCKET/FOLDER is needed: the disks of a slice are deleted with it, a bucket stays." >&2
      exit 2
      ;;
  esac
}

create() {
  local spot=()
  [ "$SPOT" = 0 ] || spot=(--spot)
  tpu create "$NAME" --accelerator-type="$TYPE" --version="$IMAGE" --scopes=cloud-platform "${spot[@]}"
}

install() {
  local archive
  archive=$(mktemp -d)/keras_lth.tar.gz
  do_it tar -C "$root" -czf "$archive" --exclude='*.so' --exclude=__pycache__ \
    pyproject.toml setup.py MANIFEST.in README.md keras_lth cc configs scripts &&
    tpu scp "$archive" "$NAME:keras_lth.tar.gz" --worker=all &&
    on_hosts all "$INSTALL"
}

# TensorFlow for TPU replaces TensorFlow, which pip would install over it, hence --no-deps. The program starts in the
# folder of the sources, where Python imports them: --editable builds the C++ core there.
INSTALL='set -e
sudo apt-get update -qq
sudo apt-get install -y -qq g++ python3-dev python3-venv
mkdir -p keras_lth
tar -C keras_lth -xzf keras_lth.tar.gz
cd keras_lth
python3 -m venv .venv
.venv/bin/pip install --quiet --upgrade pip setuptools wheel pybind11
.venv/bin/pip install --quiet --requirement scripts/tpu_requirements.txt
.venv/bin/pip install --quiet --no-deps --no-build-isolation --editable .'

# With several hosts each host has a server for its TPUs, and the program on host 0 drives them all.
run() {
  need_workdir
  local addresses target=local words
  local program=(.venv/bin/python -m keras_lth.bin.run)
  addresses=$(hosts)
  if [ -z "$addresses" ]; then
    echo "tpu_vm.sh: there is no slice $NAME in $ZONE: scripts/tpu_vm.sh create" >&2
    return 1
  fi
  if [[ $addresses == *,* ]]; then
    target=grpc://${addresses//,/:8470,grpc://}:8470
    # The program itself leaves the TPUs of its host to the server.
    program=(env TPU_LOAD_LIBRARY=0 "${program[@]}")
    on_hosts all "cd keras_lth && scripts/tpu_host.sh serve" || return 1
  fi
  # The same command resumes where it was stopped.
  words=$(printf ' %q' "${program[@]}" --strategy=tpu --tpu="$target" --workdir="$WORKDIR" "$@")
  on_hosts 0 "cd keras_lth && scripts/tpu_host.sh again $RESTARTS$words"
}

watch() {
  do_it gcloud compute tpus tpu-vm describe "$NAME" --zone="$ZONE" --format='value(state,health)'
  on_hosts 0 'tail -n 50 -F keras_lth/run.log'
}

# How the experiment on host 0 ended; "never" if none was started, empty while it runs.
ended() {
  gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=0 \
    --command='cat keras_lth/run.rc 2>/dev/null || [ -s keras_lth/run.pid ] || echo never' \
    2>/dev/null || true
}

keep() {
  need_workdir
  if [ "$DRY" = 1 ]; then
    delete
    create
    install
    run "$@"
    return
  fi
  local state code
  while true; do
    state=$(asked 'value(state)')
    case $state in
      READY)
        code=$(ended)
        if [ "$code" = never ]; then
          { install && run "$@"; } || echo "installation failed, trying again in $PERIOD s"
        elif [ -n "$code" ]; then
          echo "the experiment has ended with $code"
          return "$code"
        fi
        ;;
      PREEMPTED | TERMINATED | "")
        echo "the slice is ${state:-missing}: creating it again"
        [ -z "$state" ] || delete || true
        create || echo "not created, trying again in $PERIOD s"
        ;;
    esac
    sleep "$PERIOD"
  done
}

collect() {
  need_workdir
  do_it mkdir -p "$LOCAL"
  do_it gcloud storage rsync --recursive "$WORKDIR" "$LOCAL"
}

delete() {
  tpu delete "$NAME" --quiet
}

if [ "${1:-}" = --dry-run ]; then
  DRY=1
  shift
fi
command=${1:-}
shift || true
[ "${1:-}" != -- ] || shift
case $command in
  create | install | watch | collect | delete)
    [ $# = 0 ] || { echo "tpu_vm.sh: $command takes no flags: $*" >&2; exit 2; }
    "$command"
    ;;
  run | keep) "$command" "$@" ;;
  -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
