#!/usr/bin/env bash
# Installs bearray and its pinned versions on a cluster node, into .venv beside this folder.
#
#   bash ~/bearray/cluster/setup.sh            # what every node needs
#   bash ~/bearray/cluster/setup.sh aws        # also the extras of pyproject.toml that are named
#
# Run again, it does nothing unless pyproject.toml, constraints.txt or the extras have changed.
# PYTHON=python3.12 chooses the interpreter (all nodes need the same minor version: Ray refuses others), and
# pip's own variables say from where to install (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${BEARRAY_VENV:-$root/.venv}"
python="${PYTHON:-python3}"
extras="$(IFS=,; echo "$*")"

fail() { echo "bearray setup on $(hostname): $*" >&2; exit 1; }

[ -s "$HOME/.ray/auth_token" ] ||
    fail "there is no token in ~/.ray/auth_token; on the machine that runs \`ray up\`: ray get-auth-token --generate"
chmod 700 "$HOME/.ray"
chmod 600 "$HOME/.ray/auth_token"
secrets="$HOME/.config/bearray/secrets.env"  # read by env.sh, if there are any
[ ! -e "$secrets" ] || chmod 600 "$secrets"

# DeepSpeed compiles one small C++ operation at its first use.
command -v "${CXX:-c++}" >/dev/null || fail "no C++ compiler (Debian, Ubuntu: apt-get install g++ python3-dev)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "$python is older than Python 3.10"

pins="$(cat "$root/pyproject.toml" "$root/constraints.txt" | sha256sum)"
stamp="$venv/.bearray${extras:+-$extras}"
if [ "$(cat "$stamp" 2>/dev/null)" != "$pins" ]; then
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" ||
        fail "$python cannot make a virtual environment (Debian, Ubuntu: apt-get install python3-venv)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -c "$root/constraints.txt" -e "$root${extras:+[$extras]}"
    echo "$pins" > "$stamp"
fi

# A GPU that PyTorch cannot use would turn the node into a slow CPU node; better to stop here.
if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
    "$venv/bin/python" - <<'PYTHON' || fail "PyTorch cannot use this machine's GPU; see docs/cluster.md, CUDA"
import sys, torch
sys.exit(not torch.cuda.is_available())
PYTHON
fi

# For `ray down`, `ray exec` and `ray attach`, which run their commands in a login shell.
line=". \"$root/cluster/env.sh\"  # bearray"
[ -z "${BEARRAY_VENV:-}" ] || line="export BEARRAY_VENV=\"$venv\"; $line"
grep -qxF "$line" "$HOME/.bashrc" 2>/dev/null || echo "$line" >> "$HOME/.bashrc"
