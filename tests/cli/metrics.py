#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads what test-metrics prints by the grammar of OpenMetrics 1.0, text format.

    metrics.py TEST-METRICS
"""
import re
import shutil
import subprocess
import sys

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
NUMBER = r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
METADATA = re.compile(rf"# (TYPE|UNIT|HELP) ({NAME}) (.+)")
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)?\}})? ({NUMBER})")


def parse(text):
    """{name: (unit, {label: value}, number)}; one sample for each family here."""
    assert text.endswith("# EOF\n"), "no # EOF at the end"
    families, seen = {}, {}
    name = None
    for line in text.removesuffix("# EOF\n").splitlines():
        found = METADATA.fullmatch(line)
        if found:
            kind, of, what = found.groups()
            if of != name:
                assert of not in families, f"{of} comes twice"
                name, families[of] = of, {}
            assert kind not in families[of] and of not in seen, f"metadata of {of}: {line}"
            families[of][kind] = what
            continue
        found = SAMPLE.fullmatch(line)
        assert found, f"not a line of OpenMetrics: {line}"
        assert found[1] == name, f"{found[1]} is not of the family {name}"
        assert name not in seen, f"two samples of {name}"
        labels = dict(re.findall(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"', found[2] or ""))
        labels = {k: re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], v)
                  for k, v in labels.items()}
        assert len(labels) == len(re.findall(LABEL, found[2] or "")), f"a label twice: {line}"
        seen[name] = (families[name].get("UNIT"), labels, found[3])
    for name, data in families.items():
        assert data.get("TYPE") == "gauge" and "HELP" in data, f"metadata of {name}: {data}"
        assert "UNIT" not in data or name.endswith("_" + data["UNIT"]), f"unit of {name}"
        assert not re.search(r"_(ms|ns|kib|total)(_|$)", name) or "_total_seconds" in name, name
        assert name in seen, f"no sample of {name}"
    return seen


def main():
    text = subprocess.run([sys.argv[1]], check=True, stdout=subprocess.PIPE, text=True).stdout
    print(text, end="")
    seen = parse(text)
    p = "fph_migration_"
    labels = seen[p + "info"][1]
    assert labels["vm"] == "vm\\1" and labels["mode"] == "both" and labels["status"] == "completed"
    assert labels["fph_inactive_reason"] == 'a "quoted"\nreason, with \\ and \ufffd'
    assert seen[p + "downtime_seconds"][0::2] == ("seconds", "0.007")
    assert p + "setup_seconds" not in seen, "a figure that there is not"
    assert seen[p + "total_seconds"][2] == "1000000.000"
    assert seen[p + "bytes"][0] == "bytes"
    assert int(seen[p + "rss_source_before_bytes"][2]) % 1024 == 0
    assert seen[p + "fph_scan_seconds"][2].startswith("1.0000000")
    assert seen[p + "pages_sent"][0] is None
    assert all(s[1]["vm"] == "vm\\1" for s in seen.values()), "whose is it?"
    # Prometheus's own reader, where there is one
    if shutil.which("promtool"):
        subprocess.run(["promtool", "check", "metrics"], input=text, text=True, check=True)


if __name__ == "__main__":
    main()
