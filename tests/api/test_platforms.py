"""`/invocations`, `/vertex`, the `AIP_*` paths and KServe `/v2`."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.fake import BOS, FakeEngine, build_app, ids_of

MESSAGES = [{"role": "user", "content": "Hi"}]
INFER = "/v2/models/m/versions/1/infer"
EMPTY = {"error": "Input validation error: `inputs` cannot be empty", "error_type": "validation"}
INCOMPLETE = {"error": "Incomplete generation", "error_type": "Incomplete generation"}


async def test_invocations_is_the_target_route(client: httpx.AsyncClient) -> None:
    body = {"inputs": "x", "parameters": {"max_new_tokens": 2}}
    assert (await client.post("/invocations", json=body)).json() == [{"generated_text": "xHe"}]
    assert (await client.post("/invocations", json={**body, "stream": True})).content == (
        await client.post("/", json={**body, "stream": True})
    ).content
    answer = await client.post("/invocations", json={"messages": MESSAGES})
    assert answer.json()["object"] == "chat.completion"
    answer = await client.post("/invocations", json={"prompt": "x", "stream": True})
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_errors_of_invocations_are_those_of_the_target(client: httpx.AsyncClient) -> None:
    answer = await client.post("/invocations", json={"inputs": "x", "parameters": {"top_k": 0}})
    assert (answer.status_code, answer.json()["error_type"]) == (422, "validation")
    answer = await client.post("/invocations", json={"messages": MESSAGES, "max_tokens": 0})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "max_tokens")
    answer = await client.post("/invocations", json={"other": 1})
    assert (answer.status_code, answer.json()["error_type"]) == (422, "validation")


@pytest.mark.parametrize("path", ["/vertex", "/predict"])
async def test_vertex(path: str) -> None:
    """Only max_new_tokens and seed count; sampling is on; chat is templated; order is kept."""
    engine = FakeEngine()
    app = build_app(engine, aip_predict_route="/predict")
    parameters = {"max_new_tokens": 3, "seed": 9, "stop": ["e"], "do_sample": False, "top_k": 2}
    instances = [
        {"inputs": "a", "parameters": parameters},
        {"messages": MESSAGES, "max_tokens": 5, "stream": True},
        {"inputs": "b"},
    ]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.post(path, json={"instances": instances})
    assert answer.json() == {"predictions": ["Hel", "Hello", "Hello world"]}
    assert not [name for name in answer.headers if name.startswith("x-compute")]
    names = [f"instances.0.parameters.{name}" for name in ("do_sample", "stop", "top_k")]
    assert answer.headers["x-tgi-ignored"] == ", ".join([*names, "instances.1.stream"])
    requests = {tuple(request.prompt_ids): request for request in engine.requests}
    first = requests[BOS, *ids_of("a")]
    assert (first.sampling.do_sample, first.sampling.top_k, first.seeds) == (True, 0, (9,))
    assert tuple(ids_of("[user]Hi[assistant]")) in requests


async def test_vertex_errors(client: httpx.AsyncClient) -> None:
    answer = await client.post("/vertex", json={"instances": []})
    assert answer.status_code == 422
    assert answer.json() == {"error": "Input validation error", "error_type": "Input validation error"}
    answer = await client.post("/vertex", json={"instances": [{"inputs": "a"}, {"inputs": ""}]})
    assert (answer.status_code, answer.json()) == (422, EMPTY)
    answer = await client.post("/vertex", json={"instances": [{"messages": MESSAGES, "max_tokens": 0}]})
    assert answer.status_code == 422, "in the words of the instance"
    assert answer.json()["error"] == "Input validation error: `max_tokens` must be strictly positive"
    answer = await client.post("/vertex", json={"instances": [{"messages": [{"role": "bad", "content": ""}]}]})
    assert (answer.status_code, answer.json()["error_type"]) == (422, "template_error")


async def test_one_failing_instance_aborts_the_others() -> None:
    engine = FakeEngine()
    engine.hold_after = 1
    app = build_app(engine)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.post("/vertex", json={"instances": [{"inputs": "a"}, {"inputs": ""}]})
    assert answer.json() == EMPTY
    assert engine.open_requests == 0
    assert app.state.api.permits.taken == 0


def tensor(text: str) -> dict[str, Any]:
    data = list(text.encode())
    return {"name": "in", "shape": [1, len(data)], "datatype": "BYTES", "data": data}


async def test_infer(client: httpx.AsyncClient) -> None:
    body = {
        "id": "7",
        "inputs": [tensor("a"), tensor("é")],
        "outputs": [{"name": "first"}, {"name": "second"}],
        "parameters": {"max_new_tokens": 2},
    }
    output = {"shape": [1, 2], "datatype": "BYTES", "data": [72, 101]}
    assert (await client.post(INFER, json=body)).json() == {
        "id": "7",
        "outputs": [{"name": "first", **output}, {"name": "second", **output}],
    }


async def test_infer_errors(client: httpx.AsyncClient) -> None:
    body = {"id": "7", "inputs": [tensor("a")], "outputs": []}
    answer = await client.post(INFER, json=body)
    assert answer.status_code == 422
    assert answer.json() == {"error": "Inputs and outputs length mismatch", "error_type": "length mismatch"}
    for data in ([0xFF], [256], [-1]):
        body = {"id": "7", "inputs": [{**tensor(""), "data": data}], "outputs": [{"name": "x"}]}
        answer = await client.post(INFER, json=body)
        assert (answer.status_code, answer.json()["error_type"]) == (422, "utf8")
    body = {"id": "7", "inputs": [tensor("")], "outputs": [{"name": "x"}]}
    answer = await client.post(INFER, json=body)
    assert (answer.status_code, answer.json()) == (422, EMPTY)
    answer = await client.post(INFER, json=body | {"inputs": [tensor("a")], "parameters": {"top_k": 0}})
    assert (answer.status_code, answer.json()["error_type"]) == (422, "validation")


async def test_a_failure_of_the_engine_is_tgis_500(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    infer = {"id": "7", "inputs": [tensor("a")], "outputs": [{"name": "x"}]}
    for failure in ("fail_after", "cut_after"):
        setattr(engine, failure, 1)
        for path, body in (("/vertex", {"instances": [{"inputs": "a"}]}), (INFER, infer)):
            answer = await client.post(path, json=body)
            assert (answer.status_code, answer.json()) == (500, INCOMPLETE)
        setattr(engine, failure, None)


async def test_kserve_metadata(client: httpx.AsyncClient) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/m/versions/1/ready"):
        assert (await client.get(path)).json() == {"live": True}
    body = (await client.get("/v2")).json()
    assert (body["name"], body["extensions"]) == ("text-generation-inference", ["health", "models", "metrics"])
    body = (await client.get("/v2/models/m/versions/1")).json()
    assert body == {"name": "m", "version": "1", "extensions": ["infer", "ready"]}
