# shellcheck shell=bash
# What the scripts that deploy to real applications share: all that a database and a tree are, as text, and what a package
# of Debian's is missing. Sourced, not run. Servers are found as `cargo xtask with-server` tells of them.

fail() { echo "error: $*" >&2; exit 1; }

# need PACKAGE COMMAND...: installs the package where the command fails.
need() {
  local package=$1
  shift
  "$@" >/dev/null 2>&1 && return
  [ "$(id -u)" -eq 0 ] || fail "$package is missing: apt-get install $package"
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$package" >&2
}

# unpacked NAME PACKAGE...: the folder of Debian's packages, which are unpacked there and not installed.
unpacked() {
  local folder=${BACKOUT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/backout}/$1-debian package
  shift
  if [ ! -e "$folder/complete" ]; then
    rm -rf "$folder"
    mkdir -p "$folder/packages"
    (cd "$folder/packages" && apt-get -q download "$@" >&2)
    for package in "$folder"/packages/*.deb; do dpkg -x "$package" "$folder"; done
    touch "$folder/complete"
  fi
  echo "$folder"
}

# What the client is called with.
mariadb_as_root() {
  local client=$1
  shift
  "$client" --no-defaults --socket="$MYSQL_UNIX_PORT" -u root "$@"
}

# dump ENGINE DATABASE: the whole database, without the tool's own tables.
dump() {
  local tables
  case $1 in
    sqlite)
      sqlite3 "$2" .dump | grep -Ev '^(INSERT INTO|CREATE [A-Z ]*) "?backout'
      sqlite3 "$2" "SELECT type, name, tbl_name FROM sqlite_schema WHERE tbl_name NOT LIKE 'backout%' ORDER BY rowid" ;;
    postgres)
      # The order of rows says nothing; the key of \restrict is another one each time.
      pg_dump --exclude-schema 'backout*' "$2" | grep -Ev '^\\(un)?restrict' | sort ;;
    mariadb)
      # A dump of the stock client loses digits of these.
      mariadb_as_root mariadb -N -e "SELECT CONCAT('SELECT CAST(\`', COLUMN_NAME, '\` AS DOUBLE) FROM \`', TABLE_NAME, '\` ORDER BY 1;')
        FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = '$2' AND TABLE_NAME NOT LIKE 'backout%' AND DATA_TYPE IN ('float', 'double')
        ORDER BY TABLE_NAME, ORDINAL_POSITION" | mariadb_as_root mariadb -N "$2"
      tables=$(mariadb_as_root mariadb -N -e "SELECT TABLE_NAME FROM information_schema.TABLES
        WHERE TABLE_SCHEMA = '$2' AND TABLE_NAME NOT LIKE 'backout%' ORDER BY 1")
      # shellcheck disable=SC2086
      mariadb_as_root mariadb-dump --skip-comments --skip-extended-insert --hex-blob --order-by-primary --routines --events \
        --triggers "$2" $tables ;;
  esac
}

# tree DIRECTORY: every file with its rights, owner, time and content.
tree() {
  find "$1" -printf '%p %y %m %U:%G %T@ %s %l\n' | sort
  find "$1" -type f -print0 | sort -z | xargs -0 -r sha256sum
}

# expect STATE WHAT: what `state` says now is what that file says.
expect() {
  state >now.txt
  cmp -s "$1" now.txt || { diff "$1" now.txt | cut -c1-300 | head -20 >&2; fail "$2: the site differs from $1"; }
  echo "$2: identical ($(wc -l <now.txt) lines of database and tree)"
}
