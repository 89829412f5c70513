#!/bin/busybox sh
# First process of a test machine: onto a tmpfs, because runc cannot pivot_root away from an initramfs.
/bin/busybox mount -t tmpfs -o mode=755,size=90% tmpfs /new
/bin/busybox cp -a /root/. /new/
exec /bin/busybox switch_root /new /bin/busybox sh /sbin/job
