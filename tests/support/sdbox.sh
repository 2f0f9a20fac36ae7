#!/bin/bash
# Boot the machine's own systemd as PID 1 of fresh namespaces, on a throw-away overlay of "/". It ends when this process does.
#   sdbox.sh FOLDER [--ro|--rw FROM TO]...      FOLDER: an empty one, for mount points
# Inside, every file of the host is there to read (but other file systems than that of "/"), and every write is gone at the
# end, but to what is shared by --rw; /tmp, /run and the network (its own lo) are empty.
set -euo pipefail

join() { # PID 1 to be, still with the host's files: into a cgroup of its own, then a cgroup namespace that is rooted there
  # Only PID 1 may be in it: a process of outside shows as 0 there, and systemd gives up with EIO.
  mkdir -p "$SDBOX_CGROUP"
  echo 1 >"$SDBOX_CGROUP/cgroup.procs" 2>/dev/null || echo 0 >"$SDBOX_CGROUP/cgroup.procs"
  exec unshare --cgroup -- bash "$0" boot "$@"
}

boot() {
  local folder=$1 root=$1/root node name minor major strict=nosuid,nodev,noexec
  shift
  mount -t tmpfs -o mode=0755,size=2g actorsync-box "$folder"
  mkdir "$folder"/{upper,work,root}
  mount -t overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" actorsync-box "$root"
  mount -t proc -o "$strict" proc "$root/proc"
  mount --bind "$root/proc/sys" "$root/proc/sys"
  mount -o remount,bind,ro "$root/proc/sys" # the host's
  mount -t sysfs -o "ro,$strict" sysfs "$root/sys"
  mount -t cgroup2 -o "$strict" cgroup2 "$root/sys/fs/cgroup"
  mount -t tmpfs -o mode=0755,nosuid tmpfs "$root/dev"
  for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    IFS=: read -r name major minor <<<"$node"
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
  done
  mkdir "$root/dev/pts" "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  for node in stdin:0 stdout:1 stderr:2; do ln -s "fd/${node#*:}" "$root/dev/${node%:*}"; done
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  mount -t tmpfs -o mode=0755 tmpfs "$root/run"
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  while (($#)); do
    mkdir -p "$root$3"
    mount --bind "$2" "$root$3"
    if [[ $1 = --ro ]]; then mount -o remount,bind,ro "$root$3"; fi
    shift 3
  done
  cd "$root"
  mkdir -p .host
  pivot_root . .host
  cd /
  umount -l /.host
  rmdir /.host
  mount --make-rshared / # as on a machine that booted: without it, LoadCredential= gives nothing
  # The host's own actorsync, if it has one, is not what is under test; nor are its timers.
  rm -rf /etc/systemd/system/actorsync* /etc/systemd/system/timers.target.wants /opt/actorsync /etc/actorsync
  exec env -i container=actorsync-box PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    /lib/systemd/systemd --system --unit=basic.target
}

case $1 in
  join) join "${@:2}" ;;
  boot) boot "${@:2}" ;;
  *)
    hierarchy=/sys/fs/cgroup
    [[ $(stat -f -c %T "$hierarchy") = cgroup2fs ]] || hierarchy=/sys/fs/cgroup/unified
    own=$(sed -n 's/^0:://p' /proc/self/cgroup)
    # shellcheck disable=SC2031 # this one is for the children
    export SDBOX_CGROUP=$hierarchy${own%/}/actorsync-box-$$
    find "$hierarchy${own%/}" -maxdepth 1 -name 'actorsync-box-*' | while read -r left; do # by tests that were killed
      [[ -d /proc/${left##*-} ]] || find "$left" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    done
    # the kernel kills PID 1, and with it all that runs inside, when unshare ends, however it ends
    exec unshare --mount --uts --ipc --net --pid --fork --kill-child=SIGKILL --propagation private -- bash "$0" join "$@"
    ;;
esac
