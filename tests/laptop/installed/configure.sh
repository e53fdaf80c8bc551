#!/bin/sh
# Configures the system that mmdebstrap made: runs outside of it, with its root as the argument.
set -eu
root=$1

cat > "$root/etc/fstab" <<END
UUID=5ec15b0a-7f0e-4c55-9a43-5f2c3c1d8a11 / ext4 defaults 0 1
PARTUUID_OF_ESP /boot/efi vfat umask=0077,nofail,x-systemd.device-timeout=3min 0 2
END
mkdir -p "$root/boot/efi" "$root/boot/grub"
sed -i "s|PARTUUID_OF_ESP|/dev/nvme0n1p1|" "$root/etc/fstab"
echo sekisho > "$root/etc/hostname"

chroot "$root" useradd --create-home --shell /bin/sh hanako
echo 'hanako:kyoto' | chroot "$root" chpasswd
cat > "$root/etc/systemd/system/sekisho-test.service" <<END
[Unit]
Description=Runs the commands of tests
RequiresMountsFor=/boot/efi
After=systemd-udev-settle.service
DefaultDependencies=no

[Service]
ExecStart=/boot/efi/sekisho-laptop-init serve /dev/virtio-ports/jp.sekisho.test.0
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
END
chroot "$root" systemctl enable sekisho-test.service
# Nobody is there for them, and each takes its second where everything is emulated.
chroot "$root" systemctl disable e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer
chroot "$root" systemctl mask nvmf-autoconnect.service systemd-pstore.service \
    systemd-update-utmp.service systemd-random-seed.service keyboard-setup.service console-setup.service \
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    modprobe@configfs.service modprobe@fuse.service modprobe@efi_pstore.service getty@tty1.service
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\n' > "$root/etc/systemd/journald.conf.d/volatile.conf"
cat > "$root/boot/grub/grub.cfg" <<END
linux /vmlinuz root=UUID=5ec15b0a-7f0e-4c55-9a43-5f2c3c1d8a11 ro quiet console=ttyS0 console=tty0 no_timer_check cryptomgr.notests mitigations=off fsck.mode=skip
initrd /initrd.img
boot
END
