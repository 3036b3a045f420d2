"""Where the work happens: thin adapters between the flows and the core. One outside library, one module.

Whatever a library would send home, or print where results belong, is switched off here, before the library is imported; a setting that a person made beforehand
stays. So is what would lead away from this machine or from this project.
"""

import os

QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "DVC_NO_ANALYTICS": "1",
    "ITERATIVE_DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "PYDANTIC_DISABLE_PLUGINS": "__all__",  # there is none, and looking for some reads what every installed package says of itself
}

for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)

OTHER_REPOSITORIES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_PREFIX")
"""What a hook of git hands to whatever it starts. The project's repository is the one that its folder lies in, so none of it is handed on."""
HERE = ("127.0.0.1", "localhost", "::1")
"""Never asked for through a proxy."""

for _name in OTHER_REPOSITORIES:
    os.environ.pop(_name, None)
if any(os.environ.get(_name) for _name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")):
    _named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([*filter(None, _named.split(",")), *(name for name in HERE if name not in _named.split(","))])
