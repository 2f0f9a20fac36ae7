#!/usr/bin/env bash
# Install the Debian packages that some tests need (tests/debian-packages.txt), where root's rights are to be had without a
# password. Otherwise it says in one line what is missing and succeeds: those tests are skipped.
set -euo pipefail
cd "$(dirname "$0")"

mapfile -t packages < <(sed -E 's/\s*(#.*)?$//; /^$/d' debian-packages.txt)

missing() { # those of the list that are not installed
  local name
  for name in "${packages[@]}"; do
    [[ $(dpkg-query --show --showformat '${db:Status-Status}' "$name" 2>/dev/null) = installed ]] || printf '%s ' "$name"
  done
}

left_out() { # WHY
  printf 'NOT INSTALLED: %s(%s): tests that need them are skipped; as root: tests/install-debian-packages.sh\n' "$(missing)" "$1"
  exit 0
}

[[ -n $(missing) ]] || exit 0
command -v apt-get >/dev/null || left_out "this is no Debian"
as_root=()
if [[ $EUID != 0 ]]; then
  sudo -n true 2>/dev/null || left_out "not root, and sudo would ask for a password"
  as_root=(sudo -n)
fi

# Nothing that is installed here starts as a service: nginx would listen on port 80 of this machine, now and after a boot.
had_nginx=$(command -v /usr/sbin/nginx || true)
if [[ ! -e /usr/sbin/policy-rc.d ]]; then
  trap '"${as_root[@]}" rm -f /usr/sbin/policy-rc.d' EXIT
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" install -m 755 /dev/stdin /usr/sbin/policy-rc.d
fi
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o DPkg::Lock::Timeout=120)
install() { "${apt[@]}" install -y --no-install-recommends "$@" >/dev/null 2>&1; }
if "${apt[@]}" update >/dev/null 2>&1 && ! install "${packages[@]}"; then
  for name in "${packages[@]}"; do install "$name" || true; done # one that this release does not have takes none along
fi
if [[ -z $had_nginx ]]; then "${as_root[@]}" systemctl disable nginx >/dev/null 2>&1 || true; fi # no systemd here
[[ -z $(missing) ]] || left_out "apt-get could not install them"
