#!/usr/bin/env bash
# Builds and tests everything with Bazel: from a copy of what git knows of the source tree, without a network.
# Debian's packages are installed if they are missing. KERAS_LTH_PYTHON is the Python that has the dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(bazel-bootstrap bazel-platforms bazel-rules-java bazel-rules-proto)
if ! dpkg-query --show "${packages[@]}" >/dev/null 2>&1; then
  install=(apt-get install -y -qq --no-install-recommends "${packages[@]}")
  "${install[@]}" >/dev/null 2>&1 || { apt-get update -qq && "${install[@]}" >/dev/null; }
fi

python=$(realpath --no-symlinks "${KERAS_LTH_PYTHON:-.venv/bin/python}")
work=$(mktemp -d)
# Bazel takes the right to write from what it makes.
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
mkdir "$work/source"
if git -c safe.directory='*' rev-parse --git-dir >/dev/null 2>&1; then
  git -c safe.directory='*' ls-files -z --cached --others --exclude-standard
else
  find . \( -name .venv -o -name build -o -name runs -o -name '*.so' \) -prune -o -type f -print0
fi | tar --null --files-from=- --ignore-failed-read -cf - | tar -xf - -C "$work/source"

if unshare --net true 2>/dev/null; then
  offline=(unshare --net)
elif unshare --user --map-root-user --net true 2>/dev/null; then
  offline=(unshare --user --map-root-user --net)
else
  echo "No network namespace is allowed here: proxies that lead nowhere stand in for it."
  offline=(env http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9)
fi

cd "$work/source"
echo "network: $("${offline[@]}" awk -F: 'NR > 2 { printf "%s ", $1 }' /proc/net/dev)"
for command in build test; do
  echo "bazel $command //..."
  # No server is left behind; the Java machine compiles no more than pays in a run this short.
  KERAS_LTH_PYTHON=$python "${offline[@]}" bazel --batch --output_user_root="$work/bazel" \
    --host_jvm_args=-XX:TieredStopAtLevel=1 --host_jvm_args=-XX:+UseSerialGC \
    "$command" --config=quick --jobs=2 --curses=no --noshow_progress "$@" //... 2>&1
done
