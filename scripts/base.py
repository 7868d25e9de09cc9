#!/usr/bin/env python3
"""Makes base images for demonstrations and tests, as OCI layouts in a tar.

    base.py wrap ROOTFS.tar OUT.tar --env K=V --cmd WORD    an image around a root filesystem
    base.py busybox OUT.tar [--busybox PATH]                a small image around one static busybox

Test set-up, not a feature: where a registry can be reached, bases come from there.
Python's standard library only. Same input, same bytes.
"""
import argparse
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile

EPOCH = 1577836800  # 2020-01-01T00:00:00Z, the time of everything made here
CREATED = "2020-01-01T00:00:00Z"
PATH = "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"}


def add(tar, name, data=None, **fields):
    """Adds one entry: a file when `data` is given, else what `fields` say."""
    info = tarfile.TarInfo(name)
    info.mtime = EPOCH
    for field, value in fields.items():
        setattr(info, field, value)
    info.size = len(data or b"")
    tar.addfile(info, io.BytesIO(data) if data else None)


def digest_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def descriptor(kind, digest, size):
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": size}


def wrap(layer, out, env, cmd):
    """Writes an OCI layout with one uncompressed layer, the tar at `layer`."""
    diff_id = digest_of(layer)
    image = {
        "created": CREATED,
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Env": [PATH, *env], "Cmd": cmd, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
        "history": [{"created": CREATED, "created_by": "scripts/base.py"}],
    }
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:
        def blob(kind, content):
            data = json.dumps(content).encode()
            digest = hashlib.sha256(data).hexdigest()
            add(tar, f"blobs/sha256/{digest}", data)
            return descriptor(kind, digest, len(data))

        add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        with open(layer, "rb") as file:
            info = tarfile.TarInfo(f"blobs/sha256/{diff_id}")
            info.size = os.path.getsize(layer)
            info.mtime = EPOCH
            tar.addfile(info, file)
        manifest = blob("manifest.v1+json", {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob("config.v1+json", image),
            "layers": [descriptor("layer.v1.tar", diff_id, os.path.getsize(layer))],
        })
        add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode())


USERS = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/:/bin/false
"""
GROUPS = "root:x:0:\ndaemon:x:1:\nstaff:x:50:\nwww-data:x:33:\nnogroup:x:65534:\n"


def busybox(binary, out):
    """Writes an image of one busybox with a link for each of its applets."""
    applets = subprocess.run([binary, "--list"], check=True, capture_output=True, text=True).stdout.split()
    layer = out + ".layer"
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        modes = {"tmp": 0o1777, "root": 0o700}
        for name in ["bin", "dev", "etc", "home", "proc", "root", "sbin", "sys", "tmp", "usr", "usr/bin", "usr/sbin", "var"]:
            add(tar, name, type=tarfile.DIRTYPE, mode=modes.get(name, 0o755))
        with open(binary, "rb") as file:
            add(tar, "bin/busybox", file.read(), mode=0o755)
        for applet in sorted(set(applets) - {"busybox"}):
            add(tar, f"bin/{applet}", type=tarfile.SYMTYPE, linkname="busybox", mode=0o777)
        add(tar, "etc/passwd", USERS.encode())
        add(tar, "etc/group", GROUPS.encode())
    wrap(layer, out, [], ["sh"])
    os.remove(layer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("wrap")
    command.add_argument("rootfs")
    command.add_argument("out")
    command.add_argument("--env", action="append", default=[])
    command.add_argument("--cmd", action="append", default=[])
    command = commands.add_parser("busybox")
    command.add_argument("out")
    command.add_argument("--busybox", default=shutil.which("busybox"))
    args = parser.parse_args()
    if args.command == "wrap":
        wrap(args.rootfs, args.out, args.env, args.cmd)
    elif args.busybox:
        busybox(args.busybox, args.out)
    else:
        parser.error("no busybox on this machine: install busybox-static")


if __name__ == "__main__":
    main()
