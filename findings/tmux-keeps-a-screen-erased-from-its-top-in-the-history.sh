#!/usr/bin/env bash
# tmux 3.3a copies the screen into its history when "erase to the end of the screen" (CSI J) comes at the top left corner.
#
# A good engineer would guess: CSI J (ECMA-48 8.3.39, ED 0) erases from the cursor to the end of the screen, and what is erased is
# gone, wherever the cursor stands. A progress bar of one line that begins with "CR, CSI J" then leaves no trace.
#
# What happens: at row 0, column 0 the lines of the whole screen are moved to the history before they are erased; one column further
# to the right, or one row lower, they are not. A bar reaches row 0 as soon as the window is made narrower, because tmux wraps the
# lines and pushes the top ones out. From then on each tick, ten a second, adds a line to the history.
#
# For actorsync: daemon/adapters/console/bar.py erases its line with CSI K, writes a space, and erases the rest from column 1.
#
# Needs apt-get (Debian 12), and python3. Exits 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
tmux() { LD_LIBRARY_PATH=$folder/usr/lib/$(uname -m)-linux-gnu "$folder/usr/bin/tmux" -S "$folder/socket" -f /dev/null "$@"; }
trap 'tmux kill-server 2>/dev/null || true; rm -rf "$folder"' EXIT
(cd "$folder" && apt-get download -q tmux=3.3a-3 libevent-core-2.1-7 libutempter0 >/dev/null 2>&1)
for package in "$folder"/*.deb; do dpkg -x "$package" "$folder"; done

cat >"$folder/bars.py" <<'PYTHON'
import sys
import time

erase = {"at the corner": "\r\x1b[J", "one column further": "\r \x1b[J\r"}[sys.argv[1]]
for number in range(50):
    sys.stdout.write(f"{erase}bar {number}\r")
    sys.stdout.flush()
    time.sleep(0.01)
time.sleep(60)
PYTHON

bars() { # how many are seen, the history included, when 50 were drawn one over the other
  tmux new-session -d -s "$2" -x 80 -y 20 "python3 '$folder/bars.py' '$1'"
  sleep 2
  tmux capture-pane -p -S - -t "$2" | grep -c '^bar'
}
corner=$(bars "at the corner" one)
further=$(bars "one column further" two)
echo "$(tmux -V): 50 bars drawn over one another in the first row leave $corner lines when erased from the corner, $further from one column further"
[[ $corner -gt 1 && $further = 1 ]]
