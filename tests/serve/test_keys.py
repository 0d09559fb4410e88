"""The keys file: taken as a whole or refused with the place that is wrong, and never open by mistake."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork.core.terms import Tenant
from openwork.serve.keys import Grant, Keys, KeysError, digest_of, is_readable_by_others, new_key, parse_keys, read_keys

HASH = "sha256:" + "0123456789abcdef" * 4
FULL = f"""
[tenants.alice]
keys = ["{HASH}"]
models = ["a", "b"]
requests_per_minute = 60
tokens_per_minute = 1000
max_running = 4
max_waiting = 8
kv_share = [0.25, 0.5]
weight = 2
cache = "team"
may_prioritise = true
may_operate = true
"""


def test_all_that_may_be_said_is_understood():
    grant = parse_keys(FULL).grants["alice"]
    assert grant == Grant(
        tenant="alice",
        digests=frozenset({bytes.fromhex(HASH[7:])}),
        models=frozenset({"a", "b"}),
        requests_per_minute=60,
        tokens_per_minute=1000,
        max_running=4,
        max_waiting=8,
        kv_share=(0.25, 0.5),
        weight=2.0,
        cache="team",
        may_prioritise=True,
        may_operate=True,
    )
    assert grant.as_tenant(1000) == Tenant(
        weight=2.0, max_running=4, max_waiting=8, max_blocks=500, reserved_blocks=250
    )


def test_what_is_not_said_is_ordinary():
    grant = parse_keys(f'[tenants.a]\nkeys = ["{HASH}"]').grants["a"]
    assert grant.as_tenant(100) == Tenant(max_running=64)
    assert not grant.may_operate and not grant.may_prioritise and grant.circle == "tenant a"


def test_a_group_is_never_a_tenant():
    digests = frozenset({b"x"})
    alone, group = Grant(tenant="a", digests=digests), Grant(tenant="b", digests=digests, cache="a")
    assert alone.circle != group.circle


def test_a_new_key_opens_what_its_hash_stands_in():
    key, entry = new_key()
    assert entry == "sha256:" + hashlib.sha256(key.encode()).hexdigest()
    keys = parse_keys(f'[tenants.a]\nkeys = ["{HASH}", "{entry}"]')
    digest, grant = keys.find(key.encode())
    assert grant.tenant == "a" and keys.holds(digest, "a")
    assert not keys.holds(digest, "b") and not keys.holds(b"", "a")
    assert keys.find(b"other") is None and keys.find(b"") is None and keys.find(entry.encode()) is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param("", "nobody", id="K07-empty"),
        pytest.param("[tenants]", "nobody", id="K07-no-tenant"),
        pytest.param("[tenants.a]", "tenants.a.keys", id="K07-no-keys"),
        pytest.param("[tenants.a]\nkeys = []", "tenants.a.keys", id="K07-empty-list"),
        pytest.param('[tenants.a]\nkeys = [""]', "tenants.a.keys[0]", id="K07-empty-key"),
        pytest.param('[tenants.a]\nkeys = ["  "]', "tenants.a.keys[0]", id="K07-spaces"),
        pytest.param('[tenants.a]\nkeys = ["ow-my-secret"]', "tenants.a.keys[0]", id="K07-the-key-itself"),
        pytest.param(f'[tenants.a]\nkeys = ["{HASH.upper()}"]', "tenants.a.keys[0]", id="upper"),
        pytest.param("tenants = 3", "nobody", id="not-a-table"),
        pytest.param("[tenants]\na = 3", "tenants.a", id="tenant-not-a-table"),
        pytest.param("[tenant.a]", "tenant", id="K01-section"),
        pytest.param(FULL + "weigth = 1", "weigth", id="K01-field"),
        pytest.param("[tenants.a\n", "line 1", id="not-toml"),
        pytest.param(FULL.replace("weight = 2", "weight = 0"), "tenants.alice.weight", id="weight"),
        pytest.param(FULL.replace("weight = 2", "weight = nan"), "tenants.alice.weight", id="weight-nan"),
        pytest.param(FULL.replace("= 60", "= 0"), "requests_per_minute", id="rate"),
        pytest.param(FULL.replace("= 60", "= -1"), "requests_per_minute", id="rate-negative"),
        pytest.param(FULL.replace("= 60", "= true"), "requests_per_minute", id="rate-true"),
        pytest.param(FULL.replace("= 60", "= 1.5"), "requests_per_minute", id="rate-part"),
        pytest.param(FULL.replace("[0.25, 0.5]", "[0.5, 0.25]"), "kv_share", id="share-order"),
        pytest.param(FULL.replace("[0.25, 0.5]", "[0, 1.5]"), "kv_share", id="share-above"),
        pytest.param(FULL.replace("[0.25, 0.5]", "0.5"), "kv_share", id="share-number"),
        pytest.param(FULL.replace('"team"', '"a b"'), "cache", id="group"),
        pytest.param(FULL.replace("may_operate = true", 'may_operate = "no"'), "may_operate", id="flag"),
        pytest.param(FULL.replace('["a", "b"]', "[]"), "models", id="models"),
        pytest.param(f'[tenants."a b"]\nkeys = ["{HASH}"]', "'a b'", id="name"),
        pytest.param(FULL + f'[tenants.b]\nkeys = ["{HASH}"]', "alice", id="shared-key"),
        pytest.param(
            "".join(f'[tenants.t{n}]\nkeys = ["sha256:{n:064x}"]\nkv_share = [0.6, 1]\n' for n in range(2)),
            "kv_share",
            id="shares-together",
        ),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_place(text, place):
    with pytest.raises(KeysError) as caught:
        parse_keys(text)
    assert place in str(caught.value) and "my-secret" not in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_keys_or_an_error_of_ours(text):
    for whole in (text, f"[tenants.a]\n{text}", FULL + text):
        try:
            keys = parse_keys(whole)
        except KeysError:
            continue
        assert all(grant.digests for grant in keys.grants.values())


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(field=st.sampled_from(sorted(f for f in FULL.split() if f.isidentifier())), value=values)
def test_any_value_of_a_field_is_taken_or_refused(field, value):
    from openwork.serve import keys

    entry = {"keys": [HASH], field: value}
    try:
        grant = keys._grant("alice", entry)
    except KeysError:
        return
    grant.as_tenant(1000)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(KeysError, match=str(path)):
            read_keys(path)
    (tmp_path / "latin").write_bytes(b"\xff")
    (tmp_path / "large").write_bytes(b"#" * (2**20 + 1))
    for name in ("latin", "large"):
        with pytest.raises(KeysError, match=name):
            read_keys(tmp_path / name)


def test_a_file_that_others_read_is_noticed(tmp_path):
    path = tmp_path / "keys.toml"
    path.write_text(FULL)
    path.chmod(0o600)
    assert not is_readable_by_others(path)
    path.chmod(0o644)
    assert is_readable_by_others(path)
    assert read_keys(path).grants["alice"].weight == 2


def test_many_keys_are_refused():
    lines = ", ".join(f'"sha256:{number:064x}"' for number in range(4097))
    with pytest.raises(KeysError, match="4097"):
        parse_keys(f"[tenants.a]\nkeys = [{lines}]")


def test_digests_are_of_bytes():
    assert digest_of(b"\xff") != digest_of(b"") and isinstance(Keys([]).find(b"\xff"), type(None))
