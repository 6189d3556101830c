"""Measures stores into a shared map with msync beside pwrite with fdatasync.

Both sides run in the same interpreter, whose own time is small beside that of a sync.
Usage: python3 bench/mapped_stores.py [DIRECTORY]
"""

import mmap
import os
import sys
import time

FILE_BYTES = 64 << 20
JOB_BYTES = 1 << 10
SECONDS = 1.0


def prepared(path):
    """A file of zeros that are really written."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.posix_fallocate(fd, 0, FILE_BYTES)
    for position in range(0, FILE_BYTES, 1 << 20):
        os.pwrite(fd, bytes(1 << 20), position)
    os.fsync(fd)
    return fd


def measure(append, batch_bytes):
    times, position = [], 0
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end and position + batch_bytes <= FILE_BYTES:
        before = time.perf_counter()
        append(position)
        times.append(time.perf_counter() - before)
        position += batch_bytes
    times.sort()
    return times


def main():
    path = os.path.join(sys.argv[1] if len(sys.argv) > 1 else ".", "mapped-stores.tmp")
    print("| way | jobs a batch | median us | p99 us |")
    print("|---|---|---|---|")
    for jobs in (1, 16, 256):
        batch = b"\x5a" * (jobs * JOB_BYTES)
        for way in ("pwrite + fdatasync", "stores + msync"):
            fd = prepared(path)
            mapped = mmap.mmap(fd, FILE_BYTES)

            def write(position):
                os.pwrite(fd, batch, position)
                os.fdatasync(fd)

            def store(position):
                mapped[position : position + len(batch)] = batch
                page = position & ~(mmap.PAGESIZE - 1)
                mapped.flush(page, position + len(batch) - page)

            times = measure(write if way.startswith("pwrite") else store, len(batch))
            median, p99 = (1e6 * times[len(times) * part // 100] for part in (50, 99))
            print(f"| {way} | {jobs} | {median:.0f} | {p99:.0f} |")
            mapped.close()
            os.close(fd)
    os.remove(path)


if __name__ == "__main__":
    main()
