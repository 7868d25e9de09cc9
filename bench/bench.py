#!/usr/bin/env python3
"""Measures rbuild beside whatever other builders are installed, and prints a table.

    bench/bench.py [--rbuild PATH] [--quick] [--only WORD] [--rounds N] [--peer NAME ...]

Every round runs all builders one after another, so that a busy machine is busy for all of them; the table shows the
median wall time of the whole process and the ratio to rbuild. Peers: `buildah`, `docker` (with a daemon that answers),
`buildctl` (with BUILDKIT_HOST set). Wants root, the static busybox and, for the pull, docker-registry. It is not a test.
"""
import argparse
import contextlib
import json
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
FILES, BYTES = 20_000, 163_000_000


def run(command, **options):
    """Runs a command; (seconds, peak memory in bytes). Its output is shown only when it fails."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode != 0:
            output.seek(0)
            tail = output.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(map(str, command))}: exit {process.returncode}\n{tail}")
        return seconds, usage.ru_maxrss * 1024


# --- builders: each builds a directory, quietly, without compression, and keeps the result in its own store ---


class Rbuild:
    name = "rbuild"

    def __init__(self, binary, work):
        self.binary, self.store = binary, work / "rbuild"
        self.environment = {**os.environ, "RBUILD_ROOT": str(self.store)}

    def call(self, *args):
        return run([self.binary, *args], env=self.environment)

    def load(self, archive, name):
        self.call("load", "-q", "-i", archive, "-t", name)

    def build(self, context, *, fresh=False):
        return self.call("build", "-q", "-t", "bench", *(["--no-cache"] if fresh else []), context)

    def export(self, context, codec, out):
        return self.call("build", "-q", "--output", f"type=oci,compression={codec},dest={out}", context)

    def forget(self, image):
        with contextlib.suppress(RuntimeError):  # there is none before the first round
            self.call("rmi", "-f", image)
        self.call("prune", "-af")

    def pull_and_run(self, context):
        return self.call("build", "-q", context)

    def container(self, network):
        return self.call("run", "--rm", "--network", network, "busybox", "true")


class Buildah:
    name = "buildah"

    def __init__(self, work):
        self.version = subprocess.run(["buildah", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
        self.store = ["--root", work / "buildah", "--runroot", work / "buildah.run"]
        # Debian's crun refuses hosts with both generations of cgroups; runc takes all.
        self.options = ["--layers", *(["--runtime", "runc"] if shutil.which("runc") else [])]

    def call(self, *args):
        return run(["buildah", *self.store, *args])

    def load(self, archive, name):
        self.call("pull", "-q", f"oci-archive:{archive}")
        listed = subprocess.run(["buildah", *map(str, self.store), "images", "-q"], capture_output=True, text=True, check=True)
        self.call("tag", listed.stdout.split()[0], f"localhost/{name}:latest")

    def build(self, context, *, fresh=False):
        cache = ["--no-cache"] if fresh else []
        return self.call("build", "-q", *self.options, "-t", "bench", *cache, context)

    def forget(self, image):
        self.call("rmi", "-a", "-f")

    def pull_and_run(self, context):
        return self.call("build", "-q", *self.options, "--tls-verify=false", context)


class Docker:
    name = "docker"

    def __init__(self, work):
        info = subprocess.run(["docker", "version", "-f", "{{.Server.Version}}"], capture_output=True, text=True)
        if info.returncode != 0:
            raise FileNotFoundError("no docker daemon answers")
        self.version = info.stdout.strip()

    def call(self, *args):
        return run(["docker", *args], env={**os.environ, "DOCKER_BUILDKIT": "1"})

    def load(self, archive, name):
        # Old daemons load no OCI layouts; skopeo makes what they know.
        with tempfile.TemporaryDirectory() as directory:
            converted = Path(directory) / "image.tar"
            run(["skopeo", "--insecure-policy", "copy", "-q", f"oci-archive:{archive}", f"docker-archive:{converted}:{name}:latest"])
            self.call("load", "-q", "-i", converted)

    def build(self, context, *, fresh=False):
        return self.call("build", "-q", "-t", "bench", *(["--no-cache"] if fresh else []), context)

    def container(self, network):
        return self.call("run", "--rm", "--network", network, "busybox", "true")

    def forget(self, image):
        with contextlib.suppress(RuntimeError):
            self.call("rmi", "-f", image)
        self.call("builder", "prune", "-af")

    def pull_and_run(self, context):
        return self.call("build", "-q", context)


class Buildctl:
    name = "buildctl"

    def __init__(self, work):
        if "BUILDKIT_HOST" not in os.environ:
            raise FileNotFoundError("BUILDKIT_HOST is not set")
        self.version = subprocess.run(["buildctl", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
        self.bases, self.work = [], work

    def load(self, archive, name):
        layout = self.work / f"layout-{name}"
        with tarfile.open(archive) as tar:
            tar.extractall(layout)
        digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
        self.bases += ["--oci-layout", f"{name}={layout}", "--opt", f"context:{name}=oci-layout://{name}@{digest}"]

    def call(self, context, output, *args):
        places = ["--local", f"context={context}", "--local", f"dockerfile={context}"]
        return run(["buildctl", "build", "--frontend", "dockerfile.v0", *places, *self.bases, "--output", output, *args])

    def build(self, context, *, fresh=False):
        return self.call(context, "type=image,name=bench,compression=uncompressed", *(["--no-cache"] if fresh else []))

    def export(self, context, codec, out):
        return self.call(context, f"type=oci,compression={codec},dest={out}")

    def forget(self, image):
        run(["buildctl", "prune", "--all"])

    def pull_and_run(self, context):
        return self.call(context, "type=image,name=pulled,compression=uncompressed")


# --- workloads ---


def words(generator, size):
    """Text that compresses about as source code does."""
    out = bytearray()
    while len(out) < size:
        out += b"%x = call(%d, 'value')\n" % (generator.getrandbits(48), generator.randrange(1000))
    return bytes(out[:size])


def sources(directory, files, total):
    """A tree of text files: same names, same bytes in every run."""
    generator = random.Random(7)
    sizes = [generator.expovariate(1) for _ in range(files)]
    scale = total / sum(sizes)
    pool = words(generator, 4 << 20)
    for number, size in enumerate(sizes):
        path = directory / f"d{number % 200:03}" / f"file{number:05}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = max(1, int(size * scale))
        start = generator.randrange(len(pool) - min(size, len(pool) - 1))
        path.write_bytes(b"%d\n" % number + pool[start:start + size])


def context(work, name, dockerfile):
    directory = work / name
    directory.mkdir()
    (directory / "Dockerfile").write_text(dockerfile)
    return directory


class Bench:
    def __init__(self, builders, work, quick):
        self.builders, self.work, self.quick = builders, work, quick
        files, total = (2_000, BYTES // 10) if quick else (FILES, BYTES)
        self.scale = f"{files:,} files / {total // 1_000_000} MB"
        self.big = context(work, "big", "".join([
            "FROM busybox\n", "ENV A=1\n", "WORKDIR /app\n", "RUN echo 1 > /1\n", "RUN echo 2 > /2\n", "RUN echo 3 > /3\n",
            "COPY lock /app/\n", "RUN cat lock > /4\n", "COPY src /app/src\n", "RUN ls /app/src > /5\n", "CMD [\"true\"]\n",
        ]))
        (self.big / "lock").write_text("lock\n")
        sources(self.big / "src", files, total)
        self.edits = 0

    def edit(self, _builder=None):
        """Changes one of the many files."""
        self.edits += 1
        (self.big / "src/d007/file00007.txt").write_text(f"edit {self.edits}\n")

    def workloads(self):
        """(name, budget in seconds, prepare(builder), work(builder) -> (seconds, bytes)); prepare is not timed."""
        scale = self.scale
        yield (f"first build, {scale}, no compression", 1.6, lambda b: self.edit(), lambda b: b.build(self.big, fresh=True))
        yield (f"nothing changed, {scale}, 10 steps", 0.12, lambda b: b.build(self.big), lambda b: b.build(self.big))

        def edit(builder):
            builder.build(self.big)
            self.edit()

        yield (f"one file of {scale} changed, COPY and RUN", 0.5, edit, lambda b: b.build(self.big))
        for codec, budget in [("gzip", 2.0), ("zstd", 1.1)]:
            out = self.work / "out.tar"
            yield (f"one file changed, to an OCI tar, {codec}", budget, edit, lambda b, c=codec: b.export(self.big, c, out))

        runs = context(self.work, "runs", "FROM busybox\n" + "".join(f"RUN true {n}\n" for n in range(20)))
        yield ("20 RUN steps that do nothing", 0.2, None, lambda b: b.build(runs, fresh=True))

        count = 16
        text = "".join(f"FROM busybox AS s{n}\nRUN sleep 1; echo {n} > /s{n}\n" for n in range(count))
        gather = "FROM busybox\n" + "".join(f"COPY --from=s{n} /s{n} /\n" for n in range(count))
        sleeps = context(self.work, "sleeps", text + gather)
        yield ("16 stages of `sleep 1`", 1.25, None, lambda b: b.build(sleeps, fresh=True))

        count = 30 if self.quick else 300
        text = "".join(f"FROM busybox AS s{n}\nCOPY f{n} /f{n}\nENV N={n}\n" for n in range(count))
        gather = "FROM scratch\n" + "".join(f"COPY --from=s{n} /f{n} /\n" for n in range(count))
        stages = context(self.work, "stages", text + gather)
        for n in range(count):
            (stages / f"f{n}").write_text(f"{n}\n")
        yield (f"{count} stages of COPY + ENV, gathered: first", 1.0, None, lambda b: b.build(stages, fresh=True))
        yield (f"{count} stages of COPY + ENV, gathered: unchanged", 0.1, lambda b: b.build(stages), lambda b: b.build(stages))

        for network, budget in [("bridge", 0.030), ("host", 0.012)]:
            yield (f"run --rm busybox true, {network} network", budget, None, lambda b, n=network: b.container(n))

        image = registry(self.work, 17_000_000 if self.quick else 170_000_000)
        if image:
            pulled = context(self.work, "pulled", f"FROM {image}\nRUN true\n")
            yield ("pull a 170 MB base from loopback, one RUN", 1.1, lambda b: b.forget(image), lambda b: b.pull_and_run(pulled))


def registry(work, size):
    """Starts a registry on loopback that holds a base of `size` bytes; its name there, or none."""
    program, skopeo = shutil.which("docker-registry"), shutil.which("skopeo")
    if not program or not skopeo:
        return None
    tree = work / "base-tree"
    sources(tree / "data", 8_700, size)
    layer, archive = work / "base.layer", work / "base.tar"
    with tarfile.open(layer, "w") as tar:
        tar.add(tree / "data", "data")
        tar.add("/bin/busybox", "bin/sh")
        tar.add("/bin/busybox", "bin/true")
    run([REPO / "scripts/base.py", "wrap", layer, archive, "--cmd", "sh"])
    config = work / "registry.yml"
    config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {work}/registry}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n")
    server = subprocess.Popen([program, "serve", config], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    SERVERS.append(server)
    for line in server.stderr:
        if match := re.search(r"listening on (127\.0\.0\.1:\d+)", line):
            image = f"{match[1]}/base:1"
            run([skopeo, "--insecure-policy", "copy", "-q", "--dest-compress", "--dest-tls-verify=false", f"oci-archive:{archive}", f"docker://{image}"])
            return image
    return None


SERVERS = []


def measure(bench, rounds, only):
    """Rows of (name, budget, {builder: (median seconds, peak bytes)})."""
    for name, budget, prepare, work in bench.workloads():
        if only and only not in name:
            continue
        taken = {}
        for _ in range(rounds):
            for builder in bench.builders:
                try:
                    if prepare:
                        prepare(builder)
                    taken.setdefault(builder.name, []).append(work(builder))
                except AttributeError:
                    pass  # not every builder runs containers or writes every format
                except RuntimeError as error:
                    if builder.name == "rbuild":
                        raise
                    print(f"{builder.name} fails at `{name}`: {error}", file=sys.stderr)
        row = {who: (statistics.median(s for s, _ in runs), max(m for _, m in runs)) for who, runs in taken.items() if runs}
        print(f"  {name}: " + ", ".join(f"{who} {s:.3f} s" for who, (s, _) in row.items()), file=sys.stderr)
        yield name, budget, row


def table(rows, builders):
    peers = [b for b in builders if b.name != "rbuild"]
    print("| workload | budget | rbuild |" + "".join(f" {p.name} {p.version} | ratio |" for p in peers))
    print("|---|--:|--:|" + "--:|--:|" * len(peers))
    for name, budget, row in rows:
        ours = row["rbuild"][0]
        cells = [f"{budget} s", f"{ours:.3f} s"]
        for peer in peers:
            theirs = row.get(peer.name)
            cells += [f"{theirs[0]:.2f} s", f"{theirs[0] / ours:.0f}×"] if theirs else ["", ""]
        print(f"| {name} | " + " | ".join(cells) + " |")
    memory = [row["rbuild"][1] for name, _, row in rows if name.startswith("first build")]
    if memory:
        print(f"\nPeak memory of rbuild's largest process in the first build: {max(memory) / 1e6:.0f} MB (budget: 60 MB).")


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} × {model}, Linux {platform.release().split('-')[0]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rbuild", default=REPO / "target/release/rbuild", type=Path)
    parser.add_argument("--quick", action="store_true", help="a tenth of the files, one round")
    parser.add_argument("--only", help="workloads whose name has this word")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--peer", action="append", choices=["buildah", "docker", "buildctl", "none"], help="default: all that are there")
    args = parser.parse_args()
    (REPO / "target").mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="bench.", dir=REPO / "target"))
    try:
        builders = [Rbuild(args.rbuild.resolve(), work)]
        for peer in [Buildah, Docker, Buildctl]:
            if args.peer is None or peer.name in args.peer:
                try:
                    builders.append(peer(work))
                except FileNotFoundError as error:
                    print(f"without {peer.name}: {error}", file=sys.stderr)
        base = work / "busybox.tar"
        run([REPO / "scripts/base.py", "busybox", base, "--busybox", "/bin/busybox"])
        for builder in builders:
            builder.load(base, "busybox")
        rows = list(measure(Bench(builders, work, args.quick), args.rounds or (1 if args.quick else 5), args.only))
        print(machine() + "\n")
        table(rows, builders)
    finally:
        for server in SERVERS:
            server.terminate()
            server.wait()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
