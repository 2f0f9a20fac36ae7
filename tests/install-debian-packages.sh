#!/usr/bin/env bash
# Install the Debian packages that some tests need (tests/debian-packages.txt). Does nothing where all are installed.
set -euo pipefail
cd "$(dirname "$0")"
mapfile -t packages < <(sed -E 's/\s*(#.*)?$//; /^$/d' debian-packages.txt)
if dpkg-query --show --showformat '${db:Status-Status}\n' "${packages[@]}" 2>/dev/null | grep -qvx installed ||
    ! dpkg-query --show "${packages[@]}" >/dev/null 2>&1; then
    as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
fi
