"""What deploy/ starts: units, image, compose file and manifests, held against the product they start. Nothing runs."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml
from celery.bin.celery import celery
from flower.options import default_options
from servers import ROOT, run

from tasks.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

DEPLOY = ROOT / "deploy"
NO_TEXTS = {"__pycache__", "pictures"}
TEXTS = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and not NO_TEXTS & set(path.parts))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMPOSE = DEPLOY / "compose.yaml"
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")
STARTS = [*UNITS, DEPLOY / "Dockerfile", COMPOSE, *sorted((DEPLOY / "kubernetes").glob("*.yaml"))]
COMMAND = re.compile(r"""celery["']?[,\s]\s*["']?-A["']?[,\s]\s*["']?(?:pollchat\.)?tasks["']?[,\s]\s*["']?([a-z]+)""")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

HAS_SYSTEMD = shutil.which("systemd-analyze") is not None
HAS_COMPOSE = shutil.which("docker") is not None and (
    subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
)


def name_of(path: Path) -> str:
    return str(path.relative_to(DEPLOY))


def unit(path: Path) -> dict[str, list[str]]:
    """Return a unit's directives, each with its values in order."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().replace("\\\n", "").splitlines():
        if "=" in line and not line.startswith("#"):
            directive, value = line.split("=", 1)
            found.setdefault(directive, []).append(value)
    return found


def compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return services


def manifests(kind: str) -> dict[str, Any]:
    documents = [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def pods() -> dict[str, Any]:
    return {name: one["spec"]["template"]["spec"] for name, one in manifests("Deployment").items()}


def containers() -> dict[str, Any]:
    return {name: container for name, pod in pods().items() for container in pod["containers"]}


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, each with its arguments."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    words = (line.partition(" ") for line in "\n".join(lines).replace("\\\n", "").splitlines() if line)
    return [(first, rest) for first, _, rest in words]


def image(instruction: str) -> list[str]:
    """Return the arguments of an instruction in the last stage."""
    found = instructions()
    last = max(number for number, (name, _) in enumerate(found) if name == "FROM")
    return [rest for name, rest in found[last:] if name == instruction]


def commands() -> dict[str, list[str]]:
    """Return every command that is started or probed with, by where it is."""
    found = {f"{path.name} {number}": shlex.split(line.replace("%%", "%"))
             for path in UNITS
             for number, line in enumerate(unit(path)["ExecStart"])}  # fmt: skip
    found["Dockerfile"] = json.loads(image("CMD")[-1])
    for name, service in compose().items():
        if name != "redis":
            found[f"compose {name}"] = service["command"]
            found[f"compose {name} health"] = service["healthcheck"]["test"][1:]
    for name, container in containers().items():
        found[f"kubernetes {name}"] = container["command"]
        for probe in ("livenessProbe", "startupProbe", "readinessProbe"):
            if "exec" in container.get(probe, {}):
                found[f"kubernetes {name} {probe}"] = container[probe]["exec"]["command"]
    return {where: words for where, words in found.items() if words[0].endswith("celery")}


def seconds(duration: str) -> int:
    assert duration.endswith("s")
    return int(duration.removesuffix("s"))


@pytest.fixture
def hard_limit() -> int:
    """The hard limit of a task."""
    result = run("-c", "import celeryconfig; print(celeryconfig.task_time_limit)")
    return int(result.stdout)


@pytest.mark.parametrize("path", STARTS, ids=name_of)
def test_a_head_says_how_to_install_restart_and_read_the_logs(path: Path) -> None:
    lines = path.read_text().splitlines()
    head = "\n".join(lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]).lower()
    if path.name == "Dockerfile":
        head = head.replace("build,", "install")
    assert [word for word in ("install", "restart", "logs") if word not in head] == []


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    settings = {field.metadata["name"] for field in dataclasses.fields(Settings)}
    assert set(re.findall(r"\b(?:CHAT_[A-Z_]+|REDIS_URL)\b", path.read_text())) - settings == set()


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_every_celery_command_that_is_named_exists(path: Path) -> None:
    assert set(COMMAND.findall(path.read_text())) - set(celery.commands) == set()


@pytest.mark.parametrize("where", commands())
def test_every_command_takes_the_options_it_is_given(where: str) -> None:
    _, *app, name = commands()[where][:4]
    words = commands()[where][4:]
    assert app == ["-A", "pollchat.tasks"]  # each starts an installed wheel
    if name == "flower":  # its options are tornado's
        assert {word.lstrip("-").split("=")[0].replace("-", "_") for word in words} <= set(default_options.as_dict())
    else:
        command = celery.commands[name]
        command.make_parser(click.Context(command)).parse_args(words)


@pytest.mark.parametrize("where", [where for where, words in commands().items() if "beat" in words[3:4]])
def test_beat_writes_no_pid_file(where: str) -> None:
    assert "--pidfile=" in commands()[where]


def test_there_is_one_beat_everywhere() -> None:
    beats = [where for where, words in commands().items() if words[3] == "beat"]
    assert beats == ["pollchat-beat.service 0", "compose beat", "kubernetes pollchat-beat"]
    assert "%i" not in (DEPLOY / "systemd" / "pollchat-beat.service").read_text()
    assert compose()["beat"]["scale"] == 1
    deployment = manifests("Deployment")["pollchat-beat"]["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}


def test_a_worker_may_end_its_tasks_before_it_is_killed(hard_limit: int) -> None:
    worker = unit(DEPLOY / "systemd" / "pollchat-worker.service")
    assert int(worker["TimeoutStopSec"][0]) > hard_limit
    assert worker["KillMode"] == ["mixed"]
    assert seconds(compose()["worker"]["stop_grace_period"]) > hard_limit
    assert pods()["pollchat-worker"]["terminationGracePeriodSeconds"] > hard_limit
    assert int(re.findall(r"--stop-timeout (\d+)", (DEPLOY / "Dockerfile").read_text())[0]) > hard_limit


@pytest.mark.parametrize("path", UNITS, ids=name_of)
def test_a_unit_comes_back_always(path: Path) -> None:
    directives = unit(path)
    assert directives["Type"] == ["exec"]
    assert directives["Restart"] == ["always"]
    assert int(directives["RestartSec"][0]) >= 5
    assert directives["StartLimitIntervalSec"] == ["0"]


@pytest.mark.parametrize("path", UNITS, ids=name_of)
def test_a_unit_holds_no_secret(path: Path) -> None:
    directives = unit(path)
    assert directives["EnvironmentFile"] == ["/etc/pollchat.env"]
    assert [line for line in directives.get("Environment", []) if "HEARTBEAT" not in line] == []
    assert "install -m 600 /dev/null /etc/pollchat.env" in path.read_text()


@pytest.mark.parametrize("who", ["worker", "beat"])
def test_a_unit_has_a_folder_for_its_heartbeat(who: str) -> None:
    directives = unit(DEPLOY / "systemd" / f"pollchat-{who}.service")
    (folder,) = directives["RuntimeDirectory"]
    assert directives["Environment"] == [f"CHAT_HEARTBEAT_DIR=%t/{folder}"]
    shown = re.findall(r"CHAT_HEARTBEAT_DIR=(\S+) /opt", (DEPLOY / "systemd" / f"pollchat-{who}.service").read_text())
    assert shown == [f"/run/{folder}".replace("%p", f"pollchat-{who}").replace("%i", "")]


@pytest.mark.parametrize("who", ["worker", "beat"])
def test_a_unit_writes_the_archive_as_the_same_account_as_the_other(who: str) -> None:
    directives = unit(DEPLOY / "systemd" / f"pollchat-{who}.service")
    names = ("DynamicUser", "User", "StateDirectory", "StateDirectoryMode")
    assert [directives[name] for name in names] == [["yes"], ["pollchat"], ["pollchat"], ["0700"]]


def test_worker_and_beat_in_compose_write_the_same_archive() -> None:
    for who in ("worker", "beat"):
        assert compose()[who]["volumes"] == ["archive:/var/lib/pollchat"]
    assert "archive" in yaml.safe_load(COMPOSE.read_text())["volumes"]
    # a new volume takes over the owner of what the image has there
    (made,) = [json.loads(run_) for run_ in image("RUN") if "/var/lib/pollchat" in run_]
    assert made == ["install", "--directory", "--owner=pollchat", "--group=pollchat", "--mode=700", "/var/lib/pollchat"]


@pytest.mark.parametrize("who", ["worker", "beat"])
def test_worker_and_beat_in_kubernetes_may_mount_the_same_archive(who: str) -> None:
    text = (DEPLOY / "kubernetes" / f"{who}.yaml").read_text()
    with_archive = re.sub(r"# (- \{?name: archive|  persistentVolumeClaim:)", r"\1", text)
    pod = next(yaml.safe_load_all(with_archive))["spec"]["template"]["spec"]
    assert {"name": "archive", "mountPath": "/var/lib/pollchat"} in pod["containers"][0]["volumeMounts"]
    assert {"name": "archive", "persistentVolumeClaim": {"claimName": "pollchat-archive"}} in pod["volumes"]


@pytest.mark.skipif(not HAS_SYSTEMD, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("instance", ["", "@", "@2"])
@pytest.mark.parametrize("path", UNITS, ids=name_of)
def test_systemd_understands_a_unit(path: Path, instance: str, tmp_path: Path) -> None:
    if instance and "%i" not in path.read_text():
        return  # no template
    copy = tmp_path / f"{path.stem}{instance}.service"
    python = copy.with_name("python")  # its own path may have a space
    python.symlink_to(sys.executable)
    copy.write_text(re.sub(r"/opt/pollchat/\.venv/bin/\w+", str(python), path.read_text()))
    verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)]
    result = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert [line for line in result.stderr.splitlines() if path.stem in line] == []
    assert result.returncode == 0


@pytest.mark.skipif(not HAS_SYSTEMD, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("path", UNITS, ids=name_of)
def test_a_unit_is_exposed_to_little(path: Path) -> None:
    security = ["systemd-analyze", "security", "--offline=yes", "--threshold=25", "--no-pager", str(path)]
    result = subprocess.run(security, capture_output=True, text=True, check=False)
    if "unrecognized option" in result.stderr:
        pytest.skip("systemd-analyze is older than 250")
    assert result.returncode == 0, result.stdout


def test_flower_is_never_open() -> None:
    flower = unit(DEPLOY / "systemd" / "pollchat-flower.service")
    assert "--address=127.0.0.1" in flower["ExecStart"][0]
    service = compose()["flower"]
    assert service["environment"]["FLOWER_BASIC_AUTH"].startswith("${FLOWER_BASIC_AUTH:?")
    assert [port.rsplit(":", 2)[0] for port in service["ports"]] == ["127.0.0.1"]
    (variable,) = [one for one in containers()["pollchat-flower"]["env"] if one["name"] == "FLOWER_BASIC_AUTH"]
    assert not variable["valueFrom"]["secretKeyRef"].get("optional")
    assert manifests("Service")["pollchat-flower"]["spec"]["type"] == "ClusterIP"


def test_flowers_unit_does_not_start_without_a_password() -> None:
    (before,) = unit(DEPLOY / "systemd" / "pollchat-flower.service")["ExecStartPre"]
    _, *arguments = shlex.split(before)
    refused = run(*arguments)
    assert refused.returncode == 1
    assert refused.stderr == "FLOWER_BASIC_AUTH is not set in /etc/pollchat.env\n"
    assert run(*arguments, FLOWER_BASIC_AUTH="me:secret").returncode == 0


def test_the_image_starts_a_worker_without_a_shell_and_without_root() -> None:
    assert json.loads(image("CMD")[-1])[:4] == ["celery", "-A", "pollchat.tasks", "worker"]
    assert image("ENTRYPOINT") == []
    assert all(isinstance(ast.literal_eval(rest), list) for name, rest in instructions() if name == "RUN")
    (user,) = image("USER")
    assert int(user.split(":")[0]) > 0
    assert image("STOPSIGNAL") == ["SIGTERM"]


def test_the_image_is_built_from_what_the_wheel_needs(tmp_path: Path) -> None:
    copied = [rest.split()[:-1] for name, rest in instructions() if name == "COPY" and "--from" not in rest]
    sources = sorted(source for words in copied for source in words)
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert sorted(line[1:] for line in ignore if line.startswith("!")) == sources
    assert ignore.index("*") < min(number for number, line in enumerate(ignore) if line.startswith("!"))
    for source in sources:
        path, copy = ROOT / source, tmp_path / source
        copy.parent.mkdir(exist_ok=True)
        (shutil.copytree if path.is_dir() else shutil.copy)(path, copy)
    build = "from hatchling.build import build_wheel; print(build_wheel('dist'))"
    result = run("-c", build, folder=tmp_path, PYTHONPATH="")
    assert result.stdout.strip() == f"pollchat-{VERSION}-py3-none-any.whl", result.stderr


def test_the_image_has_the_extras_it_names() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for path in [DEPLOY / "Dockerfile", *UNITS]:
        (named,) = set(re.findall(r"'?\"?\.\[([a-z,]+)\]", path.read_text()))
        assert set(named.split(",")) <= set(extras)


def test_the_images_name_is_the_same_everywhere_and_its_tag_the_version() -> None:
    ours = {service["image"] for name, service in compose().items() if name != "redis"}
    ours |= {container["image"] for container in containers().values()}
    assert ours == {f"pollchat:{VERSION}"}
    (kustomized,) = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["images"]
    assert (kustomized["name"], kustomized["newTag"]) == ("pollchat", VERSION)


def test_compose_keeps_the_messages_and_evicts_nothing() -> None:
    redis = compose()["redis"]
    words = redis["command"][1:]
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--maxmemory"] == "256mb"
    assert redis["volumes"] == ["redis:/data"]
    assert "redis" in yaml.safe_load(COMPOSE.read_text())["volumes"]
    assert "ports" not in redis


@pytest.mark.parametrize("name", compose())
def test_a_service_is_watched_confined_and_comes_back(name: str) -> None:
    service = compose()[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"
    assert service["read_only"]
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108  the container's
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", ["worker", "beat"])
def test_a_service_is_asked_for_its_own_health(name: str) -> None:
    assert compose()[name]["healthcheck"]["test"][1:] == ["celery", "-A", "pollchat.tasks", "health", name]


@pytest.mark.skipif(not HAS_COMPOSE, reason="docker compose is not installed")
def test_docker_understands_the_compose_file(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ["docker", "compose", "-f", str(COMPOSE), "config", "--quiet"]
    refused = subprocess.run(config, capture_output=True, text=True, check=False)
    assert "FLOWER_BASIC_AUTH" in refused.stderr
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "me:secret")
    assert subprocess.run(config, capture_output=True, text=True, check=False).stderr == ""


@pytest.mark.parametrize("name", manifests("Deployment"))
def test_a_deployment_selects_its_own_pods_and_no_other(name: str) -> None:
    deployments = manifests("Deployment")
    wanted = deployments[name]["spec"]["selector"]["matchLabels"].items()
    labels = {one: deployments[one]["spec"]["template"]["metadata"]["labels"].items() for one in deployments}
    assert [one for one in labels if wanted <= labels[one]] == [name]


def test_what_else_selects_pods_finds_them() -> None:
    labels = {name: one["spec"]["template"]["metadata"]["labels"] for name, one in manifests("Deployment").items()}
    selectors = {
        "pollchat-flower": manifests("Service")["pollchat-flower"]["spec"]["selector"],
        "pollchat-worker": manifests("PodDisruptionBudget")["pollchat-worker"]["spec"]["selector"]["matchLabels"],
    }
    (spread,) = pods()["pollchat-worker"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == selectors["pollchat-worker"]
    for name, selector in selectors.items():
        assert [one for one in labels if selector.items() <= labels[one].items()] == [name]


def test_the_service_and_prometheus_find_flowers_port() -> None:
    (port,) = containers()["pollchat-flower"]["ports"]
    (service,) = manifests("Service")["pollchat-flower"]["spec"]["ports"]
    assert service["targetPort"] == port["name"]
    template = manifests("Deployment")["pollchat-flower"]["spec"]["template"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    assert f"--port={port['containerPort']}" in containers()["pollchat-flower"]["command"]


def test_there_are_workers_to_spare() -> None:
    assert manifests("Deployment")["pollchat-worker"]["spec"]["replicas"] >= 2


@pytest.mark.parametrize("name", pods())
def test_a_pod_is_confined(name: str) -> None:
    pod = pods()[name]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/tmp"}  # noqa: S108
    assert mounted == {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}


@pytest.mark.parametrize("name", containers())
def test_a_container_says_what_it_needs(name: str) -> None:
    resources = containers()[name]["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert set(resources["limits"]) == {"memory"}


@pytest.mark.parametrize("who", ["worker", "beat"])
def test_a_probe_asks_for_the_heartbeat_and_never_redis(who: str) -> None:
    container = containers()[f"pollchat-{who}"]
    for probe in ("livenessProbe", "startupProbe"):
        assert container[probe]["exec"]["command"] == ["celery", "-A", "pollchat.tasks", "health", who]
        assert container[probe]["timeoutSeconds"] >= 10  # importing Celery takes its time
    assert container["livenessProbe"]["periodSeconds"] >= 30
    assert "readinessProbe" not in container


def test_flowers_probes_ask_for_what_needs_no_password() -> None:
    container = containers()["pollchat-flower"]
    for probe in ("livenessProbe", "startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthcheck", "port": "http"}


@pytest.mark.parametrize("name", containers())
def test_what_a_container_refers_to_exists(name: str) -> None:
    held = {kind: manifests(kind) for kind in ("ConfigMap", "Secret")}
    container = containers()[name]
    assert [source["configMapRef"]["name"] for source in container["envFrom"]] == ["pollchat"]
    assert "pollchat" in held["ConfigMap"]
    keys = [variable["valueFrom"]["secretKeyRef"] for variable in container["env"]]
    assert "REDIS_URL" in [key["key"] for key in keys]
    assert [key for key in keys if key["key"] not in held["Secret"][key["name"]]["stringData"]] == []


def test_the_example_of_a_secret_is_a_placeholder_and_not_applied() -> None:
    (secret,) = manifests("Secret").values()
    assert [value for value in secret["stringData"].values() if "PLACEHOLDER" not in value] == []
    applied = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    assert sorted(applied) == [path.name for path in MANIFESTS if path.name != "secret.example.yaml"]


def test_the_config_map_holds_the_defaults() -> None:
    data = manifests("ConfigMap")["pollchat"]["data"]
    fields = {field.metadata["name"]: field for field in dataclasses.fields(Settings)}
    assert {name: fields[name].metadata["parse"](value) for name, value in data.items()} == {
        name: fields[name].default for name in data
    }
    assert [value for value in data.values() if not isinstance(value, str)] == []
