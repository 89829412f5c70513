"""Everything below deploy/ that can be checked without a cluster. `cargo xtask deploy-check` runs it, with the tools that it
needs; `--write` writes anew what is made of something else.

Needs PyYAML, jsonschema and kubernetes-validate; helm, kubectl, promtool and observer by the paths given.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import jsonschema
import kubernetes_validate
import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent
CHART = DEPLOY / "helm/observer"
OLDEST, NEWEST = "1.25", "1.37"
MONITORING = ["podMonitor.enabled=true", "prometheusRule.enabled=true", "grafanaDashboard.enabled=true"]
EVERYTHING = MONITORING + [
    "serviceMonitor.enabled=true",
    "hostState.docker=true",
    "hostState.containersStorage=true",
    "image.digest=sha256:" + 64 * "0",
    "seccompProfile.type=Localhost",
    "seccompProfile.localhostProfile=observer.json",
    "seLinuxOptions.type=spc_t",
    "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring",
    "networkPolicy.egress[0].ports[0].port=443",
    "imagePullSecrets[0].name=registry",
    "secret.name=tokens",
    "secret.env.OBSERVER_SINK_SIEM_TLS_KEY_FILE=/etc/observer-secret/key",
    "extraVolumes[0].name=archive",
    "extraVolumes[0].hostPath.path=/var/log/observer",
    "extraVolumeMounts[0].name=archive",
    "extraVolumeMounts[0].mountPath=/archive",
    "hostNetwork=true",
    "capabilities={BPF,PERFMON,SYS_PTRACE,DAC_READ_SEARCH,SYS_NICE,AUDIT_READ}",
    "config.audit.apparmor=true",
    "podLabels.team=security",
    "podAnnotations.note=x",
    "nodeSelector.pool=a",
    "config.limits.memory.near_percent=off",
    "config.limits.overrides[0].containers.namespace=batch",
    "config.limits.overrides[0].changes=false",
    "config.sinks[0].type=webhook",
    "config.sinks[0].name=siem",
    "config.sinks[0].url=https://siem.example/in",
    "config.sinks[0].header_files.Authorization=/etc/observer-secret/token",
    "config.sinks[1].type=syslog",
    "config.sinks[1].name=logs",
    "config.sinks[1].address=tls://logs.example:6514",
    "config.sinks[2].type=alertmanager",
    "config.sinks[2].name=am",
    "config.sinks[2].url=http://alertmanager.monitoring:9093",
    "config.sinks[3].type=file",
    "config.sinks[3].name=archive",
    "config.sinks[3].path=/archive/alerts.json",
    "config.sinks[4].type=syslog",
    "config.sinks[4].name=journal",
    "config.sinks[4].address=unix:///host/run/systemd/journal/dev-log",
]
FILE = ["config.sinks[0].type=file", "config.sinks[0].name=a", "config.sinks[0].path=/var/lib/observer/a"]
SYSLOG = ["config.sinks[0].type=syslog", "config.sinks[0].name=a"]
# What must be refused, and a word of the reason.
REFUSED = [
    (["nosuch=1"], "nosuch"),
    (["image.tga=1"], "tga"),
    (["capabilities={ALL}"], "capabilities"),
    (["config.http.listen=9736"], "listen"),
    (["config.http.listen=off"], "listen"),
    (["config.http.listen=127.0.0.1:9736"], "listen"),
    (["config.http.listen=0.0.0.0:65536"], "listen"),
    (["config.rings.event_bytes=8192"], "event_bytes"),
    (["config.sinks[0].type=file", "config.sinks[0].name=a"], "path"),
    (["config.limits.memory.near_percent=101"], "near_percent"),
    (["seccompProfile.type=None"], "seccompProfile"),
    (["seccompProfile.type=Localhost"], "localhostProfile"),
    (["appArmorProfile.localhostProfile=a"], "localhostProfile"),
    (["capabilities={CAP_BPF}"], "capabilities"),
    (["podLabels.app\\.kubernetes\\.io/name=a"], "podLabels"),
    (["secret.env.LD_PRELOAD=/a"], "LD_PRELOAD"),
    # What is not in the pod.
    (["config.store.path=/data"], "config.store.path"),
    (["config.socket.path=/tmp/a.sock"], "config.socket.path"),
    (["config.host.cri_sockets[0]=/var/snap/a.sock"], "cri_sockets"),
    (FILE + ["config.sinks[0].path=/var/log/a"], "/var/log/a"),
    (FILE + ["config.sinks[0].path=/var/lib/observers/a"], "/var/lib/observers/a"),
    (SYSLOG + ["config.sinks[0].address=unix:///dev/log"], "/host/run/systemd/journal/dev-log"),
    (SYSLOG + ["config.sinks[0].address=tls://h:1", "config.sinks[0].tls.ca=/etc/observer-secret/ca"], "tls.ca"),
    (FILE + ["secret.env.OBSERVER_SINK_A_TLS_CA_FILE=/etc/observer-secret/ca"], "/etc/observer-secret/ca"),
    (["secret.env.OBSERVER_SINK_A_TLS_CA_FILE=/etc/observer/ca"], "fits no sink"),
    (FILE + [value.replace("[0]", "[1]") for value in FILE], "two are called a"),
    (["config.audit.apparmor=true"], "AUDIT_READ"),
]
# AppArmor's profile, and how it was said before Kubernetes 1.30.
APPARMOR = [
    ([], "unconfined"),
    (["appArmorProfile.type=RuntimeDefault"], "runtime/default"),
    (["appArmorProfile.type=Localhost", "appArmorProfile.localhostProfile=agent"], "localhost/agent"),
    (["appArmorProfile=null"], None),
]

problems = []


def problem(text):
    problems.append(text)
    print(f"error: {text}", file=sys.stderr)


def run(*command, fails=False, cwd=None):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=cwd)
    if (done.returncode != 0) != fails:
        problem(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + (done.stderr if fails else "")


def template(helm, values, version=NEWEST):
    sets = [word for value in values for word in ("--set", value)]
    return run(helm, "template", "observer", CHART, "--namespace", "observer", "--kube-version", version, *sets)


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def invalid(document, version):
    """Why a manifest is not valid, strictly: an unknown field is a mistake."""
    kind = document.get("kind", "?")
    try:
        if document.get("apiVersion", "").startswith("monitoring.coreos.com/"):
            schema = json.loads((DEPLOY / f"schemas/{kind.lower()}.json").read_text())
            jsonschema.validate(document, schema)
        else:
            kubernetes_validate.validate(document, version, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        return f"{kind}: {error.message}"
    except (FileNotFoundError, kubernetes_validate.SchemaNotFoundError) as error:
        return f"{kind}: no schema: {error}"
    return None


def validate(name, text, version=NEWEST, kinds=()):
    found = documents(text)
    for document in found:
        if reason := invalid(document, version):
            problem(f"{name} (Kubernetes {version}): {reason}")
    have = {document["kind"] for document in found}
    if missing := set(kinds) - have:
        problem(f"{name}: has no {', '.join(sorted(missing))}")
    return found


def plain(text):
    """A manifest that no helm manages."""
    drop = re.compile(r"\s*(helm\.sh/chart|app\.kubernetes\.io/managed-by): ")
    kept = [line for line in text.splitlines() if not drop.match(line) and not line.startswith("# Source: ")]
    return "# Made of the chart by `cargo xtask deploy-check --write`. Change the chart.\n" + "\n".join(kept) + "\n"


def values_schema():
    """The chart's own values by hand; the configuration within them by the agent's schema, as a draft 7 of it that every helm
    reads."""
    path = CHART / "values.schema.json"
    schema = json.loads(path.read_text())
    config = json.loads((DEPLOY.parent / "docs/schema/config.schema.json").read_text())

    def older(node):
        if isinstance(node, list):
            return [older(item) for item in node]
        if not isinstance(node, dict):
            return node
        node = {key: older(value) for key, value in node.items()}
        if isinstance(node.get("$ref"), str):
            node["$ref"] = node["$ref"].replace("#/$defs/", "#/definitions/config")
        return node

    config = older(config)
    parts = {"config" + name: part for name, part in config.pop("$defs").items()}
    for key in ("$schema", "$id"):
        del config[key]
    own = {name: part for name, part in schema["definitions"].items() if not name.startswith("config")}
    schema["definitions"] = own | {"config": config} | parts
    return path, json.dumps(schema, indent=1) + "\n"


def configuration(text):
    """The agent's, as the chart gives it."""
    (config,) = [d["data"]["observer.yaml"] for d in documents(text) if "observer.yaml" in d.get("data", {})]
    return config


def agents_view(observer, name, text):
    """What the agent says of its configuration."""
    config = configuration(text)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(config)
        file.flush()
        said = subprocess.run([observer, "config", "check", "--config", file.name], capture_output=True, text=True)
    if said.returncode != 0:
        problem(f"{name}: the agent refuses its configuration: {said.stderr}")


def generated(helm):
    base = documents(template(helm, []))
    names = {(document["kind"], document["metadata"]["name"]) for document in base}
    both = template(helm, MONITORING).split("\n---\n")
    extra = [
        part
        for part in both
        if any((d["kind"], d["metadata"]["name"]) not in names for d in documents(part.removeprefix("---\n")))
    ]
    text = template(helm, [])
    # kustomize makes the ConfigMap of the file, with a name of its own for each content: a change is rolled out.
    parts = [part for part in text.split("\n---\n") if "\nkind: ConfigMap\n" not in part]
    if len(parts) != len(documents(text)) - 1:
        problem("the chart's defaults have another number of ConfigMaps than one")
    manifest = re.sub(r"\n *checksum/config: .*", "", "\n---\n".join(parts))
    made = "# Made of the chart by `cargo xtask deploy-check --write`; an overlay has its own instead (docs/deploy.md).\n"
    return {
        DEPLOY / "kubernetes/base/observer.yaml": plain(manifest),
        DEPLOY / "kubernetes/base/config/observer.yaml": made + configuration(text),
        DEPLOY / "kubernetes/monitoring/monitoring.yaml": plain("---\n" + "\n---\n".join(extra).rstrip("\n")),
    }


def charts(helm, observer):
    run(helm, "lint", "--strict", CHART)
    for name, values in (("the chart's defaults", []), ("the chart with everything", EVERYTHING)):
        agents_view(observer, name, template(helm, values))
    core = ["DaemonSet", "ConfigMap", "ServiceAccount", "NetworkPolicy"]
    for version in (OLDEST, "1.29", "1.30", NEWEST):
        validate("the chart's defaults", template(helm, [], version), version, core)
        monitors = ["PodMonitor", "ServiceMonitor", "Service", "PrometheusRule"]
        validate("the chart with everything", template(helm, EVERYTHING, version), version, core + monitors)
    for values, annotation in APPARMOR:
        for version in ("1.29", NEWEST):
            text = template(helm, values, version)
            (pod,) = [d["spec"]["template"] for d in validate("a profile of AppArmor", text, version) if d["kind"] == "DaemonSet"]
            old = pod["metadata"]["annotations"].get("container.apparmor.security.beta.kubernetes.io/observer")
            new = pod["spec"]["containers"][0]["securityContext"].get("appArmorProfile", {}).get("type")
            wanted = dict(value.split("=") for value in values).get("appArmorProfile.type", annotation and "Unconfined")
            if (old, new) != ((annotation, None) if version == "1.29" else (None, wanted)):
                problem(f"the chart with {values} for Kubernetes {version}: annotation {old}, field {new}")
    for values, word in REFUSED:
        sets = [part for value in values for part in ("--set", value)]
        said = run(helm, "template", "observer", CHART, *sets, fails=True)
        if word not in said:
            problem(f"the chart refuses {values} without naming {word}: {said}")


def strictness(helm):
    """That the validation finds mistakes at all."""
    for document in documents(template(helm, MONITORING)):
        if document["kind"] == "DaemonSet":
            document["spec"]["template"]["spec"]["hostPid"] = True
        elif document["kind"] in ("PodMonitor", "PrometheusRule"):
            document["spec"]["nosuch"] = 1
        else:
            continue
        if invalid(document, NEWEST) is None:
            problem(f"a {document['kind']} with an unknown field is taken for valid")


def privileges(helm):
    """The same five everywhere (for the unit, what the start may take besides), and nothing that makes a container privileged."""
    source = (DEPLOY.parent / "observer/src/protection/capabilities.rs").read_text()
    block = source[source.index("pub const NEEDED") : source.index("]);")]
    needed = sorted(re.findall(r"// ([A-Z_]+)", block))
    unit = (DEPLOY / "systemd/observer.service").read_text()
    bounding = re.search(r"^CapabilityBoundingSet=(.*)$", unit, re.M).group(1)
    # SYS_ADMIN is there where no tracefs is mounted; systemd mounts one. The audit log, which is read where audit.apparmor asks
    # for it, comes to the host's network namespace only: a pod has another one.
    at_start = ["AUDIT_READ"]
    if sorted(word.removeprefix("CAP_") for word in bounding.split()) != sorted(needed + at_start):
        problem(f"the unit's capabilities are {bounding}, the agent needs {needed}, and {at_start} at its start")
    daemon_set = next(d for d in documents(template(helm, [])) if d["kind"] == "DaemonSet")
    pod = daemon_set["spec"]["template"]["spec"]
    if not pod["hostPID"] or pod["automountServiceAccountToken"]:
        problem("the pod must have hostPID and no token")
    for unwanted in ("hostNetwork", "hostIPC"):
        if pod.get(unwanted):
            problem(f"the pod has {unwanted}")
    (container,) = pod["containers"]
    security = container["securityContext"]
    expected = {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": security["capabilities"]["add"]},
    }
    for key, value in expected.items():
        if security.get(key) != value:
            problem(f"the container's {key} is {security.get(key)}")
    if sorted(security["capabilities"]["add"]) != needed:
        problem(f"the chart's capabilities are {security['capabilities']['add']}, the agent needs {needed}")
    writable = [m["name"] for m in container["volumeMounts"] if not m.get("readOnly")]
    if writable != ["socket", "state"]:
        problem(f"writable mounts: {writable}")


def overlay(kubectl):
    """As docs/deploy.md has it: another configuration and another image, which the pods then have."""
    document = (DEPLOY.parent / "docs/deploy.md").read_text()
    text = next(block for block in re.findall(r"```yaml\n(.*?)```", document, re.S) if "configMapGenerator" in block)
    mine = (DEPLOY / "kubernetes/base/config/observer.yaml").read_text() + "stdout: {format: json}\n"
    # kustomize wants relative paths.
    with tempfile.TemporaryDirectory(dir=DEPLOY / "kubernetes") as scratch:
        path = pathlib.Path(scratch)
        (path / "observer.yaml").write_text(mine)
        (path / "kustomization.yaml").write_text(text)
        found = validate("an overlay", run(kubectl, "kustomize", path))
    by_kind = {document["kind"]: document for document in found}
    config, pod = by_kind["ConfigMap"], by_kind["DaemonSet"]["spec"]["template"]["spec"]
    if config["data"]["observer.yaml"] != mine or config["metadata"]["namespace"] != "observer":
        problem(f"the overlay's configuration is {config}")
    mounted = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    if mounted != [config["metadata"]["name"]] or mounted == ["observer"]:
        problem(f"the overlay's pods have the configuration of {mounted}, it is {config['metadata']['name']}")
    if not pod["containers"][0]["image"].startswith("registry.example/"):
        problem(f"the overlay's image is {pod['containers'][0]['image']}")


def kustomize(kubectl):
    core = ["Namespace", "DaemonSet", "ConfigMap", "ServiceAccount", "NetworkPolicy"]
    validate("the kustomize base", run(kubectl, "kustomize", DEPLOY / "kubernetes/base"), kinds=core)
    overlay(kubectl)
    monitoring = run(kubectl, "kustomize", DEPLOY / "kubernetes/monitoring")
    validate("the kustomize base with monitoring", monitoring, kinds=core + ["PodMonitor", "PrometheusRule"])


def families():
    """Names of series, by docs/metrics.md."""
    names = {"up"}
    for name, kind in re.findall(r"^\| `(\w+)` \| (\w+) \|", (DEPLOY.parent / "docs/metrics.md").read_text(), re.M):
        names |= {name + suffix for suffix in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
    return names


# What every query is narrowed by; how the dashboard's drill-down works.
NARROWED = ['job=~"$job"', 'node=~"$node"', 'instance=~"$instance"']
NARROWED_CONTAINERS = NARROWED + ['namespace=~"$namespace"', 'name=~"$container"']


def dashboard():
    """The dashboard by itself; gives its queries, and where each is."""
    board = json.loads((CHART / "files/dashboard.json").read_text())
    rows = [panel for panel in board["panels"] if panel["type"] == "row"]
    levels = [board["panels"], *(row["panels"] for row in rows)]
    panels = [panel for level in levels for panel in level if panel["type"] != "row"]
    expressions = []
    for panel in panels:
        title = panel["title"]
        if not panel["targets"]:
            problem(f"dashboard: the panel {title} shows nothing")
        if not panel.get("description") or not panel["fieldConfig"]["defaults"].get("unit"):
            problem(f"dashboard: the panel {title} has no description, or no unit")
        expressions += [(f"panel {title}", target["expr"]) for target in panel["targets"]]
    expressions += [(f"annotation {it['name']}", it["expr"]) for it in board["annotations"]["list"]]
    ids = [panel["id"] for panel in panels + rows]
    if len(set(ids)) != len(ids):
        problem("dashboard: two panels have one id")
    # A closed row lies over what is below it: each is looked at alone.
    for level in levels:
        places = [panel["gridPos"] for panel in level]
        cells = [(p["x"] + x, p["y"] + y) for p in places for x in range(p["w"]) for y in range(p["h"])]
        if len(set(cells)) != len(cells) or any(x >= 24 for x, _ in cells):
            problem("dashboard: panels overlap, or are beside the page")
    for where, text in expressions:
        for name, labels in re.findall(r"\b((?:observer|process)_\w+|up)\b(?:\{([^}]*)\})?", text):
            narrowed = NARROWED_CONTAINERS if is_of_containers(name) else NARROWED
            if missing := [part for part in narrowed if part not in labels]:
                problem(f"{where}: {name} is not narrowed by {', '.join(missing)}")
    variables = board["templating"]["list"]
    known = {variable["name"] for variable in variables}
    for name in re.findall(r"\$\{?([a-z]\w*)", json.dumps(board)):
        if name not in known:
            problem(f"dashboard: there is no variable {name}")
    asked = [(f"variable {it['name']}", it["definition"]) for it in variables if it["type"] == "query"]
    return expressions, asked


def is_of_containers(name):
    """Not the one gauge that only begins like their series."""
    return name.startswith("observer_container_") and name != "observer_container_series_dropped"


def queries(promtool):
    rules = yaml.safe_load((CHART / "files/rules.yaml").read_text())
    expressions = [(f"rule {r['alert']}", r["expr"]) for group in rules["groups"] for r in group["rules"]]
    drawn, asked = dashboard()
    expressions += drawn
    known = families()
    for where, text in expressions + asked:
        names = set(re.findall(r"\b((?:observer|process)_\w+|up)\b", re.sub(r'"[^"]*"', '""', text)))
        if not names:
            problem(f"{where}: no metric in {text}")
        for name in names - known:
            problem(f"{where}: docs/metrics.md has no {name}")
    concrete = [
        re.sub(r"\$[a-z]\w*", ".*", re.sub(r"\$__(rate_interval|range|interval)", "5m", text)) for _, text in expressions
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        records = [{"record": f"checked:expression:{i}".replace(":", "_"), "expr": e} for i, e in enumerate(concrete)]
        yaml.safe_dump({"groups": [{"name": "checked", "rules": records}]}, file)
        file.flush()
        run(promtool, "check", "rules", file.name)
    run(promtool, "check", "rules", CHART / "files/rules.yaml")
    run(promtool, "test", "rules", DEPLOY / "prometheus/observer.rules.test.yaml")


def main():
    parser = argparse.ArgumentParser()
    for tool in ("helm", "kubectl", "promtool", "observer"):
        parser.add_argument(f"--{tool}", required=True)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    # First what helm itself goes by.
    for made in (lambda: [values_schema()], lambda: generated(args.helm).items()):
        for path, text in made():
            if args.write:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
            elif not path.exists() or path.read_text() != text:
                problem(f"{path.relative_to(DEPLOY.parent)} is out of date; run: cargo xtask deploy-check --write")
    charts(args.helm, args.observer)
    strictness(args.helm)
    privileges(args.helm)
    kustomize(args.kubectl)
    queries(args.promtool)
    if problems:
        sys.exit(1)
    print("charts, manifests, rules and dashboard are well")


main()
