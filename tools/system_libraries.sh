#!/usr/bin/env bash
# OpenCV's wheel needs two system libraries that a bare Debian lacks; they are installed when that is allowed.
set -euo pipefail
python=$1

"$python" -c 'import cv2' 2>/dev/null && exit 0
if command -v apt-get >/dev/null; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    echo "installing libgl1 and libglib2.0-0, which OpenCV needs" >&2
    "${as_root[@]}" apt-get update -qq && "${as_root[@]}" apt-get install -y -qq libgl1 libglib2.0-0 >/dev/null || true
fi
"$python" -c 'import cv2' 2>/dev/null && exit 0
echo "OpenCV cannot be loaded: $("$python" -c 'import cv2' 2>&1 | tail -n 1)" >&2
echo "  try: sudo apt-get install libgl1 libglib2.0-0, then the same command again" >&2
exit 1
