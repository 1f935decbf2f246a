# The job's unit in the machine that stands for a KVM host: runs the job, and hands its exit status and reports to the harness.
# Ports: "log" takes what the job says, "result" a tar of /run/result.
# At home where the installed daemon is: their templates and compiled modules are made once.
export HOME=/var/lib/instavm INSTAVM_CACHE_DIR=/var/lib/instavm/cache INSTAVM_TEST_CACHE_DIR=/var/lib/instavm/cache
export PATH=/opt/instavm/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin LANG=C.UTF-8
port() {
  for entry in /sys/class/virtio-ports/*; do
    [ "$(cat "$entry/name")" = "$1" ] && echo "/dev/${entry##*/}"
  done
}
mkdir -p /run/result

bash /level-1/images/cache.sh
# Clones and snapshots of the tests on the filesystem of their templates.
export TMPDIR=/var/tmp
export FIRECRACKER_BIN=/level-1/bin/firecracker JAILER_BIN=/level-1/bin/jailer
export INSTAVM_TEST_IMAGES="$(cat /level-1/images.json)"

(cd /opt/instavm && exec bash /level-1/job.sh) > "$(port log)" 2>&1 < /dev/null
echo $? > /run/result/exit-status
tar -C /run/result -cf "$(port result)" .
echo o > /proc/sysrq-trigger
sleep 60
