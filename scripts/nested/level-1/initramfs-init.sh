#!/bin/busybox sh
# First program of the machine that stands for a KVM host: loads modules, mounts the disks, and goes on in a root that is no initramfs,
# because the jailer's pivot_root cannot leave one.
#   vda  ext4   base.erofs inside, and room to write; what is written is thrown away by QEMU
#   vdb  erofs  node_modules
#   vdc  erofs  sources, guest images, Firecracker
set -e
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/lib/$module"; done < /modules.load
i=0
until [ -b /dev/vdc ]; do i=$((i + 1)); [ $i -lt 100 ]; sleep 0.1; done
mount -t ext4 -o noatime /dev/vda /data
mount -t erofs -o loop,ro /data/base.erofs /lower
mkdir -p /data/root/upper /data/root/work /data/level-1/upper /data/level-1/work /data/modules/upper /data/modules/work
mount -t overlay -o lowerdir=/lower,upperdir=/data/root/upper,workdir=/data/root/work root /sysroot
mkdir -p /sysroot/data /sysroot/level-1
# Writable, because tools keep caches beside their sources.
mount -t erofs -o ro /dev/vdc /sources
mount -t overlay -o lowerdir=/sources,upperdir=/data/level-1/upper,workdir=/data/level-1/work level-1 /sysroot/level-1
mount -t erofs -o ro /dev/vdb /modules
mount -t overlay -o lowerdir=/modules,upperdir=/data/modules/upper,workdir=/data/modules/work modules /sysroot/level-1/repository/node_modules
mount --move /data /sysroot/data
mount --move /proc /sysroot/proc
mount --move /sys /sysroot/sys
mount --move /dev /sysroot/dev
exec switch_root /sysroot /bin/bash /level-1/init.sh
