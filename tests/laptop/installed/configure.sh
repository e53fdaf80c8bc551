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

# The initrd has what this machine needs, as the installer's "targeted" choice makes it.
printf 'nvme\next4\n' >> "$root/etc/initramfs-tools/modules"
echo 'MODULES=list' > "$root/etc/initramfs-tools/conf.d/targeted"
echo 'COMPRESS=lz4' >> "$root/etc/initramfs-tools/conf.d/targeted"
chroot "$root" update-initramfs -u

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
# Nobody is there for them.
chroot "$root" systemctl disable e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer
cat > "$root/boot/grub/grub.cfg" <<END
linux /vmlinuz root=UUID=5ec15b0a-7f0e-4c55-9a43-5f2c3c1d8a11 ro quiet console=ttyS0 console=tty0 no_timer_check cryptomgr.notests
initrd /initrd.img
boot
END
