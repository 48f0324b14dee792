#!/bin/sh
# split-debug.sh FULL STRIPPED SYMBOLS: the symbols go into a file of their own, to which the
# stripped binary points (.gnu_debuglink), so that gdb and perf find them beside it.
set -eu
objcopy --only-keep-debug "$1" "$3"
objcopy --strip-all --add-gnu-debuglink="$3" "$1" "$2"
chmod 755 "$2"
chmod 644 "$3"
