# Lists the pages of the shop. It runs after a deployment and after an undo, so it is right either way.
set -eu
cd "$BACKOUT_ROOT_WEB"
find . -name '*.html' | sort > sitemap.txt
