#!/usr/bin/env bash
# Install or upgrade actorsync as a systemd service. It is safe to run it again: an installed release stays as it is.
#
#   sudo systemd/install.sh [--start] [--data-root DIR] [--user USER] [--group GROUP]
#                           [--prefix DIR] [--python FILE] [--wheelhouse DIR]
#   sudo systemd/install.sh --rollback
#
#   --data-root DIR   the folder of actorsData.json and actors/         (default /var/lib/actorsync)
#   --user, --group   run as the owner of an existing tree              (default actorsync)
#   --start           enable and start it; without it, only running services are restarted, after a change
#   --prefix DIR      where releases live                               (default /opt/actorsync)
#   --python FILE     a Python 3.11 or later outside /home and /root    (default: the first of python3.11 ... on the PATH)
#   --wheelhouse DIR  take packages from there, not from the network: pip wheel -r requirements.txt -w DIR
#   --rollback        return to the release before; a second time: forward again
#
# --data-root, --user, --group and --python are remembered for the next upgrade.
#
#   PREFIX/releases/VERSION-STAMP/  {daemon, native, systemd, venv}: what is installed, whole before it gets its name
#   PREFIX/current, previous        links to two of them; switching is one rename
#   /etc/actorsync/actorsync.env    settings and keys, 0600; made once, never touched again
#   /etc/systemd/system/actorsync*  the units, and what the options above mean in actorsync*.service.d/50-install.conf
set -euo pipefail
shopt -s lastpipe # what stands last in a pipe may set variables
umask 022 # the service must be able to read what root's own umask might hide
export LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
unset PYTHONPATH PYTHONHOME PYTHONSAFEPATH

SOURCE=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
UNITS=/etc/systemd/system
PREFIX=/opt/actorsync
declare -A OPTION=([data-root]=/var/lib/actorsync [user]=actorsync [group]='' [python]='')
WHEELHOUSE='' START='' ROLLBACK=''

say() { printf '%s\n' "$*"; }
die() { # what is wrong, and what to do about it
  printf 'install.sh: %s\n  -> %s\n' "$1" "$2" >&2
  exit 1
}

remembered() { # the options of the last install
  local name value
  [[ -r $PREFIX/options ]] || return 0
  while IFS='=' read -r name value; do
    if [[ -v OPTION[$name] ]]; then OPTION[$name]=$value; fi
  done <"$PREFIX/options"
}

read_arguments() {
  local arguments=("$@") name
  while (($#)); do # the prefix says where the remembered options are, so it comes first
    case $1 in --prefix=*) PREFIX=${1#*=} ;; --prefix) PREFIX=${2-} ;; esac
    shift
  done
  [[ $PREFIX =~ ^/[A-Za-z0-9._/-]+$ ]] || die "--prefix '$PREFIX' is no plain absolute path" "name it as /opt/actorsync"
  PREFIX=${PREFIX%/}
  remembered
  set -- "${arguments[@]}"
  while (($#)); do
    name=${1%%=*} name=${name#--}
    case $1 in
      -h | --help) sed -n '2,/^set -euo/{s/^# \{0,1\}//;/^set -euo/d;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
      --start) START=yes ;;
      --rollback) ROLLBACK=yes ;;
      --*=*) set -- "--$name" "${1#*=}" "${@:2}"; continue ;;
      --prefix | --wheelhouse | --data-root | --user | --group | --python)
        [[ -n ${2-} ]] || die "$1 wants a value" "see install.sh --help"
        if [[ $name = wheelhouse ]]; then WHEELHOUSE=$(readlink -f "$2"); fi
        if [[ -v OPTION[$name] ]]; then OPTION[$name]=$2; fi
        if [[ $name = user ]]; then OPTION[group]=''; fi # a --group that follows still counts
        shift ;;
      *) printf "install.sh: '%s' is not an option\n  -> see install.sh --help\n" "$1" >&2; exit 2 ;;
    esac
    shift
  done
  USER_=${OPTION[user]} DATA_ROOT=${OPTION[data-root]}
  [[ $DATA_ROOT != / ]] && DATA_ROOT=${DATA_ROOT%/}
  [[ $DATA_ROOT =~ ^/[^[:cntrl:]]+$ && $DATA_ROOT != */../* ]] ||
    die "--data-root '$DATA_ROOT' is not an absolute path" "name a directory as /srv/training"
  if [[ $USER_ != actorsync ]]; then
    id -u -- "$USER_" >/dev/null 2>&1 || die "there is no user '$USER_'" "name the owner of the tree with --user"
    [[ $(id -u -- "$USER_") != 0 ]] || die "actorsync does not run as root" "name the owner of the tree with --user"
    OPTION[group]=${OPTION[group]:-$(id -gn -- "$USER_")}
  fi
  GROUP=${OPTION[group]:-actorsync}
  [[ $GROUP = actorsync ]] || getent group -- "$GROUP" >/dev/null || die "there is no group '$GROUP'" "name one with --group"
}

# --- a release --------------------------------------------------------------------------------------------------------

find_python() { # one that a service without /home and /root can see
  local candidate real hidden=''
  for candidate in ${OPTION[python]:-python3.11 python3.12 python3.13 python3 /usr/bin/python3 /usr/local/bin/python3}; do
    candidate=$(command -v "$candidate") || continue
    real=$("$candidate" -c 'import os, sys; print(os.path.realpath(sys.executable)) if sys.version_info >= (3, 11) else 0' 2>/dev/null) || continue
    case $real in
      '' | 0) ;;
      /home/* | /root/* | /run/user/*) hidden=$real ;;
      *) PYTHON=$real; return ;;
    esac
  done
  [[ -z $hidden ]] || die "$hidden is out of sight for the service (ProtectHome=)" "name another with --python, as /usr/bin/python3"
  die "found no Python 3.11 or later${OPTION[python]:+ at ${OPTION[python]}}" "install one (apt-get install python3-venv), or name it with --python"
}

contents() { # what makes a release, as NUL-separated paths
  (cd "$SOURCE" && find daemon -name '*.py' -print0 && find native -maxdepth 1 -type f -print0 && find systemd -type f -print0 &&
    printf '%s\0' requirements.txt README.md .env.example) | sort -z
}

build() { # sets RELEASE; nothing is done where it is there already
  local version stamp new
  find_python
  version=$(sed -n 's/^__version__ = "\([0-9A-Za-z.+-]*\)"$/\1/p' "$SOURCE/daemon/__init__.py")
  stamp=$( (cd "$SOURCE" && contents | xargs -0 sha256sum && "$PYTHON" -VV && echo "$PYTHON $PREFIX" && compiled_by) | sha256sum)
  RELEASE=$PREFIX/releases/$version-${stamp:0:12}
  if [[ -d $RELEASE ]]; then
    say "$RELEASE is built already"
    return
  fi
  say "building $RELEASE with $PYTHON"
  rm -rf "$PREFIX"/releases/.new.* # of an install that was killed
  new=$PREFIX/releases/.new.$$
  mkdir -p "$new"
  (cd "$SOURCE" && contents | xargs -0 cp --parents --no-preserve=all -t "$new")
  chmod 755 "$new"/systemd/*.sh
  # The service cannot write beside its code: without this, every start compiles it all again.
  "$PYTHON" -m compileall -q "$new/daemon" || die "this is no release; nothing was changed" "see above"
  "$PYTHON" -m venv "$new/venv" || die "$PYTHON cannot make a virtual environment" "apt-get install python3-venv"
  "$new/venv/bin/python" -I -m pip install --quiet --disable-pip-version-check --no-input --only-binary=:all: \
    ${WHEELHOUSE:+--no-index --find-links "$WHEELHOUSE"} --requirement <(grep -vxF ./native "$new/requirements.txt") ||
    die "the packages could not be installed; nothing was changed" "is the network there? else see --wheelhouse"
  install_native "$new"
  (cd "$new" && venv/bin/python -m daemon --version >/dev/null) || die "the release does not run; nothing was changed" "see above"
  sync -f "$new"
  mv -T "$new" "$RELEASE"
}

compiled_by() { # what makes native/ as far as can be told, or nothing: with a compiler that was not there, it is another release
  local headers
  if [[ -n $WHEELHOUSE ]]; then
    find "$WHEELHOUSE" -maxdepth 1 -name 'actorsync_native-*.whl' -exec sha256sum {} +
  elif headers=$("$PYTHON" -Ic 'import sysconfig; print(sysconfig.get_path("include"))') && [[ -e $headers/Python.h ]]; then
    command -v cc || true
  fi
}

install_native() { # into release $1; nothing depends on it but speed
  local what=$1/native
  [[ -z $WHEELHOUSE ]] || what=actorsync-native
  if ! "$1/venv/bin/python" -I -m pip install --quiet --disable-pip-version-check --no-input \
    ${WHEELHOUSE:+--no-index --find-links "$WHEELHOUSE"} "$what" >/dev/null 2>&1 ||
    ! "$1/venv/bin/python" -I -c 'import md5_batch, sized_listing' 2>/dev/null; then
    say "note: native/ could not be compiled: MD5s are computed one by one, which costs a third of the speed where S3 has no"
    say "  checksums, and a tree that has not changed takes a quarter longer. With gcc and Python's headers"
    say "  (apt-get install gcc python3-dev), or a wheel of it in the wheelhouse, install again"
  fi
  rm -rf "$1"/native/*.egg-info
}

# --- the system -------------------------------------------------------------------------------------------------------

point() { # LINK RELEASE: atomically
  ln -sfn "releases/$(basename "$2")" "$PREFIX/.$1.new"
  mv -T "$PREFIX/.$1.new" "$PREFIX/$1"
}

in_force() { # LINK: the release that it leads to, or nothing
  if [[ -L $PREFIX/$1 ]]; then readlink -f "$PREFIX/$1"; fi
}

place() { # FILE MODE: from stdin, if it is not so already
  local new
  new=$(mktemp "$(dirname "$1")/.actorsync.XXXXXX")
  cat >"$new"
  chmod "$2" "$new"
  if [[ -f $1 ]] && cmp -s "$new" "$1"; then rm "$new"; else mv -T "$new" "$1"; CHANGED=yes; fi
}

quoted() { # TEXT: as systemd reads it back, specifiers and all
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  printf '"%s"' "${text//%/%%}"
}

install_conf() { # the drop-in: what the options mean for unit $1; nothing, where they are the defaults
  local path
  path=$(quoted "$DATA_ROOT")
  if [[ $USER_ != actorsync || $GROUP != actorsync ]]; then printf '[Service]\nUser=%s\nGroup=%s\n' "$USER_" "$GROUP"; fi
  [[ $1 != actorsync@ && $DATA_ROOT != /var/lib/actorsync ]] || return 0
  printf '[Unit]\nRequiresMountsFor=%s\n[Service]\n' "$path"
  printf 'Environment=%s\nStateDirectory=\nNoExecPaths=%s\n' "$(quoted "ACTORSYNC_DATA_DIR=$DATA_ROOT")" "$path"
  case $DATA_ROOT in
    /home/* | /root/* | /run/user/*) printf 'ProtectHome=tmpfs\nBindPaths=%s\n' "${path//:/\\\\:}" ;;
    *) printf 'ReadWritePaths=%s\n' "$path" ;;
  esac
}

place_system_files() { # from release $1
  local unit name conf text
  for unit in "$1"/systemd/*.service "$1"/systemd/*.timer; do
    sed "s|/opt/actorsync|$PREFIX|g" "$unit" | place "$UNITS/$(basename "$unit")" 644
  done
  if [[ $USER_ = actorsync || $GROUP = actorsync ]]; then
    place /etc/sysusers.d/actorsync.conf 644 <"$1/systemd/actorsync.sysusers"
    systemd-sysusers /etc/sysusers.d/actorsync.conf
  fi
  sed "s|\<actorsync actorsync\>|$USER_ $GROUP|; s|root actorsync|root $GROUP|" "$1/systemd/actorsync.tmpfiles" |
    place_tmpfiles
  if [[ ! -e /etc/actorsync/actorsync.env ]]; then
    mkdir -p /etc/actorsync
    (umask 077 && cp --no-preserve=all "$1/.env.example" /etc/actorsync/actorsync.env)
  fi
  systemd-tmpfiles --create /etc/tmpfiles.d/actorsync.conf
  for name in actorsync actorsync@ actorsync-once; do
    conf=$UNITS/$name.service.d/50-install.conf
    text=$(install_conf "$name")
    if [[ -n $text ]]; then
      mkdir -p "$(dirname "$conf")"
      printf '# written by install.sh: run it again, or write a drop-in of your own\n%s\n' "$text" | place "$conf" 644
    elif [[ -e $conf ]]; then
      rm "$conf"
      CHANGED=yes
    fi
  done
}

place_tmpfiles() { # the lines for the default data root only where that is the one
  if [[ $DATA_ROOT = /var/lib/actorsync ]]; then cat; else grep -v /var/lib/actorsync; fi |
    place /etc/tmpfiles.d/actorsync.conf 644
}

place_data_root() {
  if [[ ! -d $DATA_ROOT ]]; then
    install -d -m 2775 -o "$USER_" -g "$GROUP" "$DATA_ROOT"
  elif ! setpriv --reuid="$USER_" --regid="$GROUP" --init-groups test -w "$DATA_ROOT"; then
    say "note: $USER_ cannot write in $DATA_ROOT: give --user the owner of that tree, or let its group in:"
    say "  chgrp -R $GROUP '$DATA_ROOT' && chmod -R g+rwX '$DATA_ROOT' && find '$DATA_ROOT' -type d -exec chmod g+s {} +"
  fi
}

activate() { # release $1 becomes the current one, with its units; what runs is restarted if that means something new
  local was units
  CHANGED=''
  was=$(in_force current)
  mkdir -p /etc/sysusers.d /etc/tmpfiles.d
  place_system_files "$1"
  place_data_root
  if [[ $was != "$1" ]]; then
    if [[ -n $was ]]; then point previous "$was"; fi
    point current "$1"
    CHANGED=yes
  fi
  [[ -z $CHANGED ]] || systemctl daemon-reload
  mapfile -t units < <(systemctl list-units --plain --no-legend --state=active,activating,reloading \
    'actorsync.service' 'actorsync@*.service' | cut -d' ' -f1)
  if [[ -n $CHANGED && ${#units[@]} -gt 0 ]]; then
    # at once: what it has not loaded yet, it would load from the new release
    say "restarting ${units[*]}"
    systemctl restart "${units[@]}" || die "it does not start: journalctl -u ${units[0]}" "install.sh --rollback"
  fi
}

prune() { # all but the current release and the one before
  local release
  for release in "$PREFIX"/releases/*; do
    [[ $release = "$(in_force current)" || $release = "$(in_force previous)" ]] || rm -rf "$release"
  done
}

main() {
  read_arguments "$@"
  [[ $EUID = 0 ]] || die "this takes root" "sudo systemd/install.sh"
  command -v systemctl >/dev/null || die "there is no systemd here" "run \`python -m daemon\` under what you have"
  install -d -m 755 "$PREFIX" "$PREFIX/releases"
  exec {lock}>>"$PREFIX/.lock" && flock "$lock" # two at once would prune each other's release
  if [[ -n $ROLLBACK ]]; then
    RELEASE=$(in_force previous)
    [[ -d $RELEASE ]] || die "there is no release before this one" "install the one that you want"
  else
    build
  fi
  activate "$RELEASE"
  for name in "${!OPTION[@]}"; do say "$name=${OPTION[$name]}"; done | sort | place "$PREFIX/options" 644
  prune
  say "actorsync $(basename "$RELEASE") is installed, for $DATA_ROOT as $USER_:$GROUP"
  if [[ -n $START ]]; then
    systemctl enable --quiet actorsync.service
    systemctl start actorsync.service || die "it does not start" "journalctl -u actorsync -n 20"
    say "it runs: systemctl status actorsync; journalctl -u actorsync -f"
  else
    say "next: put the keys into /etc/actorsync/actorsync.env, then systemctl enable --now actorsync"
  fi
}

main "$@"
exit # bash reads a script as it runs: an upgrade may replace this very file
