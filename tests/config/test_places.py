"""Addresses: none holds a secret, none names a protocol that a config has no use for, and a path is what it was."""

import json

import pytest
import yaml

from podium.config import load_config_data, load_config_text
from podium.config.places import mistake_in
from podium.errors import UserError

SECRET = "hunter2"
WITH_SECRETS = [
    f"s3://KEY:{SECRET}@bucket/a.jsonl",
    f"s3://KEY:{SECRET}/with/slash@bucket/a.jsonl",
    f"gs://{SECRET}@bucket/a.jsonl",
    f"https://user:{SECRET}@host/a.jsonl",
    f"https://host/a.jsonl?X-Amz-Credential=K&X-Amz-Signature={SECRET}",
    f"gs://bucket/a.jsonl?X-Goog-Signature={SECRET}",
    f"https://account.blob.core.windows.net/a?sv=1&sig={SECRET}",
    f"hf://datasets/org/name?token={SECRET}",
    f"simplecache::s3://KEY:{SECRET}@bucket/a.jsonl",
]
FIELDS = [
    "data.preferences",
    "data.eval_prompts",
    "model.name_or_path",
    "reward.model.name_or_path",
    "platform.vertex.staging_bucket",
    "platform.vertex.api_endpoint",
    "platform.kubeflow.storage",
    "platform.kubeflow.host",
    "platform.image",
]


def config_with(field: str, value: str) -> dict[str, object]:
    data: dict[str, object] = {} if field.startswith("model.") else {"model": {"name_or_path": "some/model"}}
    node = data
    *keys, last = field.split(".")
    for key in keys:
        node = node.setdefault(key, {})  # type: ignore[assignment]  # sections are mappings
    node[last] = value
    return data


@pytest.mark.parametrize("address", WITH_SECRETS)
@pytest.mark.parametrize("field", FIELDS)
def test_a_secret_in_an_address_is_refused_and_not_repeated(field: str, address: str) -> None:
    data = config_with(field, address)
    readings = [
        lambda: load_config_data(data, source="rlhf.yaml"),
        lambda: load_config_data(data, source="parameter config", resolved=True),
        lambda: load_config_text(yaml.safe_dump(data), source="rlhf.yaml"),
        lambda: load_config_text("model: {name_or_path: m}", overrides=[f"{field}={address}"]),
        lambda: load_config_text("model: {name_or_path: m}", overrides=[f"{field}={json.dumps([address])}"]),
        lambda: load_config_text("model: {name_or_path: m}", overrides=[f"seed={address}"]),
    ]
    for read in readings:
        with pytest.raises(UserError) as caught:
            read()
        assert SECRET not in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_the_refusal_points_at_where_secrets_come_from() -> None:
    with pytest.raises(UserError, match=r"^rlhf\.yaml:2: data\.preferences: holds a secret, which copies") as caught:
        load_config_text(f"model: {{name_or_path: m}}\ndata: {{preferences: '{WITH_SECRETS[0]}'}}", source="rlhf.yaml")
    assert "gcloud auth application-default login" in str(caught.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://host/a.jsonl", "addresses of http:// are not read"),
        ("memory://a", "addresses of memory:// are not read"),
        ("S3://bucket/a", "addresses of S3:// are not read"),
        ("simplecache::http://host/a", "addresses of simplecache:: are not read"),
        ("s3://bucket/a.zip::http://host/a", "addresses of s3://bucket/a.zip:: are not read"),
        ("file://host/a", "write file:///PATH"),
    ],
)
@pytest.mark.parametrize("field", ["data.prompts", "model.name_or_path", "reward.model.name_or_path"])
def test_an_address_of_another_kind_is_refused_by_name(field: str, address: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config_data(config_with(field, address), source="rlhf.yaml")
    assert str(caught.value).startswith(f"rlhf.yaml: {field}: {said}")


@pytest.mark.parametrize(
    "address",
    [
        "gs://bucket/a-?.jsonl",
        "s3://bucket/user@host/a:b.jsonl",
        "hf://datasets/org/name@main/a.jsonl",
        "/data/a@b:c/x.jsonl",
        "org/name",
        "file:///data/a.jsonl",
        "s3://bucket/design=1/a.jsonl",
    ],
)
def test_plain_addresses_are_taken(address: str) -> None:
    assert mistake_in(address) is None


def test_a_file_address_is_the_path_in_it() -> None:
    config = load_config_data(
        {"model": {"name_or_path": "file:///models/m"}, "data": {"prompts": "file:///data/../x.jsonl"}}, source="t"
    )
    assert (config.model.name_or_path, config.data.prompts[0].path) == ("/models/m", "/x.jsonl")


@pytest.mark.parametrize(
    "image", ["--privileged", "-v/:/host", "", "a b", "reg/UPPER", "x:y:z", "user:pw@reg/x", "a//b"]
)
def test_an_image_that_is_none_is_refused(image: str) -> None:
    with pytest.raises(UserError, match=r"platform\.image: is no image reference; write REGISTRY/NAME:TAG"):
        load_config_data(config_with("platform.image", image), source="rlhf.yaml")


@pytest.mark.parametrize(
    "image",
    ["podium/trainer:dev", "x", "localhost:5000/a/b:1.2-rc_3", f"europe-docker.pkg.dev/p/r/i@sha256:{'0a' * 32}"],
)
def test_an_image_is_a_name_with_tag_or_digest(image: str) -> None:
    assert load_config_data(config_with("platform.image", image), source="t").platform.image == image
