#!/bin/sh
# Run by mmdebstrap after the essential packages, before all others: the initrd's contents, and no service starts while installing.
# $1 is the tree; INITRD_MODULES comes from the recipe.
set -eu
mkdir -p "$1/etc/tiny-initramfs" "$1/usr/sbin"
cat > "$1/etc/tiny-initramfs/tiny-initramfs.conf" <<CONF
# Only what a virtual machine needs to find its root file system.
AUTO_MODULES=no
MICROCODE=no
DEBUG=no
INCLUDE_MODULES=$INITRD_MODULES
CONF
