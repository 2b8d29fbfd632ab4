#!/usr/bin/env bash
# Gradescope runs this once, as root, when it makes the image in which all submissions are graded.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")"

fits() {
    "$1" -c 'import sys; sys.path.insert(0, "tools"); import environment; environment.check()' > /dev/null 2>&1
}

python=
for name in python3.13 python3.12 python3.11 python3; do
    if fits "$name"; then python=$name; break; fi
done
if [ -z "$python" ]; then
    for name in python3.12 python3.11 python3.13; do
        if DEBIAN_FRONTEND=noninteractive apt-get install --yes "$name" "$name-venv" && fits "$name"; then
            python=$name; break
        fi
    done
fi
if [ -z "$python" ]; then
    echo "This image has no Python of 3.11, 3.12 or 3.13 with venv, and apt-get has none: choose a newer Ubuntu." >&2
    exit 1
fi
"$python" tools/environment.py .venv requirements.txt
