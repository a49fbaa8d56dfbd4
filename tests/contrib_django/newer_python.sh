#!/bin/sh
# Prints a Python that Django 6 takes (3.12 or newer, with venv), or nothing.
for python in python3 python3.14 python3.13 python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python; do
  if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
    echo "$python"
    exit
  fi
done
