# The job's unit in the machine that stands for a KVM host: runs the job, and hands its exit status and reports to the harness.
# Ports: "log" takes what the job says, "result" a tar of /run/result.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
port() {
  for entry in /sys/class/virtio-ports/*; do
    [ "$(cat "$entry/name")" = "$1" ] && echo "/dev/${entry##*/}"
  done
}
mkdir -p /run/result

bash /level-1/images/cache.sh
# Templates, clones and snapshots of the tests on one filesystem, with room for them.
export TMPDIR=/var/tmp INSTAVM_CACHE_DIR=/var/cache/instavm INSTAVM_TEST_CACHE_DIR=/var/cache/instavm
export FIRECRACKER_BIN=/level-1/bin/firecracker JAILER_BIN=/level-1/bin/jailer
export INSTAVM_TEST_IMAGES="$(cat /level-1/images.json)"
export PATH=/level-1/repository/node_modules/.bin:$PATH

(cd /level-1/repository && exec bash /level-1/job.sh) > "$(port log)" 2>&1 < /dev/null
echo $? > /run/result/exit-status
tar -C /run/result -cf "$(port result)" .
echo o > /proc/sysrq-trigger
sleep 60
