#!/usr/bin/env bash
# Make a virtual environment; Debian's bare python3 lacks the part that does it, which is installed when that is allowed.
set -euo pipefail
folder=$1
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "celforge needs Python 3.11 or newer, found: $("$python" --version 2>&1 || echo none)" >&2
    echo "  try: make PYTHON=/path/to/python3.11 ..." >&2
    exit 1
fi
"$python" -m venv "$folder" >/dev/null 2>&1 && exit 0

rm -rf "$folder"
package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
if command -v apt-get >/dev/null; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    echo "installing $package, which Python needs to make a virtual environment" >&2
    if "${as_root[@]}" apt-get update -qq && "${as_root[@]}" apt-get install -y -qq "$package" >/dev/null; then
        exec "$python" -m venv "$folder"
    fi
fi
echo "Python cannot make a virtual environment here" >&2
echo "  try: sudo apt-get install $package, then the same command again" >&2
exit 1
