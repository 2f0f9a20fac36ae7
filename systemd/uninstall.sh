#!/usr/bin/env bash
# Take actorsync's service off this machine. The images, the settings with their keys, your own drop-ins and the user stay.
#
#   sudo systemd/uninstall.sh [--prefix DIR]
set -euo pipefail

main() {
  local prefix=/opt/actorsync name units
  case ${1-} in
    '') ;;
    --prefix) prefix=${2-} ;;
    --prefix=*) prefix=${1#*=} ;;
    *) printf 'usage: uninstall.sh [--prefix DIR]\n' >&2; exit 2 ;;
  esac
  [[ $EUID = 0 ]] || { printf 'uninstall.sh: this takes root\n  -> sudo systemd/uninstall.sh\n' >&2; exit 1; }
  [[ $prefix =~ ^/[A-Za-z0-9._/-]+$ ]] || { printf "uninstall.sh: '%s' is no plain absolute path\n" "$prefix" >&2; exit 2; }
  if [[ -e $prefix && ! -d $prefix/releases ]]; then
    printf 'uninstall.sh: %s was not made by install.sh\n  -> name the right one with --prefix\n' "$prefix" >&2
    exit 1
  fi

  mapfile -t units < <(systemctl list-units --all --plain --no-legend 'actorsync.service' 'actorsync@*.service' \
    'actorsync-once.*' | cut -d' ' -f1)
  ((${#units[@]} == 0)) || systemctl stop "${units[@]}"
  mapfile -t units < <(systemctl list-unit-files --plain --no-legend --state=enabled 'actorsync*' | cut -d' ' -f1)
  ((${#units[@]} == 0)) || systemctl disable --quiet "${units[@]}"
  systemctl reset-failed 'actorsync*' 2>/dev/null || true # nothing had failed

  for name in actorsync actorsync@ actorsync-once; do
    rm -f "/etc/systemd/system/$name.service" "/etc/systemd/system/$name.service.d/50-install.conf"
    rmdir --ignore-fail-on-non-empty "/etc/systemd/system/$name.service.d" 2>/dev/null || true # there was none
  done
  rm -f /etc/systemd/system/actorsync-once.timer /etc/sysusers.d/actorsync.conf /etc/tmpfiles.d/actorsync.conf
  systemctl daemon-reload
  rm -rf "${prefix:?}/releases" "$prefix/current" "$prefix/previous" "$prefix/options" "$prefix/.lock"
  rmdir --ignore-fail-on-non-empty "$prefix" 2>/dev/null || true # it was gone already

  printf '%s\n' "actorsync is uninstalled. Still there, and yours:" \
    "  the data roots with their images (by default /var/lib/actorsync)" \
    "  /etc/actorsync: settings and keys" "  /etc/credstore/actorsync.*, if you put keys there" \
    "  the user actorsync, whom files may belong to"
}

main "$@"
exit
