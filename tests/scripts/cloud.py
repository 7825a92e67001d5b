"""A cloud in a folder: a ``gcloud`` that keeps a slice's hosts as folders and runs on them what comes by ssh."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]

GCLOUD = """\
#!/usr/bin/env bash
# Hosts are folders of $CLOUD; $CLOUD/state is the slice's, $CLOUD/calls has a line a call.
set -euo pipefail
printf '%q ' "$@" >>"$CLOUD/calls"; echo >>"$CLOUD/calls"
for word in "$@"; do
  case $word in
    --worker=*) worker=${word#*=} ;;
    --command=*) command=${word#*=} ;;
    --format=*) format=${word#*=} ;;
  esac
done
hosts=("$CLOUD"/host*)
[ "${worker:-all}" = all ] || hosts=("$CLOUD/host$worker")
case "$1 $2 $3 $4" in
  "compute tpus tpu-vm create")
    if [ -s "$CLOUD/refusals" ]; then sed -i 1d "$CLOUD/refusals"; exit 1; fi
    [ ! -e "$CLOUD/state" ]
    for i in $(seq "$HOSTS"); do mkdir "$CLOUD/host$((i - 1))"; done
    echo READY >"$CLOUD/state" ;;
  "compute tpus tpu-vm delete") rm -r "$CLOUD"/host* "$CLOUD/state" ;;
  "compute tpus tpu-vm describe")
    cat "$CLOUD/state" >/dev/null
    case $format in
      *Endpoints*) seq -s, -f '10.0.0.%g' "$HOSTS" ;;
      *) cat "$CLOUD/state" ;;
    esac ;;
  "compute tpus tpu-vm ssh")
    for host in "${hosts[@]}"; do (cd "$host" && HOME=$host bash -c "$command"); done ;;
  "compute tpus tpu-vm scp")
    for host in "${hosts[@]}"; do cp "$5" "$host/${6#*:}"; done ;;
  *) exit 64 ;;
esac
"""
# Stands for the Python of a host: ``-m venv`` makes an environment whose programs write down what they are called with.
PYTHON3 = """\
#!/usr/bin/env bash
set -euo pipefail
bin=$3/bin
mkdir -p "$bin"
printf '#!/usr/bin/env bash\\necho "$@" >>pip.calls\\n' >"$bin/pip"
printf '#!/usr/bin/env bash\\nexec sleep 60\\n' >"$bin/start_grpc_tpu_worker"
cp "$CLOUD/program" "$bin/python"
chmod +x "$bin"/*
"""
# Stands for the experiment: $CLOUD/fates says how the next attempts end.
PROGRAM = """\
#!/usr/bin/env bash
printf '%s\\n' "${TPU_LOAD_LIBRARY:-unset}" "$@" --- >>"$CLOUD/programs"
fate=$(head -n 1 "$CLOUD/fates")
sed -i 1d "$CLOUD/fates"
[ "$fate" != hangs ] || exec sleep 60
exit "$fate"
"""


class Cloud:
    """One slice of ``hosts`` hosts, not made yet; ``fates`` are the exit codes of the program's attempts."""

    def __init__(self, folder: Path, hosts: int, fates: list[object]) -> None:
        self.folder = folder
        tools = folder / "tools"
        tools.mkdir()
        for name, text in {"gcloud": GCLOUD, "python3": PYTHON3, "sudo": "#!/bin/sh\n", "../program": PROGRAM}.items():
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        (folder / "fates").write_text("".join(f"{fate}\n" for fate in fates))
        self.environment = {
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "CLOUD": str(folder), "HOSTS": str(hosts),
            "WORKDIR": "gs://bucket/run", "PERIOD": "0.1", "SETTLE": "0.2", "PAUSE": "0.1",
        }  # fmt: skip

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """``scripts/tpu_vm.sh`` with these arguments."""
        return subprocess.Popen(
            [str(ROOT / "scripts" / "tpu_vm.sh"), *arguments],
            env={**os.environ, **self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """What it prints on stdout, or on stderr where it is to end with another code."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, f"{process.returncode}: {out}\n{err}"
        return err if code else out

    def programs(self) -> list[list[str]]:
        """The experiment's attempts: TPU_LOAD_LIBRARY, then the words."""
        path = self.folder / "programs"
        text = path.read_text() if path.exists() else ""
        return [one.splitlines() for one in text.split("---\n")[:-1]]

    def read(self, host: int, name: str) -> str:
        """A file of a host's folder keras_lth; empty where there is none."""
        path = self.folder / f"host{host}" / "keras_lth" / name
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        """End what was started on the hosts."""
        for path in self.folder.glob("host*/keras_lth/*.pid"):
            with suppress(OSError, ValueError):
                os.kill(int(path.read_text()), signal.SIGTERM)


def shellcheck(*files: Path) -> str:
    """What shellcheck says about the files; empty where they are clean."""
    program = Path(sys.executable).with_name("shellcheck")
    return subprocess.run([program, *files], capture_output=True, text=True, check=False).stdout
