"""Scheduler and block pool under random traffic, with every invariant checked after every step."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi.engine.blocks import BlockPool, hash_block
from tgi.engine.plan import Chunk, Plan, Sampled, decode, encode
from tgi.engine.scheduler import Scheduler
from tgi.engine.sequence import Sequence
from tgi.engine.states import StatePool
from tgi.messages import GenerateRequest, PromptLogprobs, Sampling, Token, TokenEvent, unpack_prompt


class Remembering(StatePool):
    """What a model with states would find in the slots: the tokens that made them."""

    def __init__(self, num_slots: int) -> None:
        super().__init__(num_slots)
        self.tokens: dict[int, list[int]] = {-1: []}


def make_scheduler(
    num_blocks=16, block_size=4, step_tokens=16, batch_size=8, prefix_caching=True, num_states=0
) -> Scheduler:
    blocks = BlockPool(num_blocks, block_size)
    blocks.states = Remembering(num_states) if num_states else None
    return Scheduler(
        blocks,
        max_step_tokens=step_tokens,
        max_batch_size=batch_size,
        max_total_tokens=10_000,
        prefix_caching=prefix_caching,
    )


def request(request_id: int, prompt: list[int], new: int = 4, samples: int = 1, **sampling) -> GenerateRequest:
    return GenerateRequest(
        request_id=request_id,
        prompt_ids=prompt,
        sampling=Sampling(max_new_tokens=new, **sampling),
        seeds=tuple(range(samples)),
    )


def next_token(token_ids: list[int], seed: int) -> int:
    """A stand-in for a model: the next token depends on all tokens before it."""
    return hash((tuple(token_ids), seed)) % 50


def owner(scheduler: Scheduler, chunk: Chunk) -> Sequence:
    sequence = scheduler.find(chunk.sequence_id)
    assert sequence is not None
    return sequence


def run(scheduler: Scheduler, plan: Plan) -> Sampled:
    """What the stand-in computes; drafts are kept as far as they are what it would have said."""
    sampled = Sampled(tokens=[])
    for number, chunk in enumerate(plan.chunks):
        sequence = owner(scheduler, chunk)
        if isinstance(scheduler.blocks.states, Remembering):
            memory = scheduler.blocks.states.tokens
            assert memory[chunk.state_from] == sequence.token_ids[: chunk.start] and not chunk.num_draft
            memory[chunk.state_to] = memory[chunk.state_from] + chunk.token_ids
        ids, tokens = list(sequence.token_ids), []
        for draft in [*chunk.token_ids[len(chunk.token_ids) - chunk.num_draft :], None] if chunk.draw else []:
            tokens.append(Token(next_token(ids, sequence.seed), -1.0))
            if tokens[-1].id != draft:
                break
            ids.append(draft)
        sampled.tokens.append(tokens)
        if chunk.prompt_targets:
            wanted = list(range(chunk.start + 1, chunk.start + 1 + len(chunk.prompt_targets)))
            assert list(chunk.prompt_targets) == [sequence.token_ids[position] for position in wanted]
            sampled.prompt[number] = PromptLogprobs([float(i) for i in wanted], [[] for _ in wanted])
    return sampled


def check(scheduler: Scheduler, plan: Plan) -> None:
    unfinished = scheduler.unfinished
    scheduler.blocks.check(unfinished)
    assert plan.num_tokens <= scheduler.max_step_tokens
    assert len(scheduler.running) <= scheduler.max_batch_size
    places = Counter(id(s) for s in scheduler.running) + Counter(id(s) for s in scheduler.waiting)
    followers = Counter(id(f) for s in unfinished for f in s.followers)
    assert places + followers == Counter(id(s) for s in unfinished), "every sequence is in exactly one place"
    for chunk in plan.chunks:
        sequence = owner(scheduler, chunk)
        assert chunk.token_ids and chunk.start == sequence.num_computed
        assert decode(encode(Plan([chunk]))) == Plan([chunk])
        assert len(chunk.block_table) * scheduler.blocks.block_size >= chunk.end
        writes = chunk.block_table[chunk.start // scheduler.blocks.block_size :]
        others = [b for s in scheduler.running if s is not sequence for b in s.block_table]
        assert not set(writes) & set(others), "a block that is written to is nobody else's"


def drain(scheduler: Scheduler, limit: int = 10_000) -> list[TokenEvent]:
    events: list[TokenEvent] = []
    for _ in range(limit):
        if not scheduler.has_work:
            return events
        plan = scheduler.schedule()
        check(scheduler, plan)
        assert plan, "work without a step: a deadlock"
        events += scheduler.commit(plan, run(scheduler, plan))
        scheduler.blocks.check(scheduler.unfinished)
    raise AssertionError("does not finish")


def texts(events: list[TokenEvent]) -> dict[tuple[int, int], list[int]]:
    result: dict[tuple[int, int], list[int]] = {}
    for event in events:
        result.setdefault((event.request_id, event.index), []).extend(token.id for token in event.tokens)
    return result


traffic = st.lists(
    st.tuples(
        st.integers(1, 30),  # prompt length
        st.integers(1, 20),  # new tokens
        st.integers(1, 3),  # samples
        st.integers(0, 6),  # shared prefix in units of 3 tokens
        st.integers(0, 12),  # arrives at step
        st.one_of(st.none(), st.integers(0, 25)),  # aborted at step
        st.booleans(),  # prompt log-probabilities
    ),
    max_size=14,
)


@settings(max_examples=150, deadline=None)
@given(
    traffic,
    st.sampled_from([13, 16, 40]),
    st.sampled_from([1, 3, 16, 64]),
    st.sampled_from([1, 4, 8]),
    st.booleans(),
    st.sampled_from([1, 3]),
    st.sampled_from([0, 2, 3]),
)
def test_random_traffic(traffic, num_blocks, step_tokens, batch_size, prefix_caching, groups, states):
    """Every sample gets one last event, output equals the solo run, nothing leaks, nothing deadlocks."""
    scheduler = make_scheduler(num_blocks, 4, step_tokens, batch_size, prefix_caching, states * batch_size)
    events: list[TokenEvent] = []
    requests: dict[int, GenerateRequest] = {}
    pending = []
    for number, (length, new, samples, shared, arrives, aborted, logprobs) in enumerate(traffic):
        prompt = ([7] * (3 * shared) + [number + 100] * 30)[:length]
        asked = request(number, prompt, new, samples, prompt_logprobs=0 if logprobs else -1)
        requests[number] = msgspec.structs.replace(asked, group=number % groups)
        pending.append((arrives, number, aborted))
    for step in range(2_000):
        for arrives, number, aborted in pending:
            if arrives == step:
                events += scheduler.add(requests[number])
            if aborted is not None and aborted == step:
                events += scheduler.abort(number, -1 if number % 2 else 0)
        plan = scheduler.schedule()
        check(scheduler, plan)
        assert bool(plan) == scheduler.has_work
        events += scheduler.commit(plan, run(scheduler, plan))
        if step > 25 and not scheduler.has_work:
            break
    scheduler.blocks.check([])
    assert scheduler.blocks.num_free == num_blocks and not scheduler.unfinished
    last = Counter((e.request_id, e.index) for e in events if e.finish)
    assert last == Counter((n, i) for n, r in requests.items() for i in range(len(r.seeds)))
    finishes = {(e.request_id, e.index): e.finish for e in events if e.finish}
    for (number, index), tokens in texts(events).items():
        if finishes[number, index] == "length":
            assert tokens == solo(requests[number], index)
    for event in events:
        if event.prompt is not None:
            length = len(requests[event.request_id].prompt_ids)
            assert [int(p) for p, _ in list(unpack_prompt(event.prompt))[1:]] == list(range(1, length))


def solo(request: GenerateRequest, index: int) -> list[int]:
    token_ids = list(request.prompt_ids)
    for _ in range(request.sampling.max_new_tokens):
        token_ids.append(next_token(token_ids, request.seeds[index]))
    return token_ids[len(request.prompt_ids) :]


def cached(scheduler: Scheduler, request_id: int, prompt: list[int], new: int = 1, samples: int = 1) -> list[int]:
    """Tokens that the samples of a request found in the cache."""
    scheduler.add(request(request_id, prompt, new, samples))
    return [event.cached_tokens for event in drain(scheduler) if event.scheduled]


def test_prefix_hits_go_as_far_as_a_state_was_saved():
    """Blocks of 4: at the end of the last block that other prompts may share, and wherever a step ends with a block."""
    scheduler = make_scheduler(num_blocks=64, step_tokens=64, num_states=12)
    prompt = list(range(30))
    assert cached(scheduler, 1, prompt) == [0]
    assert cached(scheduler, 2, prompt) == [28]
    assert cached(scheduler, 3, [*prompt[:20], *range(100, 110)]) == [0], "blocks without a state are none"
    assert cached(scheduler, 4, prompt[:29], samples=3) == [28] * 3
    told = list(range(50, 60))
    cached(scheduler, 5, told, new=12)
    story = [*told, *solo(request(5, told, 12), 0)]
    assert cached(scheduler, 6, [*story[:21], 1, 2, 3]) == [20], "what was generated can be found as well"


def test_states_that_are_saved_make_room():
    scheduler = make_scheduler(num_blocks=64, step_tokens=64, batch_size=1, num_states=3)
    prompts = [[number] * 9 for number in range(3)]
    for number, prompt in enumerate(prompts):
        assert cached(scheduler, number, prompt) == [0]
    assert cached(scheduler, 4, prompts[2]) == [8], "the last is there"
    assert cached(scheduler, 5, prompts[0]) == [0], "the first had to go"
    scheduler.blocks.check([])


def test_decodes_come_before_a_long_prompt():
    scheduler = make_scheduler(num_blocks=64, step_tokens=8)
    scheduler.add(request(1, [1, 2, 3], new=20))
    scheduler.commit(plan := scheduler.schedule(), run(scheduler, plan))
    scheduler.add(request(2, list(range(40))))
    for _ in range(4):
        plan = scheduler.schedule()
        assert [len(c.token_ids) for c in plan.chunks if owner(scheduler, c).request_id == 1] == [1]
        assert plan.num_tokens == 8
        scheduler.commit(plan, run(scheduler, plan))


def test_prefix_hit_leaves_one_token_and_shares_blocks():
    scheduler = make_scheduler(num_blocks=32, step_tokens=64)
    prompt = list(range(12))
    scheduler.add(request(1, prompt, new=1))
    drain(scheduler)
    scheduler.add(request(2, prompt, new=1))
    plan = scheduler.schedule()
    assert plan.prefix_hit_tokens == 8 and plan.chunks[0].start == 8
    events = scheduler.commit(plan, run(scheduler, plan))
    assert events[0].cached_tokens == 8


def test_other_salt_shares_nothing():
    scheduler = make_scheduler(num_blocks=32, step_tokens=64)
    for number, salt in enumerate("ab"):
        plain = request(number, list(range(12)), new=1)
        scheduler.add(GenerateRequest(number, plain.prompt_ids, plain.sampling, plain.seeds, cache_salt=salt))
        plan = scheduler.schedule()
        assert plan.prefix_hit_tokens == 0
        scheduler.commit(plan, run(scheduler, plan))


def test_samples_share_the_prompt_even_without_prefix_caching():
    scheduler = make_scheduler(num_blocks=32, step_tokens=64, prefix_caching=False)
    scheduler.add(request(1, list(range(16)), new=3, samples=3))
    first = scheduler.schedule()
    assert len(first.chunks) == 1
    scheduler.commit(first, run(scheduler, first))
    second = scheduler.schedule()
    assert sorted(len(chunk.token_ids) for chunk in second.chunks) == [1, 4, 4]
    tables = [chunk.block_table[:3] for chunk in second.chunks]
    assert tables[0] == tables[1] == tables[2]


def test_collision_is_a_miss_never_a_hit(monkeypatch):
    """With a hash that always collides only identical content may be shared."""
    monkeypatch.setattr("tgi.engine.blocks.hash_block", lambda parent, ids: b"same")
    scheduler = make_scheduler(num_blocks=64, step_tokens=64)
    for number in range(4):
        scheduler.add(request(number, [number] * 4 + [9] * 8, new=1))
        plan = scheduler.schedule()
        assert plan.prefix_hit_tokens == 0
        scheduler.commit(plan, run(scheduler, plan))
    assert hash_block(b"", [1]) != hash_block(b"", [2]) != hash_block(b"x", [2])


@pytest.mark.parametrize(("prompt", "new", "fits"), [(60, 4, True), (60, 5, False), (100, 1, False), (1, 63, True)])
def test_what_can_never_fit_is_refused_at_once(prompt, new, fits):
    scheduler = make_scheduler(num_blocks=16, block_size=4)
    events = scheduler.add(request(1, list(range(prompt)), new=new))
    if fits:
        assert not events
        assert drain(scheduler)[-1].finish == "length"
    else:
        assert events[0].finish == "error" and "64 tokens" in str(events[0].error)
        assert not scheduler.has_work


def test_two_requests_of_exactly_the_capacity_both_finish():
    scheduler = make_scheduler(num_blocks=16, block_size=4)
    for number in range(2):
        scheduler.add(request(number, [number] * 32, new=32))
    events = drain(scheduler)
    assert Counter(e.finish for e in events if e.finish) == {"length": 2}


def test_one_failing_sequence_harms_nobody():
    scheduler = make_scheduler()
    scheduler.add(request(1, [1, 2, 3]))
    scheduler.add(request(2, [4, 5, 6]))
    plan = scheduler.schedule()
    sampled = run(scheduler, plan)
    sampled.errors[0] = "not a number"
    events = scheduler.commit(plan, sampled)
    assert (events[0].finish, events[0].error) == ("error", "not a number")
    assert texts(drain(scheduler))[2, 0]


def test_eviction_takes_the_least_recent_and_the_tail_first():
    pool = BlockPool(4, 2)
    old = Sequence(1, 1, 0, [1, 2, 3, 4], 4, Sampling(max_new_tokens=1), 0)
    new = Sequence(2, 2, 0, [5, 6, 7, 8], 4, Sampling(max_new_tokens=1), 0)
    for sequence in (old, new):
        assert pool.grow(sequence, 4)
        pool.index(sequence, 0, 2)
    tables = old.block_table, new.block_table
    pool.release(old)
    pool.release(new)
    taker = Sequence(3, 3, 0, [9] * 6, 6, Sampling(max_new_tokens=1), 0)
    assert pool.grow(taker, 6)
    assert taker.block_table == [tables[0][1], tables[0][0], tables[1][1]]
    assert not pool.grow(Sequence(4, 4, 0, [1] * 4, 4, Sampling(max_new_tokens=1), 0), 4)


def test_order_of_arrival_survives_preemption():
    """A preempted sequence returns to the head of the queue, the older ones before the younger."""
    scheduler = make_scheduler(num_blocks=8, block_size=4, step_tokens=32)
    for number in range(3):
        scheduler.add(request(number, [random.randrange(50) for _ in range(8)], new=24))
    preempted = 0
    order: list[int] = []
    while scheduler.has_work:
        plan = scheduler.schedule()
        preempted += plan.preempted
        waiting = [s.request_id for s in scheduler.waiting]
        assert waiting == sorted(waiting)
        order += [e.request_id for e in scheduler.commit(plan, run(scheduler, plan)) if e.finish]
    assert preempted and order == [0, 1, 2]


def drafts_of(sequence: Sequence, count: int, wrong: int | None) -> list[int]:
    """The next `count` tokens as the stand-in will say them, the one numbered `wrong` another."""
    ids = list(sequence.token_ids)
    for number in range(count):
        ids.append(next_token(ids, sequence.seed) + (number == wrong))
    return ids[sequence.num_tokens :]


@pytest.mark.parametrize("wrong", [None, 0, 1, 3])
@pytest.mark.parametrize("num_blocks", [7, 64])
def test_drafts_change_no_token_and_save_steps(wrong: int | None, num_blocks: int):
    plain, drafted = (make_scheduler(num_blocks=num_blocks, step_tokens=40) for _ in range(2))
    requests = [request(number, [number, 2, 3, 4, 5], new=9, samples=number) for number in (1, 2)]
    for scheduler in (plain, drafted):
        for asked in requests:
            assert not scheduler.add(asked)
    expected = texts(drain(plain))
    events, accepted = [], 0
    while drafted.has_work:
        for sequence in drafted.running:
            if sequence.num_uncomputed == 1:
                sequence.draft_ids = drafts_of(sequence, 4, wrong)
        plan = drafted.schedule()
        check(drafted, plan)
        for chunk in plan.chunks:
            assert chunk.logit_rows == (1 + chunk.num_draft if chunk.draw else 0)
        booked = drafted.commit(plan, run(drafted, plan))
        accepted += sum(max(0, len(event.tokens) - 1) for event in booked)
        events += booked
        drafted.blocks.check(drafted.unfinished)
    assert texts(events) == expected
    assert {event.finish for event in events if event.finish} == {"length"}
    assert (accepted > 0) == (wrong != 0)


def test_a_draft_beyond_the_end_token_is_dropped():
    scheduler = make_scheduler(num_blocks=64)
    ids = [1, 2]
    for _ in range(3):
        ids.append(next_token(ids, 0))
    scheduler.add(request(1, [1, 2], new=9, eos_token_ids=(ids[3],)))
    scheduler.commit(plan := scheduler.schedule(), run(scheduler, plan))
    scheduler.running[0].draft_ids = [ids[3], ids[4]]
    plan = scheduler.schedule()
    (event,) = scheduler.commit(plan, run(scheduler, plan))
    assert ([token.id for token in event.tokens], event.finish) == ([ids[3]], "eos_token")
    assert scheduler.blocks.num_free == 64


def test_a_sequence_that_is_not_ready_holds_up_nobody():
    scheduler = make_scheduler(num_blocks=64)
    scheduler.add(request(1, [1, 2, 3]))
    slow = scheduler.waiting[0]
    slow.ready = False
    assert not scheduler.has_work and not scheduler.schedule()
    scheduler.add(request(2, [4, 5]))
    events = drain(scheduler)
    assert {event.request_id for event in events if event.finish} == {2}
    slow.ready = True
    assert {event.request_id for event in drain(scheduler) if event.finish} == {1}


def test_a_plan_says_which_sequences_are_over():
    scheduler = make_scheduler(num_blocks=64)
    scheduler.add(request(1, [1, 2, 3], new=1))
    scheduler.add(request(2, [1, 2, 3], new=3))
    first = scheduler.schedule()
    ids = {owner(scheduler, chunk).request_id: chunk.sequence_id for chunk in first.chunks}
    scheduler.commit(first, run(scheduler, first))
    assert first.ended == [] and scheduler.schedule().ended == [ids[1]]
