# Sourced before every Ray command of a cluster node: by the start commands of the cluster files and, after
# setup.sh, by ~/.bashrc, which `ray down`, `ray exec` and `ray attach` go through.
#
# The environment's bin comes FIRST on PATH because Ray hands its own PATH on to jobs: the `python` of
# `ray job submit -- python sweeps/book.py` is the first one on the PATH that `ray start` saw on the head.
# A node with an environment of its own: export BEARRAY_VENV=/path/to/venv before this line.
_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PATH="${BEARRAY_VENV:-$_root/.venv}/bin:$PATH"
unset _root

# Ray 2.60 turns tokens on by itself only where a head finds one; workers and clients must be told. Without a
# token in ~/.ray/auth_token (or RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH), `ray start` now refuses to start.
export RAY_AUTH_MODE=token

# Secrets of jobs (HF_TOKEN, WANDB_API_KEY, ...), a NAME=value a line: Ray starts with them, and so do its workers
# and jobs. Not by a job's runtime environment, which Ray keeps and shows. Lines are taken literally, never run.
_file="${BEARRAY_SECRETS:-${HOME:-}/.config/bearray/secrets.env}"
if [ -r "$_file" ]; then
    _number=0
    while IFS= read -r _line || [ -n "$_line" ]; do
        _number=$((_number + 1))
        case "$_line" in "" | "#"*) continue ;; esac
        if [[ "$_line" =~ ^[A-Za-z_][A-Za-z0-9_]*= ]]; then
            export "${_line%%=*}=${_line#*=}"
        else  # says where, not what: it may be half of a secret
            echo "bearray: $_file, line $_number, is not NAME=value; it is left out" >&2
        fi
    done < "$_file"
fi
unset _file _line _number
