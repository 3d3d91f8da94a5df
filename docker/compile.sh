#!/bin/sh
# Compile the walk over packed trees for the Python of this system: compile.sh trees.c FOLDER, the
# folder being one that the server's Python looks into.
set -e
include=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')
exec cc -O2 -Wall -Werror -shared -fPIC -I "$include" -o "$2/alphaplus_trees.abi3.so" "$1"
