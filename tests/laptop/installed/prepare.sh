#!/bin/sh
# Runs before the kernel is installed, with the root of the system as the argument: so its initrd is made
# once, and has what this machine needs, as the installer's "targeted" choice makes it.
set -eu
root=$1

mkdir -p "$root/etc/initramfs-tools/conf.d" "$root/usr/share/initramfs-tools/modules.d"
printf 'nvme\next4\n' > "$root/usr/share/initramfs-tools/modules.d/sekisho"
printf 'MODULES=list\nCOMPRESS=lz4\n' > "$root/etc/initramfs-tools/conf.d/targeted"
