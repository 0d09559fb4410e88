"""Models, /tokenize, /detokenize and the description of all routes."""

import pytest
from serve.api import USER, Api, Gatekeeper, echo_engine

from openwork.serve.app import make_app
from openwork.serve.callers import Caller


class Stranger(Caller):
    def may_use(self, model):
        return False


def test_the_model_is_listed_and_found(stories):
    (card,) = stories.get("/v1/models").json()["data"]
    assert card["id"] == stories.model and card["object"] == "model" and card["max_model_len"] == 512
    assert stories.get(f"/v1/models/{stories.model}").json() == card
    missing = stories.get("/v1/models/other")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "model_not_found"


def test_who_may_not_use_a_model_neither_sees_nor_gets_it(stories):
    app, stories.app = stories.app, Gatekeeper(make_app(stories.service), Stranger())
    try:
        assert stories.get("/v1/models").json()["data"] == []
        assert stories.complete(prompt="x").status_code == 403
        assert stories.post("/tokenize", {"prompt": "x"}).status_code == 403
    finally:
        stories.app = app


@pytest.mark.parametrize("text", ["once upon a time", "é\u2028 \0", "a</s>b"])
def test_tokens_go_there_and_back(stories, text):
    there = stories.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json()
    assert there["count"] == len(there["tokens"]) and there["max_model_len"] == 512 and there["token_strs"] is None
    assert stories.post("/detokenize", {"tokens": there["tokens"]}).json() == {"prompt": text}


def test_tokens_of_a_chat_are_those_of_its_answer(stories):
    there = stories.post("/tokenize", {"messages": USER, "return_token_strs": True}).json()
    answer = stories.chat(max_tokens=1, return_token_ids=True).json()
    assert there["tokens"] == answer["prompt_token_ids"] and there["token_strs"][0] == "<s>"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": USER}, "prompt"),
        ("/tokenize", {"prompt": "x", "tools": []}, "tools"),
        ("/tokenize", {"messages": USER, "add_special_tokens": True}, "add_special_tokens"),
        ("/tokenize", {"prompt": "a" * 10**6}, "prompt"),
        ("/detokenize", {"tokens": [2048]}, "tokens[0]"),
        ("/detokenize", {"tokens": [1] * 513}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {}, "tokens"),
    ],
)
def test_what_is_wrong_is_named(stories, path, body, param):
    answer = stories.post(path, body)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param


def test_every_route_is_described_and_every_description_is_a_route(stories):
    described = stories.get("/openapi.json").json()
    routes = {route.path.replace(":path", ""): route for route in make_app(stories.service).routes}
    assert described["paths"].keys() == routes.keys() - {"/openapi.json"}
    for path, methods in described["paths"].items():
        assert {method.upper() for method in methods} == routes[path].methods - {"HEAD"}
    body = described["components"]["schemas"]["ChatBody"]
    assert body["additionalProperties"] is False and body["required"] == ["model", "messages"]


def test_a_model_without_a_tokeniser_takes_token_ids(tmp_path):
    with Api(echo_engine(tmp_path, "abc")) as api:
        said = api.complete(prompt=[5, 6], max_tokens=3, return_token_ids=True).json()["choices"][0]
        assert said["token_ids"] == [3 + ord(c) for c in "abc"] and said["text"] == ""
        for path, body in (("/v1/completions", {"prompt": "x"}), ("/tokenize", {"prompt": "x"})):
            refused = api.post(path, body)
            assert refused.status_code == 400 and refused.json()["error"]["param"] == "prompt"
        assert api.chat().status_code == 400
        assert api.complete(prompt=[5], stop="x").json()["error"]["param"] == "stop"
