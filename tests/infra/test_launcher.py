"""The files of Ray's cluster launcher, as Ray itself reads them; nothing is asked of a cloud."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from raygan.sweep.spec import sweep_spec
from tests.infra.manifests import IMAGE, INFRA, ROOT

CLOUDS = ("aws", "gcp")
PLACES = re.compile(r"\b(?:AMI|PROJECT|REGION|ZONE|SECURITY_GROUP|[CG]PU_IMAGE)\b")
each = pytest.mark.parametrize("cloud", CLOUDS)


def _prepared(cloud: str) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((INFRA / "launcher" / f"{cloud}.yaml").read_text()))
    validate_config(config)
    return config


@each
def test_ray_accepts_the_file_and_starts_with_the_head_alone(cloud: str) -> None:
    config = _prepared(cloud)
    types = config["available_node_types"]
    assert types.keys() == {"head", "gpu-spot", "cpu"}
    assert config["head_node_type"] == "head"
    assert all(one["min_workers"] == 0 for one in types.values())
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu-spot"]["resources"]["GPU"] == 1
    assert "GPU" not in types["cpu"]["resources"]
    assert config["max_workers"] == sum(one["max_workers"] for one in types.values())
    assert config["idle_timeout_minutes"] <= 10
    assert config["provider"]["cache_stopped_nodes"] is False


def test_ray_notices_a_mistake(tmp_path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((INFRA / "launcher" / "aws.yaml").read_text())
    config["idle_timeout"] = 3
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(prepare_config(config))


@each
def test_nothing_is_installed_on_nodes(cloud: str) -> None:
    """Ray's defaults install a nightly version of Ray."""
    config = _prepared(cloud)
    assert config["docker"]["image"] == IMAGE
    assert config["docker"].keys() <= {"image", "container_name", "pull_before_run", "run_options"}
    commands = {key: value for key, value in config.items() if key.endswith("_commands")}
    assert len(commands) >= 6
    assert not any("pip" in line for lines in commands.values() for line in lines)
    assert {key for key, lines in commands.items() if lines} == {
        "head_start_ray_commands",
        "worker_start_ray_commands",
    }


@each
def test_ray_asks_for_a_token_and_the_dashboard_is_on_the_head_alone(cloud: str) -> None:
    config = _prepared(cloud)
    options = config["docker"]["run_options"]
    assert "--env RAY_AUTH_MODE=token" in options
    (path,) = [o.partition("RAY_AUTH_TOKEN_PATH=")[2] for o in options if "TOKEN_PATH" in o]
    assert config["file_mounts"] == {path: "~/.ray/auth_token"}
    start = config["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in start
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start


@each
def test_only_workers_are_spot(cloud: str) -> None:
    types = _prepared(cloud)["available_node_types"]
    for name, one in types.items():
        spot = re.search("spot", str(one["node_config"]), re.IGNORECASE) is not None
        assert spot == (name != "head"), name
        assert one["labels"]["ray.io/market-type"] == ("spot" if spot else "on-demand")


def test_nodes_of_aws_have_their_own_security_group_role_and_imdsv2() -> None:
    for name, one in _prepared("aws")["available_node_types"].items():
        node = one["node_config"]
        assert node["SecurityGroupIds"] == ["SECURITY_GROUP"], name
        role = "raygan-head" if name == "head" else "raygan-worker"
        assert node["IamInstanceProfile"] == {"Name": role}
        assert node["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
        (disk,) = node["BlockDeviceMappings"]
        assert disk["Ebs"]["Encrypted"]
        assert disk["Ebs"]["DeleteOnTermination"]


def test_nodes_of_google_have_their_own_network_and_account() -> None:
    for name, one in _prepared("gcp")["available_node_types"].items():
        node = one["node_config"]
        (interface,) = node["networkInterfaces"]
        assert interface["subnetwork"] == "projects/PROJECT/regions/REGION/subnetworks/raygan"
        (account,) = node["serviceAccounts"]
        role = "raygan-head" if name == "head" else "raygan-worker"
        assert account["email"] == f"{role}@PROJECT.iam.gserviceaccount.com"
        assert all(disk["autoDelete"] for disk in node["disks"])
        if name != "head":
            assert node["scheduling"]["instanceTerminationAction"] == "DELETE"


@each
def test_the_full_sweep_fits(cloud: str) -> None:
    scale = sweep_spec.load(ROOT / "sweeps" / "full.yaml").scale
    gpu = _prepared(cloud)["available_node_types"]["gpu-spot"]
    assert scale.max_concurrent != "auto"
    assert scale.cpus_per_worker <= gpu["resources"]["CPU"]
    assert scale.max_concurrent * scale.workers <= gpu["max_workers"]


@each
def test_the_words_to_replace_are_named_at_the_top_of_the_file(cloud: str) -> None:
    text = (INFRA / "launcher" / f"{cloud}.yaml").read_text()
    head, rest = re.split(r"^cluster_name", text, maxsplit=1, flags=re.MULTILINE)
    assert set(PLACES.findall(head)) == set(PLACES.findall(rest))
