# Asks SQLite itself whether the file is sound.
set -eu
test "$(sqlite3 "$BACKOUT_DATABASE_MAIN" 'PRAGMA integrity_check')" = ok
