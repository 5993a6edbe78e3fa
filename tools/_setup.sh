# Shared by test.sh and quickstart.sh, which source it in the root of the checkout: makes or reuses .venv.
# Safe to repeat: it installs again only after pyproject.toml changed, or the checkout moved.

python_or_die() {
    local python
    for python in python3.11 python3; do
        # Run it, as a version manager's shim may be on PATH without its Python.
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$python"
            return
        fi
    done
    echo "divco_tf needs Python 3.11 or later. Received: $(python3 --version 2>&1 | head -n 1); install python3.11." >&2
    return 1
}

# setup_venv [EXTRA]: .venv with divco_tf in editable mode, and the packages of its extra EXTRA ("dev").
setup_venv() {
    local extra="${1:-}" stamp=".venv/.installed-${1:-plain}" state python
    # An editable install points at this folder; a copied .venv would quietly test another checkout.
    state="$(pwd; cat pyproject.toml)"
    if [[ -x .venv/bin/python && -f "$stamp" && "$(cat "$stamp")" == "$state" ]]; then
        return
    fi
    python="$(python_or_die)" || return
    if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        "$python" -m venv --clear .venv || return
    fi
    echo "Installing divco_tf${extra:+ [$extra]} and what it needs into .venv: a few minutes, once." >&2
    local options=(--disable-pip-version-check --no-input)
    [[ -n "${CI:-}" || ! -t 2 ]] && options+=(--quiet --quiet)
    # `python -m pip`: the scripts in .venv/bin name the folder that the .venv was made in.
    .venv/bin/python -m pip install "${options[@]}" -e ".${extra:+[$extra]}" || return
    echo "$state" >"$stamp"
}
