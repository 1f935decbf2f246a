#!/bin/busybox sh
# First program of the machine that stands for a KVM host: loads modules, mounts the disks, and hands over to systemd in a root that is no
# initramfs, because the jailer's pivot_root cannot leave one.
#   vda  ext4   base.erofs inside, and room to write: it becomes /var; what is written is thrown away by QEMU
#   vdb  erofs  node_modules
#   vdc  erofs  sources, guest images, Firecracker
#   vdd  erofs  systemd
set -e
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/lib/$module"; done < /modules.load
i=0
until [ -b /dev/vdd ]; do i=$((i + 1)); [ $i -lt 100 ]; sleep 0.1; done
mount -t ext4 -o noatime /dev/vda /var
mount -t erofs -o loop,ro /var/level-1/base.erofs /lower
mount -t erofs -o ro /dev/vdd /systemd
# Writable, because tools keep caches beside their sources.
writable() { # NAME LOWER MOUNTPOINT
  mkdir -p "/var/level-1/$1/upper" "/var/level-1/$1/work"
  mount -t overlay -o "lowerdir=$2,upperdir=/var/level-1/$1/upper,workdir=/var/level-1/$1/work" "$1" "$3"
}
writable root /systemd:/lower /sysroot
mkdir -p /sysroot/level-1 /sysroot/opt/instavm
mount -t erofs -o ro /dev/vdc /sources
writable level-1 /sources /sysroot/level-1
mount --bind /sysroot/level-1/repository /sysroot/opt/instavm
mount -t erofs -o ro /dev/vdb /modules
writable modules /modules /sysroot/opt/instavm/node_modules
mkdir -p -m 1777 /var/tmp
mount -t tmpfs -o mode=1777 tmp /sysroot/tmp
mount --move /var /sysroot/var
mount --move /proc /sysroot/proc
mount --move /sys /sysroot/sys
mount --move /dev /sysroot/dev
exec switch_root /sysroot /lib/systemd/systemd --unit=job.service
