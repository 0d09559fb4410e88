"""GET /v1/models and /v1/models/{id}: the one model that is served, for callers that may use it."""

from __future__ import annotations

import time

from openwork.engine.face import Facts
from openwork.serve.schema.other import ModelCard, ModelList

_STARTED = int(time.time())


def list_models(facts: Facts, may_use: bool) -> ModelList:
    return ModelList(data=[card(facts)] if may_use else [])


def card(facts: Facts) -> ModelCard:
    return ModelCard(id=facts.model, created=_STARTED, root=facts.model, max_model_len=facts.limits.context)
