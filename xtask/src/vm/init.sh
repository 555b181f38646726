#!/bin/sh
# The first program of the virtual machine: mounts what a host has mounted, runs
# the lab's tests that /vip/tests names, says how they ended, and turns it off.
# /vip/settings says with which words; the host reads them on the second serial line.
export PATH=/usr/sbin:/sbin:/bin LD_LIBRARY_PATH=/lib
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devices /dev
stty -F /dev/ttyS1 raw
exec < /dev/null > /dev/ttyS1 2>&1
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for dir in /dev/shm /run /tmp; do
    mount -t tmpfs tmpfs "$dir"
done
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
ip link set lo up
# The cards that the lab may have: a kernel has the first module, or has it built in.
modprobe virtio_pci
modprobe virtio_net
modprobe vmxnet3

. /vip/settings
set --
while read -r name || [ -n "$name" ]; do
    set -- "$@" "$name"
done < /vip/tests
export VIP_CTL=/vip/vip-ctl VIP_TEST_SKIPS=/tmp/skips RUST_BACKTRACE=0
# An emulated processor is some ten times slower than a real one.
export VIP_LAB_SLOW=4
# The machine has pairs of cards.
export VIP_LAB_CARDS=1
read -r seconds _ < /proc/uptime
echo "$UP after $seconds s"
timeout -s KILL "$LIMIT" /vip/lab --test-threads 1 "$@"
echo "$ENDED$?"
echo o > /proc/sysrq-trigger
sleep 60
