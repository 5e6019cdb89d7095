"""Where a setting comes from, and what is said of one that does not fit."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import yaml

from tests.processes import ROOT
from ww_core.config import GUIDE_RANGES, Settings, SettingsWarning
from ww_core.config.template import GROUPS, default, template
from ww_core.errors import ConfigurationError
from ww_core.masking import mask
from ww_core.presets import PRESETS

pytestmark = pytest.mark.usefixtures("clean")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(**overrides: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings(**overrides)
    return str(caught.value)


def test_each_source_gives_way_to_the_stronger_one(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Settings().embedding_cache_size, Settings().sources()["embedding_cache_size"]) == (1000, "default")
    path = write(clean / "t4dm.yaml", "preset: medium\n")
    assert Settings().embedding_cache_size == 10_000
    assert Settings().sources()["embedding_cache_size"] == "preset medium"
    path.write_text("preset: medium\nembedding_cache_size: 7\n")
    assert (Settings().embedding_cache_size, Settings().sources()["embedding_cache_size"]) == (7, "t4dm.yaml:2")
    monkeypatch.setenv("T4DM_EMBEDDING_CACHE_SIZE", "8")
    assert Settings().embedding_cache_size == 8
    assert Settings().sources()["embedding_cache_size"] == "T4DM_EMBEDDING_CACHE_SIZE"
    settings = Settings(embedding_cache_size=9)
    assert (settings.embedding_cache_size, settings.sources()["embedding_cache_size"]) == (9, "keyword")


def test_the_file_is_looked_for_in_four_places(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(clean / "config" / "world-weaver" / "t4dm.yaml", "namespace: user\n")
    assert Settings().namespace == "user"
    write(clean / "t4dm.yaml", "namespace: here\n")
    assert Settings().namespace == "here"
    monkeypatch.setenv("T4DM_CONFIG", str(write(clean / "other" / "a.yaml", "namespace: variable\n")))
    assert Settings().namespace == "variable"
    assert Settings.load(config=write(clean / "b.yaml", "namespace: option\n")).namespace == "option"


def test_a_named_file_that_is_missing_is_an_error(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.yaml.*--config"):
        Settings.load(config=clean / "gone.yaml")
    monkeypatch.setenv("T4DM_CONFIG", "gone.yaml")
    assert "T4DM_CONFIG" in refusal()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\nembeding_cache_size: 1\n", ["t4dm.yaml:2", "did you mean embedding_cache_size?"]),
        ("namespace: a\nnamespace: b\n", ["set twice", "t4dm.yaml:1", "t4dm.yaml:2"]),
        ("neo4j_pool_size: [oops\n", ["t4dm.yaml:2", "not valid YAML"]),
        ("- neo4j_pool_size\n", ["t4dm.yaml:1", "key: value"]),
        ("# note\nneo4j_pool_size: 0\n", ["neo4j_pool_size = 0", "t4dm.yaml:2", "from 1 to 10000"]),
        ("neo4j_pool_size: many\n", ["neo4j_pool_size = 'many'", "whole number"]),
        ("embedding_batch_size: true\n", ["embedding_batch_size = True", "t4dm.yaml:1"]),
        ("embedding_cache_ttl: .nan\n", ["embedding_cache_ttl = nan", "above 0"]),
        ("namespace: !!python/object:os.x {}\n", ["namespace", "t4dm.yaml:1"]),
    ],
)
def test_a_bad_file_is_an_error_that_names_the_line(clean: Path, text: str, expected: list[str]) -> None:
    write(clean / "t4dm.yaml", text)
    message = refusal()
    assert all(part in message for part in expected), message
    assert "\n" not in message


def test_a_file_that_is_no_text_is_an_error(clean: Path) -> None:
    (clean / "t4dm.yaml").write_bytes(b"namespace: \xff\xfe\n")
    assert "not UTF-8" in refusal()


def test_an_empty_file_sets_nothing(clean: Path) -> None:
    write(clean / "t4dm.yaml", "# nothing yet\n")
    assert Settings() == Settings()
    assert set(Settings().sources().values()) == {"default"}


def test_an_unknown_variable_is_an_error_that_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T4DM_NEO4J_POOLSIZE", "5")
    assert "T4DM_NEO4J_POOLSIZE" in refusal()
    assert "did you mean T4DM_NEO4J_POOL_SIZE?" in refusal()


def test_a_bad_variable_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T4DM_NEO4J_POOL_SIZE", "-1")
    assert "neo4j_pool_size = '-1' (T4DM_NEO4J_POOL_SIZE)" in refusal()


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T4DM_NEO4J_POOL_SIZE", "")
    assert Settings().sources()["neo4j_pool_size"] == "default"


def test_variables_hold_every_kind_of_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "T4DM_HIERARCHICAL_SEARCH": "true",
        "T4DM_CONSOLIDATION_MIN_SAMPLES": "7",
        "T4DM_CONSOLIDATION_MIN_CLUSTER_SIZE": "auto",
        "T4DM_HOOKS": "app.hooks, app.more",
        "T4DM_REDIS_URL": "redis://cache/1",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.hierarchical_search is True
    assert (settings.consolidation_min_samples, settings.consolidation_min_cluster_size) == (7, "auto")
    assert settings.hooks == ("app.hooks", "app.more")
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://cache/1"


def test_every_bad_key_is_named_at_once() -> None:
    message = refusal(neo4j_pool_size=0, embedding_device="tpu")
    assert "neo4j_pool_size = 0" in message
    assert "embedding_device = 'tpu' (keyword): must be auto, cpu, cuda or mps" in message


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"embedding_fp16": True, "embedding_device": "cpu"}, "half precision needs cuda or mps"),
        ({"qdrant_grpc": False, "qdrant_prefer_grpc": True}, "no gRPC channel to prefer"),
        ({"embedding_mode": "remote"}, "without redis_url"),
        ({"consolidation_min_cluster_size": 1}, "from 2 to 100000 or auto"),
        ({"consolidation_min_samples": "some"}, "from 1 to 100000 or auto"),
        ({"redis_url": "http://cache"}, "redis://"),
        ({"neo4j_uri": "neo4j-host:7687"}, "bolt://"),
        ({"namespace": "A b"}, "namespace = 'A b'"),
        ({"embedding_cache_ttl": float("inf")}, "at most 31536000"),
        ({"flower_basic_auth": "nocolon"}, "user:password"),
        ({"flower_basic_auth": "ann:"}, "user:password"),
        ({"metrics_address": "999.1.1.1"}, "an address of this machine"),
    ],
)
def test_values_that_cannot_work_are_refused(overrides: dict[str, object], expected: str) -> None:
    assert expected in refusal(**overrides)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "metrics.internal"])  # noqa: S104 - not bound
def test_an_address_may_be_a_number_or_a_name(address: str) -> None:
    assert Settings(metrics_address=address).metrics_address == address


def test_prefer_grpc_follows_the_channel_where_unset() -> None:
    assert Settings().qdrant_prefer_grpc is True
    assert Settings(qdrant_grpc=False).qdrant_prefer_grpc is False


@pytest.mark.parametrize("key", GUIDE_RANGES)
def test_a_buffer_outside_its_range_warns_and_below_one_fails(key: str) -> None:
    low, high = GUIDE_RANGES[key]
    for size in (low, high):
        assert getattr(Settings(**{key: size}), key) == size
    for size in (low - 1, high + 1):
        with pytest.warns(SettingsWarning, match=f"{key} = {size}"):
            Settings(**{key: size})
    assert f"{key} = 0" in refusal(**{key: 0})


SECRETS = {
    "redis_url": "redis://:hunter2@cache:6379/0",
    "qdrant_url": "https://user:hunter2@qdrant:6333",
    "qdrant_api_key": "hunter2",
    "neo4j_uri": "bolt://neo4j:hunter2@graph:7687",
    "neo4j_password": "hunter2",
}


def test_secrets_are_never_shown(clean: Path) -> None:
    settings = Settings(**SECRETS)
    shown = json.dumps(settings.shown())
    assert "hunter2" not in repr(settings) + str(settings) + repr(settings._layers) + shown
    assert settings.shown()["redis_url"] == "redis://:***@cache:6379/0"
    for key in SECRETS:
        assert "hunter2" not in refusal(**{key: ["hunter2"]})
    assert "hunter2" not in refusal(redis_url="htp://:hunter2@cache")
    assert "hunter2" not in refusal(namespace="redis://:hunter2@cache")
    write(clean / "t4dm.yaml", 'neo4j_password: "hunter2\n')
    assert "hunter2" not in refusal()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        ("redis://:p@ss/w:rd@cache/0 away", "redis://:***@cache/0 away"),
        ("https://token@host", "https://***@host"),
        ("https://host/?api_key=abc&x=1", "https://host/?api_key=***&x=1"),
    ],
)
def test_passwords_in_urls_are_masked(text: str, expected: str) -> None:
    assert mask(text) == expected


def test_replacing_keeps_the_other_sources(clean: Path) -> None:
    write(clean / "t4dm.yaml", "namespace: here\n")
    settings = Settings().replace(preset="medium")
    assert (settings.namespace, settings.sources()["namespace"]) == ("here", "t4dm.yaml:1")
    assert (settings.embedding_cache_size, settings.sources()["preset"]) == (10_000, "keyword")
    with pytest.raises(ConfigurationError, match="unknown setting 'namspace'"):
        settings.replace(namspace="x")


def test_equal_settings_are_equal_whatever_they_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    by_keyword = Settings(namespace="same")
    monkeypatch.setenv("T4DM_NAMESPACE", "same")
    assert by_keyword == Settings()
    assert hash(by_keyword) == hash(Settings())
    assert Settings(namespace="other") != by_keyword
    assert pickle.loads(pickle.dumps(by_keyword)) == copy.deepcopy(by_keyword) == by_keyword  # noqa: S301


def test_a_data_dir_in_a_file_is_relative_to_the_file(clean: Path) -> None:
    path = write(clean / "deploy" / "t4dm.yaml", "data_dir: memory\n")
    assert Settings.load(config=path).data_dir == clean / "deploy" / "memory"
    assert Settings(data_dir="memory").data_dir == clean / "memory"
    assert Settings().data_dir == Path("~/.world-weaver").expanduser()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_switch_of_a_preset_is_in_force(preset: str) -> None:
    servers = {"redis_url": "redis://r", "qdrant_url": "http://q", "neo4j_uri": "bolt://n"}
    settings = Settings(preset=preset, **servers)
    for switch in PRESETS[preset]:
        assert getattr(settings, switch.key) == switch.value
        assert settings.sources()[switch.key] == f"preset {preset}"
    alone = Settings(preset=preset)
    for switch in PRESETS[preset]:
        assert (alone.sources()[switch.key] == "default") is bool(switch.needs)
        assert getattr(Settings(), switch.key) != switch.value, "it would change nothing"


def test_the_template_lists_every_key_at_its_default() -> None:
    text = template()
    uncommented = "\n".join(line[1:] for line in text.splitlines() if line.startswith("#") and line[1:2].isalpha())
    listed = yaml.safe_load(uncommented)
    assert list(listed) == list(Settings.model_fields)
    for key, value in listed.items():
        wanted = default(key)
        assert value == (str(wanted) if isinstance(wanted, Path) else list(wanted) if wanted == () else wanted), key
    assert yaml.safe_load(text) is None
    assert set(GROUPS) <= set(listed)
    for field in Settings.model_fields.values():
        assert field.description


def test_uncommented_the_template_changes_nothing(clean: Path) -> None:
    lines = [line[1:] if line[1:2].isalpha() and line.startswith("#") else line for line in template().splitlines()]
    defaults = Settings()
    write(clean / "t4dm.yaml", "\n".join(line for line in lines if not line.startswith("data_dir")))
    assert Settings() == defaults


def test_the_file_at_the_root_is_what_the_fields_say() -> None:
    assert (ROOT / "t4dm.yaml").read_text(encoding="utf-8") == template(), "run `ww config --init --force`"


def test_a_blank_data_directory_is_refused_instead_of_meaning_the_current_one() -> None:
    with pytest.raises(ConfigurationError, match="must name a directory"):
        Settings(data_dir=" ")
