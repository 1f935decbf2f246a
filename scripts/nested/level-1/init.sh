# PID 1 of the machine that stands for a KVM host: makes it one, runs the job, and hands its exit status and reports to the harness.
# Ports: "log" takes what the job says, "result" a tar of /run/result.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
port() {
  for entry in /sys/class/virtio-ports/*; do
    [ "$(cat "$entry/name")" = "$1" ] && echo "/dev/${entry##*/}"
  done
}
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p /dev/pts /dev/shm /run/result
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for link in fd:/proc/self/fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do ln -sfn "${link#*:}" "/dev/${link%%:*}"; done
echo "+cpu +memory +pids +io" > /sys/fs/cgroup/cgroup.subtree_control
ip link set lo up
hostname level-1

# Templates, clones and snapshots of the tests on one filesystem, with room for them.
mkdir -p /data/tmp
bash /level-1/images/cache.sh
export TMPDIR=/data/tmp INSTAVM_CACHE_DIR=/data/cache INSTAVM_TEST_CACHE_DIR=/data/cache
export FIRECRACKER_BIN=/level-1/bin/firecracker JAILER_BIN=/level-1/bin/jailer
export INSTAVM_TEST_IMAGES="$(cat /level-1/images.json)"
export PATH=/level-1/repository/node_modules/.bin:$PATH

# The job's own cgroup: the root's processes may not be limited beside groups that are.
mkdir /sys/fs/cgroup/job
(
  echo 0 > /sys/fs/cgroup/job/cgroup.procs
  cd /level-1/repository && exec bash /level-1/job.sh
) > "$(port log)" 2>&1 < /dev/null
echo $? > /run/result/exit-status
tar -C /run/result -cf "$(port result)" .
echo o > /proc/sysrq-trigger
sleep 60
