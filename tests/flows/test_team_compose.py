"""compose.yaml says nothing that this project, MLflow, Prefect or DVC would not know: Docker is not asked, the programs behind it are."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli import main
from tasks.schedule.deployment import POOL
from tests.team.composed import (
    COMPOSE,
    REPOSITORY,
    TO_WRITE,
    command_of,
    environment_of,
    filled_in,
    health_of,
    own_variables,
    read_by_compose,
    variables_of_the_example,
    written,
)

OWN = [name for name, service in written()["services"].items() if "build" in service]
SECRET = re.compile(r"PASSWORD|SECRET|LOGIN|TOKEN|ACCESS_KEY$|TELL$")
OF_LIBRARIES = {"PGHOST", "PGPORT", "PGPASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", "HF_TOKEN"}
"""Variables that libpq, botocore and the hub's client document."""


def test_the_services_are_those_of_a_team() -> None:
    assert set(written()["services"]) == {"postgres", "s3", "mlflow", "prefect", "first", "worker-1", "worker-2", "watcher"}
    assert set(OWN) == {"mlflow", "prefect", "first", "worker-1", "worker-2", "watcher"}
    for name, service in written()["services"].items():
        assert service["restart"] == ("no" if name == "first" else "unless-stopped"), name


@pytest.mark.parametrize("service", OWN)
def test_each_command_is_one_that_its_program_takes(service: str) -> None:
    program, *arguments = command_of(service, own_variables())
    if program == "recompress":
        assert main.commands[arguments[0]].make_context(arguments[0], arguments[1:])
    elif program == "mlflow":
        from mlflow.cli import cli

        assert cli.commands[arguments[0]].make_context(arguments[0], arguments[1:])
    elif program == "prefect":
        app = getattr(import_module(f"prefect.cli.{arguments[0]}"), f"{arguments[0]}_app")
        _, bound, _ = app.parse_args(arguments[1:], exit_on_error=False, print_error=False)
        assert len(bound.arguments) == len(arguments) - 2, "each option was understood"
    else:
        assert program == "python"
        assert here(arguments[0]).is_file()


def here(place: str) -> Path:
    """Where a file of the image comes from."""
    return REPOSITORY / place.removeprefix("/")


@pytest.mark.parametrize("service", OWN)
def test_each_variable_is_one_that_somebody_reads(service: str) -> None:
    import mlflow.environment_variables
    from prefect.settings import Settings

    code = "".join(path.read_text() for folder in ("recompress", "tasks", "flows", "deploy") for path in (REPOSITORY / folder).rglob("*.py"))
    prefect = {str(name).upper() for name in _env_names(Settings)}
    for name in environment_of(service, own_variables()):
        known = name in OF_LIBRARIES or name in prefect or hasattr(mlflow.environment_variables, name) or re.search(rf'"{name}"', code)
        assert known, name


def _env_names(settings: Any) -> set[str]:
    """The variables that Prefect's settings are read from."""
    names: set[str] = set()
    for name, field in settings.model_fields.items():
        prefix = settings.model_config.get("env_prefix", "")
        nested = field.annotation if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields") else None
        names |= {f"{prefix}{name}", *(str(choice) for choice in getattr(field.validation_alias, "choices", ()))}
        names |= _env_names(nested) if nested is not None else set()
    return names


def test_the_example_asks_for_what_compose_needs_and_for_nothing_else() -> None:
    asked = {name for name, _ in re.findall(r"\$\{(\w+)(:[^}]*)?\}", COMPOSE.read_text())}
    assert set(variables_of_the_example()) == asked
    for name, value in variables_of_the_example().items():
        assert (TO_WRITE in value or value == "") == bool(SECRET.search(name) and name != "S3_ACCESS_KEY"), name
    for name in asked:
        without = own_variables() | {name: ""}
        needed = f"${{{name}:?}}" in COMPOSE.read_text()
        if needed:
            with pytest.raises(KeyError, match=name):
                filled_in(COMPOSE.read_text(), without)
        else:
            filled_in(COMPOSE.read_text(), without)


def test_no_password_stands_in_a_command_an_address_or_a_file() -> None:
    own = own_variables()
    secret = {value.rpartition(":")[2] for name, value in own.items() if TO_WRITE in variables_of_the_example()[name]}
    assert len(secret) == 9
    for service in OWN:
        assert not [word for word in command_of(service, own) for value in secret if value in word]
        addresses = [value for value in environment_of(service, own).values() if "://" in value]
        assert not [address for address in addresses for value in secret if value in address]
    assert "team.env" in (REPOSITORY / ".gitignore").read_text().split()


def test_who_works_has_no_right_that_the_work_does_not_need() -> None:
    for service in ("worker-1", "worker-2", "watcher"):
        held = set(written()["services"][service]["environment"].values())
        assert not held & {"${MLFLOW_ADMIN_PASSWORD:?}", "${POSTGRES_PASSWORD:?}", "${MLFLOW_DB_PASSWORD:?}", "${PREFECT_DB_PASSWORD:?}"}
    assert not {"${LEDGER_DB_PASSWORD:?}"} & set(written()["services"]["mlflow"]["environment"].values()), "MLflow's server cannot write the ledger"


def test_every_port_is_this_machine_s_own_and_every_folder_is_kept() -> None:
    for service in written()["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    kept = {volume.partition(":")[0] for service in written()["services"].values() for volume in service.get("volumes", ())}
    assert kept == {*written()["volumes"], "./deploy/databases.sql", "${PROJECT"}
    assert (REPOSITORY / "deploy" / "databases.sql").is_file()


def test_health_is_asked_where_a_server_listens() -> None:
    for service in ("mlflow", "prefect"):
        [port] = [word.partition("=")[2] for word in command_of(service, {}) if word.startswith("--port=")]
        assert f"127.0.0.1:{port}/" in health_of(service)
        assert [f"127.0.0.1:{port}:{port}"] == written()["services"][service]["ports"]
        test = written()["services"][service]["healthcheck"]["test"]
        refused = subprocess.run([sys.executable, here(test[2]), "http://127.0.0.1:9/"], capture_output=True, text=True, check=False)
        assert (refused.returncode, "refused" in refused.stderr) == (1, True)


def test_the_workers_wait_in_the_pool_that_schedules_use() -> None:
    for service in ("worker-1", "worker-2"):
        assert f"--pool={POOL}" in command_of(service, {})
    assert f'POOL = "recompress", "{POOL}"' in (REPOSITORY / "deploy" / "first.py").read_text()


def test_the_image_is_made_from_the_pins_and_holds_what_the_services_need() -> None:
    recipe = (REPOSITORY / "deploy" / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", recipe, re.MULTILINE) for word in line.split()}
    assert [name for name in copied if not (REPOSITORY / name).exists()] == []
    assert copied >= {"constraints.txt", "pyproject.toml", "recompress", "tasks", "flows", "deploy"}
    assert all("--constraint constraints.txt" in line for line in recipe.splitlines() if line.startswith("RUN pip"))
    ignored = (REPOSITORY / ".dockerignore").read_text().split()
    assert {"team.env", ".git", ".venv"} <= set(ignored)


def test_the_file_is_plain_yaml_that_other_readers_read_alike() -> None:
    again = yaml.load(COMPOSE.read_text(), Loader=yaml.CSafeLoader)
    assert again == written()


HOSTS = re.compile(r"\b(?:postgres|mlflow|prefect|s3)(?=:\d)")


@pytest.mark.parametrize("service", OWN)
def test_the_guide_starts_the_same_commands_without_docker(service: str) -> None:
    guide = " ".join((REPOSITORY / "docs" / "team.md").read_text().split())
    words = [word.replace("0.0.0.0", "127.0.0.1").replace("/deploy/", "deploy/") for word in command_of(service, {})]
    words = [word for word in words if not word.startswith("--allowed-hosts")]  # on this machine's own port MLflow allows no other anyway
    assert " ".join(words) in guide
    for name, value in environment_of(service, {name: f"${name}" for name in variables_of_the_example()}).items():
        if service in ("mlflow", "prefect") and name not in set(written()["x-quiet"]) | set(written()["x-objects"]) | {"PGHOST", "PREFECT_UI_API_URL"}:
            here = HOSTS.sub("127.0.0.1", value).replace("/deploy/", "deploy/")
            assert f"{name}={here}" in guide, "the password is named, and not written"


def read_into(shell: str, folder: Path, text: str, before: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "team.env").write_bytes(text.encode())
    asked = [shell, "-c", f"{before}. {REPOSITORY / 'deploy' / 'local.sh'} && env -0"]
    return subprocess.run(asked, cwd=folder, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)


def held_by(shell: str, folder: Path, text: str, before: str = "") -> dict[str, str]:
    """The environment of a program that a shell starts which has read ``team.env``."""
    done = read_into(shell, folder, text, before)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)


VALUES = [
    "mailto://mail.example.org?from=watch@example.org&to=team@example.org&mode=insecure json://127.0.0.1:8080/hook",
    "pa$word ${HOME} $(touch made) `touch made`",
    "a;touch made #b|c<d>e(f)g{h}i*j?k~l!m%n^o",
    """it's "quoted" and 'quoted'""",
    "back\\slash \\n \\x",
    " between spaces ",
    "'",
    "söme ✓",
]


@pytest.mark.parametrize("shell", ["bash", "dash"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_value_arrives_whole_with_docker_and_without(tmp_path: Path, shell: str, end: str) -> None:
    own = {f"OWN_{number}": value for number, value in enumerate(VALUES)} | {"PROJECT": "/srv/x", "PLAIN": "a&b;c d", "NONE": "", "QUOTED": ""}
    lines = [f"{name}='{value.replace(chr(39), chr(92) + chr(39))}'" for name, value in own.items() if name.startswith("OWN")]
    text = end.join(["# one", "", *lines, "  # two", "PLAIN=a&b;c d", "NONE=", "QUOTED=''", "PROJECT=/srv/x"])  # the last line has no end
    held = held_by(shell, tmp_path, text, "set -a; ")
    assert {name: held[name] for name in own} == own
    assert read_by_compose(text) == own
    assert [path.name for path in tmp_path.iterdir()] == ["team.env"], "nothing was evaluated"
    assert not [name for name in held if name.startswith("_") and name not in ("_",)]


@pytest.mark.parametrize("shell", ["bash", "dash"])
@pytest.mark.parametrize(
    "line",
    [
        "X=s3cret$x",
        'X="s3cret"',
        "X=s3cret #x",
        "X='s3cret",
        "X='s3'cret'",
        "X='s3cret\\'",
        "X= s3cret",
        "X=s3cret ",
        "X = s3cret",
        "s3cret",
        "a-b=s3cret",
        "X=s3cret`x`",
    ],
)
def test_what_both_would_read_otherwise_is_refused_by_its_name_alone(tmp_path: Path, shell: str, line: str) -> None:
    done = read_into(shell, tmp_path, f"# one\n{line}\n")
    assert (done.returncode, done.stdout, done.stderr.startswith("team.env:2"), "s3cret" in done.stderr) == (1, "", True, False)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_without_a_file_the_shell_says_so(tmp_path: Path, shell: str) -> None:
    asked = [shell, "-c", f". {REPOSITORY / 'deploy' / 'local.sh'} && env"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "cp deploy/team.env.example team.env" in done.stderr) == (1, True)


def test_the_shell_without_docker_has_what_a_worker_has(tmp_path: Path) -> None:
    own = own_variables() | {"PROJECT": str(tmp_path), "HF_TOKEN": ""}
    held = held_by("bash", tmp_path, "".join(f"{name}={value}\n" for name, value in own.items()))
    others = {value for name, value in own.items() if name.endswith(("_PASSWORD", "_KEY"))} - set(environment_of("worker-1", own).values())
    assert len(others) >= 5
    assert not others & set(held.values()), "no program has a password that is not its own"
    for name, value in environment_of("worker-1", own).items():
        assert held[name] == HOSTS.sub("127.0.0.1", value).replace("/project", str(tmp_path)), name
