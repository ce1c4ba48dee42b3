#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What fph-scan, fph-trace and fph-report have in common.

    conventions.py VERSION SOURCE SCAN-TARGET PROGRAM...

SOURCE is the project's folder, SCAN-TARGET a program to look at.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

version, source, target = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
programs = {pathlib.Path(p).name: p for p in sys.argv[4:]}
bad = 0


def problem(*words):
    global bad
    bad += 1
    print("not ok:", *words)


def run(*args, **more):
    # Python ignores SIGPIPE, and would have its children do so
    return subprocess.run(args, capture_output="stdout" not in more, text=True,
                          timeout=60, restore_signals=True, **more)


def one_behaviour(name, path):
    for option in "-V", "--version":
        got = run(path, option)
        if (got.returncode, got.stdout, got.stderr) != (0, f"{name} {version}\n", ""):
            problem(name, option, got)
    for option in "-h", "--help":
        got = run(path, option)
        if got.returncode or got.stderr or not got.stdout.startswith("Usage:"):
            problem(name, option, got)
        if any(len(line) > 80 for line in got.stdout.splitlines()):
            problem(name, option, "is wider than 80 columns")
    got = run(path, "--no-such-option")
    if got.returncode != 2 or f"Try '{name} --help'" not in got.stderr or got.stdout:
        problem(name, "--no-such-option", got)

    # Nobody reads it any more: no success, and no word
    reader, writer = os.pipe()
    os.close(reader)
    got = run(path, "--help", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    if got.returncode != 1 or got.stderr:
        problem(name, "with a closed pipe", got)
    if os.access("/dev/full", os.W_OK):
        with open("/dev/full", "w") as full:
            got = run(path, "--help", stdout=full, stderr=subprocess.PIPE)
        if got.returncode != 1 or not got.stderr.startswith(f"{name}: "):
            problem(name, "on a full disk", got)


def exit_statuses():
    """The table of the README is that of the man pages."""
    table = {int(n): text for n, text in
             re.findall(r"^\| (\d) \| (.*) \|$", (source / "README.md").read_text(), re.M)}
    for name in programs:
        page = (source / "docs" / f"{name}.1").read_text()
        section = page.split(".SH EXIT STATUS")[1].split(".SH ")[0]
        documented = {int(n) for n in re.findall(r"^\.B (\d)$", section, re.M)}
        expected = {n for n, text in table.items()
                    if not text.startswith("`") or text.startswith(f"`{name}`")}
        if documented != expected or len(table) < 5:
            problem(name, "has exit statuses", documented, "but README", expected)


def readme_table():
    """The figures of the README are those that were measured."""
    got = run(source / "docs/results/readme-table", source / "docs/results/two-cores-tcg")
    if got.returncode or got.stdout.count("\n") < 4 or \
       got.stdout not in (source / "README.md").read_text():
        problem("README.md has other figures than", got)


def options_of(*command):
    return set(re.findall(r"^ *(?:-[A-Za-z], *)?(--[a-z][a-z-]*)", run(*command, "--help").stdout,
                          re.M))


def completion():
    """All options of each program, and values where they are known."""
    script = source / "scripts" / "completion.bash"

    def complete(*words):
        code = (r'. "$0"; fph-scan() { printf "  \"name\" : \"%s\",\n" "\$((6*7))" web1; }; '
                'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
                '_fph "$1" "${@: -1}" "${@: -2:1}"; printf "%s\\n" "${COMPREPLY[@]}"')
        return set(run("bash", "-c", code, script, *words).stdout.split())

    for name, path in programs.items():
        commands = [[path]] if name != "fph-report" else \
            [[path, "run"], [path, "compare"], [path, "attach"]]
        for command in commands:
            got, expected = complete(*command, "--"), options_of(*command)
            if got != expected or len(expected) < 3:
                problem("completion of", *command, "differs:", got ^ expected)
    cases = [(("fph-report", ""), {"run", "compare", "attach"}),
             (("fph-report", "co"), {"compare"}),
             (("fph-scan", "--scanner", "pag"), {"pagemap-scan", "pagemap"}),
             (("fph-scan", "--scanner", "=", "of"), {"off"}),
             # Names are other people's: they are not for the shell to expand
             (("fph-scan", "--name", ""), {"$((6*7))", "web1"}),
             (("fph-trace", "-n", "w"), {"web1"}),
             (("fph-trace", "--object", ""), {"tp", "complete"})]
    for (name, *words), expected in cases:
        if name in programs and complete(programs[name], *words) != expected:
            problem("completion of", name, words, complete(programs[name], *words))


# What JSON has: a type, a list of one of them, members of an object (? is not always
# there). Whoever changes it for readers changes the schema number, here and there.
N = (int, type(None))
PAGES = {m: int for m in ("write", "read", "populate", "kvm", "zero", "madvise", "punch", "unmap")}
ESTIMATE = {"mode": str, "bytes": N, "pages": N, "zero_pages": N, "seconds": (float, int, type(None)),
            "part": (float, int, type(None)), "file_bytes": N}
HEAD = {"schema": 1, "tool": "fph-scan", "version": version}
SIZES = {"present": N, "huge": N, "zero": N, "swapped": N, "zero_mapped": N, "unmapped": N}
PROCESS = {**HEAD, "pid": int, "comm": str, "command": str, "scanner": str, "page_size": int,
           "scan_ns": int, "bandwidth": int,
           "regions": [{"region": int, "start": r"0x[0-9a-f]+", "end": r"0x[0-9a-f]+", "size": int,
                        "backing": str, "method": str, "name": str, "reason?": str,
                        "changed": bool, **SIZES}],
           "total": {"size": int, **SIZES}, "estimates": [ESTIMATE], "advice": [str]}
LEFT = {"ram": N, "present": N, "pagemap": N, "prescan": N}
HOST = {**HEAD, "scan_ns": int, "bandwidth": int,
        "machines": [{"pid": int, "vmm": str, "kvm": bool, **LEFT, "name": str, "program": str,
                      "error?": str}],
        "total?": LEFT, "estimates?": [ESTIMATE]}
TRACE = {"schema": 1, "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", "pid": int,
         "comm": str, "interval_ms": int,
         "threads": [{"comm": str, "kind": str, "pages": PAGES, "events": PAGES}],
         "ranges": [{"start": r"0x[0-9a-f]+", "size": int, "shared": bool, "grain": int,
                     "touched": int}],
         "drops": {m: int for m in ("paused", "counts", "fault", "clear", "bits", "missed")}}
REPORT = {"schema": int, "tool": "fph-report", "version": str,
          "started": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "machine": dict, "runs": [dict], "summary?": object}


def check(value, schema, where):
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return problem(where, "is no object")
        known = {m.rstrip("?") for m in schema}
        needed = {m for m in schema if not m.endswith("?")}
        if not needed <= set(value) <= known:
            return problem(where, "has members that differ:", set(value) ^ needed)
        for member, sub in schema.items():
            if member.rstrip("?") in value:
                check(value[member.rstrip("?")], sub, f"{where}.{member}")
    elif isinstance(schema, list):
        if not isinstance(value, list):
            return problem(where, "is no array")
        for i, element in enumerate(value):
            check(element, schema[0], f"{where}[{i}]")
    elif isinstance(schema, str):
        if not isinstance(value, str) or not re.fullmatch(schema, value):
            problem(where, "is", value)
    elif isinstance(schema, int):
        if value != schema:
            problem(where, "is", value)
    elif not isinstance(value, schema) or (isinstance(value, bool) and schema is not bool):
        problem(where, "is", repr(value))


def check_json(text, schema, where):
    try:
        check(json.loads(text), schema, where)
    except json.JSONDecodeError as error:
        problem(where, "is no JSON:", error)


def schemas():
    for path in sorted((source / "tests/cli/data").glob("*.json")):
        if not path.name.endswith(".summary.json"):
            check_json(path.read_text(), REPORT, path.name)
    if "fph-scan" not in programs:
        return
    scan = programs["fph-scan"]
    for tree in sorted((source / "tests/cli/data/scan").iterdir()):
        if not tree.is_dir():
            continue
        pid = next((tree / "proc").iterdir()).name
        check_json(run(scan, "--sysroot", tree, "--pid", pid, "--json").stdout, PROCESS, tree.name)
        for options in [], ["--all"]:
            check_json(run(scan, "--sysroot", tree, "--json", *options).stdout, HOST,
                       f"{tree.name}, all")
    with subprocess.Popen([target, "shapes"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as p:
        p.stdout.readline()
        pid = str(p.pid)
        for options in [], ["--scanner", "off"], ["--content"]:
            check_json(run(scan, "--pid", pid, "--json", *options).stdout, PROCESS, "fph-scan")
        # A line for each object
        with tempfile.TemporaryFile("w+") as out:
            watch = subprocess.Popen([scan, "--pid", pid, "--json", "--watch", "0"], stdout=out,
                                     stderr=subprocess.DEVNULL)
            while os.fstat(out.fileno()).st_size < 10000:
                if watch.poll() is not None:
                    break
            p.stdin.close()
            watch.wait(60)
            out.seek(0)
            for line in out:
                check_json(line, PROCESS, "fph-scan --watch")
    trace_schema()


def trace_schema():
    if "fph-trace" not in programs:
        return
    with subprocess.Popen([target, "shapes"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as p:
        p.stdout.readline()
        got = run(programs["fph-trace"], "-p", str(p.pid), "-j", "0.1", "2")
        if got.returncode == 3:
            print("SKIP: fph-trace --json:", got.stderr.strip())
        elif got.returncode or len(got.stdout.splitlines()) != 2:
            problem("fph-trace --json", got)
        for line in got.stdout.splitlines():
            check_json(line, TRACE, "fph-trace")
        p.stdin.close()


for program in programs.items():
    one_behaviour(*program)
exit_statuses()
readme_table()
completion()
schemas()
if not bad:
    print("ok")
sys.exit(bad > 0)
