# What .ci/run and .ci/full share; both source it, and then stand in the root of the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d "${TMPDIR:-/tmp}/jaxmeta-ci.XXXXXX")
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

unset PYTHONPATH PYTHONHOME
export PYTHONDONTWRITEBYTECODE=1 IPYTHONDIR="$scratch/ipython"

say() {
    printf '\n== %s (after %d s)\n' "$1" "$SECONDS"
}

# The first of several interpreters that runs, and whose version meets a condition. A name on the PATH may be a shim of
# pyenv with nothing behind it, so each one is tried.
interpreter() {
    local condition="import sys; sys.exit(not sys.version_info[:2] $1)" candidate
    for candidate in "${@:2}"; do
        if "$candidate" -c "$condition" >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

# environment PYTHON FOLDER EXTRAS: the checkout, editable, in an environment of its own.
environment() {
    "$1" -m venv "$2"
    "$2/bin/python" -m pip install --quiet --disable-pip-version-check -e ".[$3]"
    "$2/bin/python" -c "import jax, platform; print(f'Python {platform.python_version()}, JAX {jax.__version__}')"
}

pyenv_versions="${PYENV_ROOT:-$(pyenv root 2>/dev/null || true)}/versions"

main_environment() {
    local python
    if ! python=$(interpreter ">= (3, 11)" python3.11 python3 python "$pyenv_versions"/3.11*/bin/python); then
        echo "A Python of version 3.11 or newer must be found, got none." >&2
        exit 1
    fi
    environment "$python" "$scratch/main" dev
    export PATH="$scratch/main/bin:$PATH"
}

style_and_types() {
    say "Style"
    ruff check .
    ruff format --check .
    say "Types"
    pyright --pythonpath "$scratch/main/bin/python"
}

# The site, with every warning an error; nothing is fetched.
site() {
    say "Docs"
    NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet --site-dir "$scratch/site"
}

# notebooks NAME...: executes them, two at a time; each must hold its outputs.
notebooks() {
    say "Notebooks"
    cp -R notebooks "$scratch/notebooks"
    (cd "$scratch/notebooks" && python - "$@") <<'END'
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def execute(path: Path) -> str:
    start, notebook = time.monotonic(), nbformat.read(path, as_version=4)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code"), f"{path} has no outputs"
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    return f"{path}: {len(notebook.cells)} cells, {time.monotonic() - start:.0f} s"


with ThreadPoolExecutor(2) as pool:  # the last take longest
    print(*pool.map(execute, sorted(map(Path, sys.argv[1:]), reverse=True)), sep="\n")
END
}
