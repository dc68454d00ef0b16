"""Does deploy/kubernetes keep what it promises? Parsed, and rendered by kubectl and held against Kubernetes' schemas.

No cluster runs here: what the kubelet makes of the probes, and whether a network plugin keeps the policy, is not seen.
"""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.oracles import python
from tests.tools import HANGS_S, ROOT

FOLDER: Final = ROOT / "deploy" / "kubernetes"
OLDEST: Final = "1.29"  # ReadWriteOncePod is stable since


def _parsed(text: str) -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


WRITTEN = {kind: d for file in sorted(FOLDER.glob("*.yaml")) for kind, d in _parsed(file.read_text("utf-8")).items()}
SPEC: dict[str, Any] = WRITTEN["Deployment"]["spec"]
POD: dict[str, Any] = SPEC["template"]["spec"]
CONTAINER: dict[str, Any] = POD["containers"][0]
OPEN: Final = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}, {"protocol": "TCP", "port": 443}]
MONITORING: Final = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
RULES: dict[str, Callable[[], bool]] = {
    "one, and never two at once": lambda: (SPEC["replicas"], SPEC["strategy"]) == (1, {"type": "Recreate"}),
    "a volume for one pod": lambda: WRITTEN["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteOncePod"],
    "only who monitors reaches it": lambda: (
        WRITTEN["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress", "Egress"]
        and WRITTEN["NetworkPolicy"]["spec"]["ingress"]
        == [{"from": [MONITORING], "ports": [{"protocol": "TCP", "port": 9464}]}]
    ),
    "each probe asks what is served": lambda: (
        {"name": "TOPUP_WEB__METRICS", "value": "0.0.0.0:9464"} in CONTAINER["env"]
        and [CONTAINER[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")]
        == ["/healthz", "/healthz", "/readyz"]
    ),
    "it reaches names and HTTPS": lambda: WRITTEN["NetworkPolicy"]["spec"]["egress"] == [{"ports": OPEN}],
    "not root": lambda: POD["securityContext"]["runAsNonRoot"] and POD["securityContext"]["runAsUser"] == 10001,
    "nothing of the image can be changed": lambda: CONTAINER["securityContext"]["readOnlyRootFilesystem"],
    "no capability": lambda: CONTAINER["securityContext"]["capabilities"] == {"drop": ["ALL"]},
    "no new one": lambda: CONTAINER["securityContext"]["allowPrivilegeEscalation"] is False,
    "no token of the cluster": lambda: POD["automountServiceAccountToken"] is False,
    "no variable that is no setting": lambda: POD["enableServiceLinks"] is False,
    "a stop waits for the pass": lambda: POD["terminationGracePeriodSeconds"] == 60,
    "no secret in the environment": lambda: all("secretRef" not in each for each in CONTAINER["envFrom"]),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_files_keep_their_rules(rule: str) -> None:
    """One row for each."""
    assert RULES[rule]()


def _copy(folder: Path, *, wallet: bool) -> None:
    """Make the folder as its first lines say; with the marks taken away from the lines of the wallet, or without."""
    shutil.copytree(FOLDER, folder)
    example = (ROOT / "deploy" / "topup.env.example").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = "".join(line for line in example if "/run/credentials" not in line)
    (folder / "settings.env").write_text(kept, encoding="utf-8")
    (folder / "secrets").mkdir()
    for name in ("topup-api-key", "topup-keystore", "topup-keystore-password"):
        (folder / "secrets" / name).write_text("of nobody", encoding="utf-8")
    for file in folder.glob("*.yaml") if wallet else ():
        text = re.sub(r"^( *)#(?=\S)", r"\1", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
        file.write_text(text, encoding="utf-8")


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S, check=False)


@pytest.mark.long
@pytest.mark.parametrize("wallet", [False, True], ids=["watching", "paying"])
def test_kubectl_renders_what_the_schemas_allow(tmp_path: Path, *, wallet: bool) -> None:
    """No key is unknown and none is of another type; the secrets are mounted where the settings look for them."""
    folder, rendered = tmp_path / "topup", tmp_path / "rendered.yaml"
    _copy(folder, wallet=wallet)
    own = python("kubernetes")
    done = _run(own.with_name("kubectl"), "kustomize", folder)
    assert (done.returncode, done.stderr) == (0, "")
    rendered.write_text(done.stdout, encoding="utf-8")
    checked = _run(own, "-m", "kubernetes_validate", "--strict", "-k", OLDEST, rendered)
    assert (checked.returncode, "WARN" in checked.stdout + checked.stderr) == (0, False), checked
    found = _parsed(done.stdout)
    container = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    places = {each["value"] for each in container["env"] if each["value"].startswith("/run/")}
    assert places == {f"/run/secrets/topup/{name}" for name in found["Secret"]["data"]}
    assert len(places) == (3 if wallet else 1)
