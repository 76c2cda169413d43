#!/bin/sh
# Run by root in mount and process namespaces of its own: the unpacked packages below, what this build writes above them, and then the
# hook that mmdebstrap would run on an unpacked copy.
# $1: the packages' tree. $2: an empty folder. $3, $4: the recipe's files and its configuration. $5: the hook.
set -eu
tree=$2/tree
mkdir "$2/upper" "$2/work" "$tree"
mount -t overlay boxshift -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$tree"
mount -t proc -o nosuid,nodev,noexec proc "$tree/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$tree/sys"
mount -t tmpfs -o mode=0755 dev "$tree/dev"
for one in null zero full random urandom tty; do
  : > "$tree/dev/$one"
  mount --bind "/dev/$one" "$tree/dev/$one"
done
ln -s /proc/self/fd "$tree/dev/fd"
cp "$3" "$tree/boxshift-files.tar"
cp "$4" "$tree/boxshift-configure.sh"
status=0
"$5" "$tree" || status=$?
exit $status
