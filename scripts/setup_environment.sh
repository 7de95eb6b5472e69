# Makes .venv with everything that training, evaluation and the tests need; nothing is installed twice.
# Used by quickstart.sh and run_tests.sh: source it from bash. Leaves $PYTHON and $BIN.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
BIN="$ROOT/.venv/bin"
PYTHON="$BIN/python"
STAMP="$ROOT/.venv/fgmm-installed"

if ! "${PYTHON3:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Python 3.11 or newer is needed as python3; set PYTHON3 to its path if it has another name." >&2
    exit 1
fi

WANTED="$(cat "$ROOT/setup.cfg" "$ROOT/scripts/constraints.txt" | cksum)"
if [ "$(cat "$STAMP" 2>/dev/null)" != "$WANTED" ] || ! "$PYTHON" -c '' 2>/dev/null; then
    echo "Next: installing the package and its pinned dependencies into .venv (a few minutes)."
    rm -f "$STAMP"
    if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
        rm -rf "$ROOT/.venv"
        "${PYTHON3:-python3}" -m venv "$ROOT/.venv" || {
            echo "python3 cannot make virtual environments; install its venv module (Debian: python3-venv)." >&2
            exit 1
        }
    fi
    # torch goes first and by its exact version: another requirement's range would take whatever is newest.
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --progress-bar on \
        "$(grep '^torch==' "$ROOT/scripts/constraints.txt")"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --progress-bar on \
        --constraint "$ROOT/scripts/constraints.txt" --editable "$ROOT[dev]"
    # torchaudio's wheel is linked against CUDA builds of torch; without its compiled files it works beside any build.
    if ! "$PYTHON" -c 'import torchaudio' 2>/dev/null; then
        LIB="$("$PYTHON" -c 'import importlib.util, os; print(os.path.dirname(importlib.util.find_spec("torchaudio").origin))')/lib"
        rm -f "$LIB"/_torchaudio* "$LIB"/libtorchaudio*
        "$PYTHON" -c 'import torchaudio'
        echo "Removed torchaudio's two compiled files from .venv: they fit only CUDA builds of torch, and are not needed."
    fi
    echo "$WANTED" >"$STAMP"
fi

# tests/test_common.py runs transformers' own tests against our classes; only its source distribution holds them.
TRANSFORMERS="transformers-$(sed -n 's/^transformers==//p' "$ROOT/scripts/constraints.txt")"
if [ ! -d "$ROOT/.venv/$TRANSFORMERS" ]; then
    echo "Next: fetching transformers' common tests into .venv."
    DOWNLOAD="$(mktemp -d "$ROOT/.venv/download.XXXXXX")"
    if "$PYTHON" -m pip download --quiet --disable-pip-version-check --retries 1 --no-deps --no-binary transformers \
        --dest "$DOWNLOAD" "${TRANSFORMERS/-/==}" 2>"$DOWNLOAD/errors" &&
        tar -xzf "$DOWNLOAD/$TRANSFORMERS.tar.gz" -C "$DOWNLOAD" "$TRANSFORMERS/tests"; then
        mv "$DOWNLOAD/$TRANSFORMERS" "$ROOT/.venv/"
    else
        echo "They could not be fetched ($(tail -n 1 "$DOWNLOAD/errors")); tests/test_common.py will be skipped." >&2
    fi
    rm -rf "$DOWNLOAD"
fi
