#!/bin/sh
# Run by mmdebstrap when the tree is whole: configure it from inside, then make the file system of it.
# $1 is the tree. From the recipe: DISK_MIB, DISK_UUID. OUT is a folder with the files to fill: root.raw, kernel, initrd.
set -eu
tree=$1
tar -C "$tree" --numeric-owner -xf "$tree/boxshift-files.tar"
chroot "$tree" /bin/sh -eu /boxshift-configure.sh
rm -f "$tree/boxshift-files.tar" "$tree/boxshift-configure.sh" "$tree"/etc/ssh/ssh_host_*_key* "$tree"/etc/apt/sources.list "$tree"/etc/apt/sources.list.d/*
rm -rf "$tree"/var/lib/apt/lists/* "$tree"/var/cache/apt/* "$tree"/var/log/*.log "$tree"/var/log/apt "$tree"/run/* "$tree"/tmp/* "$tree"/boot/System.map-*
rm -f "$tree"/var/cache/ldconfig/aux-cache "$tree"/var/lib/systemd/random-seed "$tree"/var/log/lastlog "$tree"/var/log/faillog "$tree"/etc/*-
rm -f "$tree/vmlinuz.old" "$tree/initrd.img.old" "$tree/etc/resolv.conf" "$tree/var/lib/dbus/machine-id"
: > "$tree/etc/machine-id"
cat "$tree/vmlinuz" > "$OUT/kernel"
cat "$tree/initrd.img" > "$OUT/initrd"
# It lies beside the disk, packed anew: as the package's tool makes it, it is another one each time.
rm -f "$tree/initrd.img" "$tree"/boot/initrd.img-*
# mmdebstrap's own, which it takes away itself afterwards.
own=etc/apt/apt.conf.d/00mmdebstrap
[ ! -e "$tree/$own" ] || mv "$tree/$own" "$OUT/own"
# A second view of the tree, without /proc, /sys and /dev that mmdebstrap has mounted in it, or made.
view=$(mktemp -d "$OUT/view.XXXXXX")
mount --bind "$tree" "$view"
mount -t tmpfs -o mode=0755 dev "$view/dev"
status=0
# No checksums of inodes, since their dates are written once more afterwards (images/ext4_times.py).
E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH mke2fs -q -F -t ext4 -O ^metadata_csum,^orphan_file -d "$view" -m 0 -U "$DISK_UUID" -E "lazy_itable_init=1,lazy_journal_init=1,hash_seed=$DISK_UUID" -L boxshift "$OUT/root.raw" "${DISK_MIB}M" || status=$?
umount "$view/dev" "$view"
rmdir "$view"
[ ! -e "$OUT/own" ] || mv "$OUT/own" "$tree/$own"
exit $status
